"""A training batch on the device: levelled sources, their spectrograms and queries."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sep.data.bank import MixtureSampler, QueryBank
from sep.query import subtract
from sep.spectrogram import Spectrogram


@dataclass
class Batch:
    """Mixtures of a training step; the mixture is the sum of its sources and a noise floor.

    Attributes:
        sources: (B, S, N) waveforms.
        spectra: (B, S, F, T) complex spectrograms of the sources.
        spectrum: (B, F, T) that of the mixture.
        warped: (B, S, H, T) source magnitudes on the log-frequency grid.
        mixture: (B, H, T) mixture magnitude on that grid.
        query: (B, S, D) one query a source.
        label: (B, S) index of each source's label, on the CPU.
        noise: (B, N) waveform that no query asks for, rest: (B, H, T) its magnitude on that grid;
            zeros that broadcast where there is none.
    """

    sources: Tensor
    spectra: Tensor
    spectrum: Tensor
    warped: Tensor
    mixture: Tensor
    query: Tensor
    label: Tensor
    noise: Tensor
    rest: Tensor

    @classmethod
    def of(
        cls,
        sources: Tensor,
        query: Tensor,
        label: Tensor,
        spectrogram: Spectrogram,
        noise: Tensor | None = None,
    ) -> "Batch":
        """The batch of these sources (B, S, N), queries (B, S, D), labels (B, S) and noise (B, N).

        Noise of shape (B, 1), or None, is none.
        """
        spectra = spectrogram.stft(sources)  # (B, S, F, T); the STFT of the sum is the sum
        spectrum = spectra.sum(1)
        silence = sources.new_zeros(len(sources), 1)
        noise, rest = silence if noise is None else noise, silence[..., None]
        if noise.shape[-1] > 1:
            floor = spectrogram.stft(noise)
            spectrum, rest = spectrum + floor, spectrogram.warp(floor.abs())
        return cls(
            sources=sources,
            spectra=spectra,
            spectrum=spectrum,
            warped=spectrogram.warp(spectra.abs()),
            mixture=spectrogram.warp(spectrum.abs()),
            query=query,
            label=label,
            noise=noise,
            rest=rest,
        )

    @property
    def magnitude(self) -> Tensor:
        """(B, F, T) mixture magnitude."""
        return self.spectrum.abs()


@torch.no_grad()
def draw_batch(
    sampler: MixtureSampler,
    queries: QueryBank,
    spectrogram: Spectrogram,
    step: int,
    mixed: float,
    negative: float = 0.0,
) -> Batch:
    """Draw the mixtures and queries of a step; a pure function of the sampler's seed and `step`.

    Args:
        sampler, queries, spectrogram: what to draw from, and the grid of the separator.
        step: of the run.
        mixed: probability of query mix-up (`QueryBank.draw`).
        negative: probability that the query of another source of the mixture is taken away from
            a query, by the rule that inference follows (`sep.query.subtract`).
    """
    generator = sampler.generator(step)
    clip, sources = sampler.draw(generator)
    noise = sampler.floor(sources, generator)
    query = queries.draw(clip, generator, mixed)
    if negative:
        used = torch.rand(clip.shape, generator=generator) < negative
        turned = subtract(query, query.roll(1, dims=1))
        query = torch.where(used[..., None].to(query.device), turned, query)
    return Batch.of(sources, query, sampler.bank.label[clip], spectrogram, noise)
