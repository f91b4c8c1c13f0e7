"""Levels, colours and mixtures, batched in torch."""

import math

import torch
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


def colour(waves: Tensor, spread_db: float, generator: torch.Generator) -> Tensor:
    """Give each waveform (M, N) a random tone: what rooms, microphones and sound cards differ in.

    A smooth curve over log frequency, whose seven knots between 60 Hz and half the rate of 16 kHz
    have a standard deviation of `spread_db`; every fourth waveform is also low-passed somewhere
    above 3 kHz, as old sound files are. Levels are not kept. Random numbers come from the CPU.
    """
    count, samples = waves.shape
    size = 1 << (samples - 1).bit_length()
    hertz = torch.linspace(0, 8_000, size // 2 + 1).clamp(min=60)
    place = torch.log2(hertz / 60) / math.log2(8_000 / 60) * 6
    lower = place.long().clamp(max=5)
    knots = torch.randn(count, 7, generator=generator) * spread_db
    curve_db = torch.lerp(knots[:, lower], knots[:, lower + 1], place - lower)
    cut, used = torch.rand(2, count, 1, generator=generator)
    low_pass = torch.sigmoid((3_000 + 5_000 * cut - hertz) / 100)
    response = 10 ** (curve_db / 20) * torch.where(used < 0.25, low_pass, 1.0)
    spectrum = torch.fft.rfft(waves, size) * response.to(waves.device)
    return torch.fft.irfft(spectrum, size)[:, :samples]
