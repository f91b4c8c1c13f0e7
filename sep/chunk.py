"""Recordings of any length through a function of short ones: padded, cross-faded overlap-add."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from sep.errors import SepError


@dataclass(frozen=True)
class Chunking:
    """How a recording is cut; all lengths in samples.

    Args:
        segment: read at once, context included.
        context: read at both ends of a segment for the function to see and then thrown away.
        overlap: least share, in [0, 1), of what is kept of a segment that the next one gives
            again; the two are cross-faded there.
        align: segments start at multiples of this. The hop of an STFT times the time stride of
            the network behind it makes a segment see the grid that the whole recording has.
        batch: segments in one call of the function.

    Raises:
        SepError: an overlap outside [0, 1), or a segment too short to move on.
    """

    segment: int
    context: int
    overlap: float = 0.1
    align: int = 1
    batch: int = 1

    def __post_init__(self):
        if not 0 <= self.overlap < 1:
            raise SepError(
                f"overlap {self.overlap:g} is not in [0, 1): at 1 or more the next segment would "
                "start where the last one did and never reach the end; use for example 0.1"
            )
        if self.batch < 1 or self.align < 1 or self.context < 0:
            raise SepError("batch and align must be at least 1 and context at least 0")
        if self.stride < 1:
            raise SepError(
                f"segments of {self.segment} samples, {self.context} of them thrown away at each "
                f"end and starts at multiples of {self.align}, never move on; use longer segments"
            )

    @property
    def stride(self) -> int:
        """Samples from one segment's start to the next."""
        kept = self.segment - 2 * self.context
        return int(kept * (1 - self.overlap)) // self.align * self.align

    @property
    def shared(self) -> int:
        """Samples that two neighbours both give, where they are cross-faded."""
        return self.segment - 2 * self.context - self.stride

    def starts(self, length: int) -> range:
        """First samples of the segments that cover `length`; the last one may be shorter."""
        more = max(0, -(-(length - self.segment) // self.stride))
        return range(0, (more + 1) * self.stride, self.stride)


def overlap_add(
    function: Callable[[Tensor], Tensor],
    wave: Tensor,
    chunking: Chunking,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Apply `function` to a long waveform segment by segment.

    One segment batch at a time is on the device; the sum grows on the CPU. A waveform no longer
    than a segment goes through in one piece. Where the device runs out of memory the batch is
    halved, with a warning.

    Args:
        function: (B, ..., n) to (B, ..., n), called with consecutive segments in order; what
            stands between B and n may change.
        wave: (..., N), for instance (N,) or (C, N), on the CPU.
        chunking: how to cut.
        device: where the function gets its segments.
        progress: called with the samples done and N after every batch.

    Returns:
        (..., N) on the CPU, float32.
    """
    length = wave.shape[-1]
    starts = chunking.starts(length)
    total: Tensor | None = None
    weights = torch.zeros(length)
    spans = [(start, min(start + chunking.segment, length)) for start in starts]
    batch = chunking.batch
    for _, equal in groupby(spans, key=lambda span: span[1] - span[0]):
        waiting = list(equal)
        while waiting:
            group = waiting[:batch]
            segments = torch.stack([wave[..., start:stop] for start, stop in group])
            try:
                results = function(segments.to(device)).cpu()
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise SepError(
                        f"the device has no room for a segment of {chunking.segment} samples; "
                        "use --device cpu"
                    ) from None
                batch = len(group) // 2 or 1
                warnings.warn(
                    f"out of memory: going on with {batch} segments at once", stacklevel=2
                )
                continue
            if total is None:
                total = torch.zeros(*results.shape[1:-1], length)
            for (start, stop), result in zip(group, results, strict=True):
                left = 0 if start == 0 else chunking.context
                right = 0 if stop == length else chunking.context
                kept = slice(start + left, stop - right)
                length_kept = kept.stop - kept.start
                weight = _fade(length_kept, chunking.shared, start > 0, stop < length)
                total[..., kept] += result[..., left : stop - start - right] * weight
                weights[kept] += weight
            waiting = waiting[len(group) :]
            if progress:
                progress(group[-1][1], length)
    return total.div_(weights)


def _fade(length: int, overlap: int, fade_in: bool, fade_out: bool) -> Tensor:
    """Weights (length,) of what is kept of a segment: ramps where a neighbour overlaps, else 1."""
    weight = torch.ones(length)
    if overlap > 0:
        ramp = (torch.arange(overlap) + 0.5) / overlap
        if fade_in:
            weight[:overlap] = ramp
        if fade_out:
            weight[-overlap:] *= ramp.flip(0)
    return weight
