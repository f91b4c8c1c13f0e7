"""Masks of short segments: several queries, several readings, one pass of the network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.base import Encoder
from sep import feedback
from sep.candidates import Reading
from sep.model import QueryNet
from sep.unet import steady

SLICE_FRAMES = 1024  # frames of a mask that are computed at once


class Masking:
    """Masks segments of a waveform, the function that overlap-add applies.

    Segments go through the network in the steady form that joins them without seams
    (`sep.unet.steady`); what is masked in one piece, by `whole`, through the network as trained.

    Args:
        model: the separator network.
        queries: (Q, D).
        readings: K ways to make masks of the logits.
        keep: whether to keep the logits of every segment, for `masks`.
        encoder: refines the queries by what they find (`sep.feedback`); None leaves them.
        window: samples that it hears at once. Where segments begin at multiples of it, neighbours
            hear the same.
        each: whether every row gets masks of its own, by what the network hears in it.
    """

    def __init__(
        self,
        model: QueryNet,
        queries: Tensor,
        readings: Sequence[Reading],
        keep: bool = False,
        encoder: Encoder | None = None,
        window: float | None = None,
        each: bool = False,
    ):
        self.model, self.readings, self.keep = model, readings, keep
        self.encoder, self.window, self.each = encoder, window, each
        self.steady = steady(model)
        self.device = model.spectrogram.window.device
        self.queries = queries.to(self.device)
        self.kept: list[Tensor] = []

    @property
    def count(self) -> int:
        """Results for each segment, K * Q."""
        return len(self.readings) * len(self.queries)

    def __call__(self, segments: Tensor) -> Tensor:
        """Map (B, R, n), whose first row the network hears, or each, to (B, R, K, Q, n)."""
        return self._masked(self.steady, segments)

    def whole(self, wave: Tensor) -> Tensor:
        """The same for a whole recording (B, R, n)."""
        return self._masked(self.model, wave)

    def _masked(self, model: QueryNet, segments: Tensor) -> Tensor:
        grid = model.spectrogram
        spectra = grid.stft(segments)
        rows = segments.shape[1] if self.each else 1
        logits = [self._logits(model, segments[:, r], spectra[:, r].abs()) for r in range(rows)]
        results = []
        for reading in self.readings:
            masks = torch.stack([self._masks(row, reading) for row in logits], dim=1)
            results.append(grid.istft(spectra[:, :, None] * masks, segments.shape[-1]))
        masked = torch.stack(results, dim=2)
        if self.keep:  # last, as a segment that there is no room for is masked again in pieces
            self.kept.extend(logits[0].half().cpu())
        return masked

    def masks(self, seams: list[tuple[int, int]], reading: Reading) -> Tensor:
        """Masks (Q, F, T) in float16 of a whole recording.

        Args:
            seams: for each segment that was masked the frame where it starts, and the one from
                which it takes over from the segment before.
            reading: of the logits.
        """
        parts = []
        ends = [first for _, first in seams[1:]]
        for (start, first), end, logits in zip(seams, [*ends, None], self.kept, strict=True):
            parts.append(logits[..., first - start : None if end is None else end - start])
        slices = torch.cat(parts, dim=-1).split(SLICE_FRAMES, dim=-1)
        masks = (self._masks(s.to(self.device).float()[None], reading)[0] for s in slices)
        return torch.cat([mask.half().cpu() for mask in masks], dim=-1)

    def _logits(self, model: QueryNet, wave: Tensor, magnitude: Tensor) -> Tensor:
        """Logits (B, Q, H, T) of a waveform (B, n) and its magnitudes (B, F, T)."""
        if self.encoder is not None:
            queries = self.queries.expand(len(wave), -1, -1)
            return feedback.logits(model, self.encoder, wave, queries, self.window)
        if len(self.queries) == 1:
            return model.logits(magnitude, self.queries[0])[:, None]
        return model.logits(magnitude, self.queries.expand(len(magnitude), -1, -1))

    def _masks(self, logits: Tensor, reading: Reading) -> Tensor:
        """Masks (B, Q, F, T) of logits (B, Q, H, T)."""
        unwarp = self.model.spectrogram.unwarp
        return sum(weight * shared(unwarp(v.mask(logits))) for weight, v in reading)


def shared(masks: Tensor) -> Tensor:
    """Divide masks (B, Q, F, T) by their sum over Q where it exceeds 1.

    Sounds that want the same bin share it, so that together they never take more than there is;
    a single mask stays as it is.
    """
    return masks / masks.sum(1, keepdim=True).clamp(min=1)
