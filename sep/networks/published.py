"""The published CLIPSep and OmniSep networks, number by number."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from sep.model import QueryNet
from sep.spectrogram import Spectrogram


class SampledSpectrogram(Spectrogram):
    """`Spectrogram` whose warp is that of CLIPSep and OmniSep down to its rounding.

    They sample both axes by bilinear interpolation at positions made in float64 and rounded to
    float32, which lets about 1e-5 of the neighbouring frame and bin in: in bins that are 1e5 times
    fainter than their neighbours that moves masks by 1e-4.
    """

    def warp(self, magnitude: Tensor) -> Tensor:
        """Resample the frequency axis: (..., F, T) to (..., H, T)."""
        y = torch.linspace(-1, 1, self.log_bins, dtype=torch.float64)
        return _sampled(magnitude, (21 ** ((y + 1) / 2) - 11) / 10)

    def unwarp(self, mask: Tensor) -> Tensor:
        """Resample the frequency axis back: (..., H, T) to (..., F, T)."""
        y = torch.linspace(-1, 1, self.n_fft // 2 + 1, dtype=torch.float64)
        return _sampled(mask, torch.log(10 * y + 11) / math.log(21) * 2 - 1)


class PublishedNet(QueryNet):
    """`QueryNet` with the sampling of the published networks, in float32.

    Everything that takes a `QueryNet` takes it. With magnitudes (B, 1, F, T) its forward pass is
    that of the original before the sigmoid.

    Args:
        options: those of `QueryNet`.
    """

    kind = "published"
    unit_queries = False

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.spectrogram = SampledSpectrogram(**self.spectrogram.config)
        self.amp = False

    def forward(self, magnitude: Tensor, query: Tensor) -> Tensor:
        """Mask logits (B, 1, H, T) of magnitudes (B, 1, F, T) and queries (B, D).

        Magnitudes (B, F, T) give what `logits` gives.
        """
        if magnitude.dim() == 4:
            return self.logits(magnitude[:, 0], query)[:, None]
        return self.logits(magnitude, query)


def _sampled(values: Tensor, row: Tensor) -> Tensor:
    """Read rows at positions in [-1, 1], and all frames: (..., R, T) to (..., len(row), T)."""
    column = torch.linspace(-1, 1, values.shape[-1], dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)  # (rows, T, 2)
    images = values.reshape(1, -1, *values.shape[-2:])  # as channels of one image
    read = grid_sample(images, grid.to(values)[None], align_corners=True)
    return read.reshape(*values.shape[:-2], *read.shape[-2:])
