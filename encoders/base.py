"""The interface that every encoder offers, and the error that all of them raise."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn


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
        text_apart: whether the text tower is loaded apart from the others, when first asked for.
    """

    name: str
    dim: int
    sample_rate: int
    window: int
    licence: str
    text_apart = False

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

    def folded(self) -> Self:
        """The encoder, or a twin that hears faster and is neither trained nor saved."""
        return self

    @abstractmethod
    def save(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """Write the encoder to `folder`, with what it was made from."""


class Alignable(nn.Module, Encoder):
    """An encoder that progressive alignment can tune (`encoders.aligner`).

    Its backbones make features, its heads project them into the common space. Embeddings of the
    methods below need not have norm 1.

    Attributes:
        heads: projection head of each modality that it has: "audio", "text", "image".
        backbone: what lies below the audio head.
        lora_targets: endings of the names of the backbone's layers that LoRA adapts.
        tuning: what is tuned unless told otherwise, see `encoders.tuning`.
        logit_scale: logarithm of the inverse temperature, ().
        anchor: fuses the embeddings of one sound, its text and its picture.
    """

    heads: dict[str, nn.Module]
    backbone: nn.Module
    lora_targets: tuple[str, ...]
    tuning: str
    logit_scale: nn.Parameter
    anchor: nn.Module

    def fit_text(self, texts: Sequence[str]) -> None:
        """Prepare the text space for the texts of the classes, before alignment."""

    @abstractmethod
    def audio_patch(self, wave: Tensor) -> Tensor:
        """Map waveforms (B, N) of at most one window to patches (B, H, T), frequency by time."""

    @abstractmethod
    def embed_patch(self, patch: Tensor) -> Tensor:
        """Embed patches (B, H, T) as (B, D)."""

    @abstractmethod
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Features (Q, ...) of Q texts below the head. Raises EncoderError for an empty one."""

    @abstractmethod
    def project_text(self, features: Tensor) -> Tensor:
        """Map features (Q, ...) to unit vectors (Q, D)."""

    @abstractmethod
    def image_features(self, images: Sequence[Any]) -> tuple[Tensor, ...]:
        """Features (B, ...) of B pictures below the head, in one tensor or several."""

    @abstractmethod
    def project_image(self, *features: Tensor) -> Tensor:
        """Map features (B, ...) to unit vectors (B, D)."""


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
