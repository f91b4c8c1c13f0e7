"""A recording as it is given in Python: a path, an array or a tensor."""

from collections.abc import Callable
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sep import audio as recording
from sep.errors import AudioFileError
from sep.results import Waveform


def load(
    audio: str | Path | Waveform, sample_rate: int | None
) -> tuple[Tensor, int, Callable[[Tensor], Waveform]]:
    """The recording as (C, N) on the CPU, its rate, and how to give results the input's form.

    Args:
        audio: a path, or floating-point samples (N,) or (C, N).
        sample_rate: of an array or tensor, in Hz.

    Raises:
        AudioFileError: what cannot be used.
    """
    if isinstance(audio, str | Path):
        return *recording.read(audio), lambda wave: wave
    if not isinstance(audio, Tensor | np.ndarray):
        raise AudioFileError("audio: give a path, a numpy array or a tensor")
    if sample_rate is None:
        raise AudioFileError("audio: an array has no rate of its own; pass sample_rate in Hz")
    lowest, highest = recording.LOWEST_HZ, recording.HIGHEST_HZ
    if not isinstance(sample_rate, Real) or not lowest <= sample_rate <= highest:
        raise AudioFileError(
            f"audio: sample_rate {sample_rate!r}; give a number from {lowest} to {highest} Hz"
        )
    if isinstance(audio, np.ndarray):
        audio = np.ascontiguousarray(audio)  # torch takes no negative strides
    wave = torch.as_tensor(audio).detach().cpu()
    if not wave.is_floating_point():
        raise AudioFileError(f"audio: {wave.dtype} samples; scale them to floats in [-1, 1]")
    if wave.ndim not in (1, 2) or wave.numel() == 0:
        raise AudioFileError(f"audio: shape {tuple(wave.shape)}; give samples (N,) or (C, N)")
    if wave.ndim == 2 and wave.shape[0] > max(32, wave.shape[1]):
        raise AudioFileError(f"audio: shape {tuple(wave.shape)} looks like (N, C); transpose it")
    if not wave.isfinite().all():
        raise AudioFileError("audio: contains NaN or infinite samples; repair the recording")
    if wave.abs().max() > recording.LARGEST:
        raise AudioFileError(
            f"audio: samples beyond {recording.LARGEST:g}; scale them to floats in [-1, 1]"
        )

    def restore(result: Tensor) -> Waveform:
        result = result.reshape(wave.shape)
        return result.to(audio.device) if isinstance(audio, Tensor) else result.numpy()

    return wave.reshape(-1, wave.shape[-1]), int(sample_rate), restore
