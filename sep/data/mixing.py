"""Levels and mixtures, batched in torch."""

from torch import Tensor

LEVEL_DB = -25.0  # active RMS of a source before its gain, dB re full scale
_FRAME = 320  # samples over which activity is judged
_ACTIVE_DB = -40.0  # frames this far below the loudest one count as silence


def active_rms(wave: Tensor) -> Tensor:
    """RMS over the active part of waveforms: (..., N) to (...,); 0 for silence.

    A frame of 320 samples is active when its energy is within 40 dB of the loudest frame's.
    """
    frames = wave[..., : wave.shape[-1] // _FRAME * _FRAME].unflatten(-1, (-1, _FRAME))
    power = frames.square().mean(-1)
    loudest = power.amax(-1, keepdim=True)
    active = (power >= loudest * 10 ** (_ACTIVE_DB / 10)) & (loudest > 0)
    return (power * active).sum(-1).div(active.sum(-1).clamp(min=1)).sqrt()


def level(sources: Tensor, gains_db: Tensor) -> Tensor:
    """Bring sources (B, S, N) to -25 dB active RMS plus gains_db (B, S).

    Where the sum of a mixture's sources would pass full scale, all of them are turned down
    together. Silent sources stay silent.
    """
    rms = active_rms(sources)
    gain = 10 ** ((LEVEL_DB + gains_db) / 20) / rms.clamp(min=1e-6)
    sources = sources * gain[..., None]
    peak = sources.sum(1).abs().amax(-1)
    return sources / peak.clamp(min=1)[:, None, None]
