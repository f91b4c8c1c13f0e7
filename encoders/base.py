"""The interface that every encoder offers, and the error that all of them raise."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor


class EncoderError(Exception):
    """One clear line that names the file or option at fault and the fix."""


class Encoder(ABC):
    """Maps texts, sounds and pictures to unit vectors of one space.

    Shapes: B batch, Q query, N samples, D embedding. Every embedding is float32 of norm 1.

    Attributes:
        name: name in the registry.
        dim: D.
        sample_rate: rate in Hz that the audio tower works at; other rates are resampled.
        window: samples at that rate that the audio tower takes at once.
        licence: licence of the weights in one line.
    """

    name: str
    dim: int
    sample_rate: int
    window: int
    licence: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Short hash of the weights; equal weights give equal embeddings. Keys caches."""

    @abstractmethod
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed Q texts as (Q, D). Raises EncoderError for an empty text."""

    @abstractmethod
    def embed_audio(self, wave: Tensor, sample_rate: int, window_s: float | None = None) -> Tensor:
        """Embed waveforms (B, N) at `sample_rate` Hz as (B, D), differentiable in `wave`.

        Short clips are tiled to the encoder's window, long ones averaged over windows; `window_s`
        asks for another window, in seconds.

        Raises EncoderError for NaN, infinity, silence, an empty waveform or a rate below 1.
        """

    @abstractmethod
    def embed_image(self, images: Sequence[Any]) -> Tensor:
        """Embed B pictures (path, PIL image, or tensor (3, height, width)) as (B, D).

        Raises EncoderError for a file that is no image.
        """

    @abstractmethod
    def to(self, device: str | torch.device) -> Self:
        """Move all towers to `device` and return the encoder."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` to `folder`, each atomically."""


def check_wave(wave: Tensor, sample_rate: int, silence: bool = False) -> None:
    """Refuse a waveform (B, N) that cannot be embedded; `silence` lets silence pass.

    Raises EncoderError.
    """
    if not isinstance(wave, Tensor) or not wave.is_floating_point() or wave.ndim != 2:
        shape = tuple(wave.shape) if isinstance(wave, Tensor) else type(wave).__name__
        raise EncoderError(f"audio must be a float tensor of shape (B, N); got {shape}")
    if int(sample_rate) < 1:
        raise EncoderError(f"the sample rate must be at least 1 Hz; got {sample_rate}")
    if wave.shape[-1] == 0:
        raise EncoderError("the audio is empty; give at least one sample")
    peak = wave.detach().abs().amax(-1)
    if not bool(torch.isfinite(peak).all()):
        raise EncoderError("the audio holds NaN or infinite samples; repair or drop them first")
    if not silence and bool((peak < 1e-7).any()):
        raise EncoderError("the audio is silent; an embedding needs a sound above -140 dBFS")
