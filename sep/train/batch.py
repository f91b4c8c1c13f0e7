"""A training batch on the device: levelled sources, their spectrograms and queries."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sep.data.bank import MixtureSampler, QueryBank
from sep.spectrogram import Spectrogram


@dataclass
class Batch:
    """Mixtures of a training step; the mixture is the sum of its sources.

    Attributes:
        sources: (B, S, N) waveforms.
        spectrum: (B, F, T) complex mixture spectrogram.
        warped: (B, S, H, T) source magnitudes on the log-frequency grid.
        mixture: (B, H, T) mixture magnitude on that grid.
        query: (B, S, D) one query a source.
        clip: (B, S) clip indices.
    """

    sources: Tensor
    spectrum: Tensor
    warped: Tensor
    mixture: Tensor
    query: Tensor
    clip: Tensor

    @property
    def magnitude(self) -> Tensor:
        """(B, F, T) mixture magnitude."""
        return self.spectrum.abs()


@torch.no_grad()
def draw_batch(
    sampler: MixtureSampler, queries: QueryBank, spectrogram: Spectrogram, step: int, mixed: float
) -> Batch:
    """Draw the mixtures and queries of a step; a pure function of the sampler's seed and `step`.

    `mixed` is the probability of query mix-up (`QueryBank.draw`).
    """
    generator = sampler.generator(step)
    clip, sources = sampler.draw(generator)
    query = queries.draw(clip, generator, mixed)
    spectra = spectrogram.stft(sources)  # (B, S, F, T); the STFT of the sum is the sum
    spectrum = spectra.sum(1)
    return Batch(
        sources=sources,
        spectrum=spectrum,
        warped=spectrogram.warp(spectra.abs()),
        mixture=spectrogram.warp(spectrum.abs()),
        query=query,
        clip=clip,
    )
