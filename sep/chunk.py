"""Waveforms of any length through a function of short ones: padded, cross-faded overlap-add."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sep.device import out_of_memory, with_room
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
        batch: segments in one call of the function; None for as many as the device has room for.

    Raises:
        SepError: an overlap outside [0, 1), or a segment too short to move on.
    """

    segment: int
    context: int
    overlap: float = 0.1
    align: int = 1
    batch: int | None = 1

    def __post_init__(self):
        if not 0 <= self.overlap < 1:
            raise SepError(
                f"overlap {self.overlap:g} is not in [0, 1): at 1 or more the next segment would "
                "start where the last one did and never reach the end; use for example 0.1"
            )
        if min(self.align, 1 if self.batch is None else self.batch) < 1 or self.context < 0:
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

    def halved(self) -> "Chunking":
        """Segments of half the length, and of half the context where else that were most of them.

        Raises:
            SepError: there are none.
        """
        segment = self.segment // 2
        context = self.context if 4 * self.context <= segment else self.context // 2
        return replace(self, segment=segment, context=context)


def live(lag: int, hop: int, align: int) -> Chunking:
    """Cuts whose results leave less than `lag` samples after what they are of has come.

    About half of the lag is the stride, the rest context and a short cross-fade. Stride and context
    are multiples of `align`, or of a half, a quarter and so on of it where the lag is too short.

    Raises:
        SepError: a lag of less than 16 hops.
    """
    if lag < 16 * hop:
        raise SepError(f"a lag of {lag} samples is too short; give at least {16 * hop}")
    while 2 * align + min(8 * hop, align) > lag:
        align //= 2
    shared = min(8 * hop, align)
    room = lag - shared
    stride = room // 2 // align * align
    context = (room - stride) // align * align
    return Chunking(stride + shared - 1 + 2 * context, context, 0.0, align)


class OverlapAdd:
    """Applies a function to a waveform that arrives in blocks; memory does not grow with it.

    A segment is cut when what follows it has begun to arrive, so that the last one is known as
    such. A waveform no longer than a segment goes through in one piece. Where memory runs out the
    batch is halved, and after that the segment, until there is room; one warning says so.

    Args:
        function: (B, ..., n) to (B, ..., n), called with consecutive segments in order; what
            stands between B and n may change.
        chunking: how to cut.
        device: where the function gets its segments.
        whole: applied in place of `function` to a waveform that goes through in one piece.
        smaller: called with the chunking that there was room for when memory ran out.

    Attributes:
        chunking: how it is cut now.
        seams: for each segment the sample where it starts, and the one from which it counts more
            than the segment before.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        chunking: Chunking,
        device: torch.device | str = "cpu",
        whole: Callable[[Tensor], Tensor] | None = None,
        smaller: Callable[[Chunking], None] | None = None,
    ):
        self.function, self.chunking, self.device = function, chunking, torch.device(device)
        self.whole, self.smaller = whole or function, smaller
        self.start = 0  # of the next segment, in samples from the beginning; waiting begins there
        self.given = 0  # samples that have left, where total and weights begin
        self.seams: list[tuple[int, int]] = []
        self.short = False  # of memory, since the last call of the function that went well
        self.waiting: Tensor | None = None
        self.total: Tensor | None = None
        self.weights = torch.zeros(0)

    def push(self, wave: Tensor) -> Tensor:
        """Take samples (..., n) on the CPU; returns those that are finished, (..., m), m may be 0.

        They leave in batches: nothing is computed before `chunking.batch` segments are there, the
        first of them where that is still to be found out.
        """
        self.waiting = wave if self.waiting is None else torch.cat([self.waiting, wave], -1)
        parts = []
        while self._ready() >= (self.chunking.batch or 1):
            parts.append(self._advance())
        return self._joined(parts)

    def finish(self) -> Tensor:
        """The rest of the samples, (..., m); none if there never were any."""
        parts = []
        while self.waiting is not None and self.waiting.shape[-1]:
            parts.append(self._advance() if self._ready() > 0 else self._end())
        return self._joined(parts)

    def _ready(self) -> int:
        """Whole segments in waiting that others follow."""
        length, chunking = self.waiting.shape[-1] if self.waiting is not None else 0, self.chunking
        return max(0, -(-(length - chunking.segment) // chunking.stride))

    def _advance(self) -> Tensor:
        """Compute one batch of whole segments, and give what no later one adds to."""
        size, stride = self.chunking.segment, self.chunking.stride
        count = min(self._ready(), self.chunking.batch or 1)
        segments = [self.waiting[..., k * stride : k * stride + size] for k in range(count)]
        results = self._apply(self.function, torch.stack(segments))
        if results is None:
            return self._nothing()
        self._add(results, last=False)
        self.waiting = self.waiting[..., count * stride :]
        return self._leave(self.start + self.chunking.context)

    def _end(self) -> Tensor:
        """Compute what is left, the last segment, and give all."""
        function = self.function if self.start else self.whole
        results = self._apply(function, self.waiting[None])
        if results is None:
            return self._nothing()
        self._add(results, last=True)
        self.waiting = self.waiting[..., :0]
        return self._leave(self.given + self.weights.shape[-1])

    def _apply(self, function: Callable[[Tensor], Tensor], segments: Tensor) -> Tensor | None:
        """Results of segments; None where there was no room, and from now on they are smaller."""

        def work() -> Tensor:
            return function(segments.to(self.device)).cpu()

        results = None
        try:
            if self.chunking.batch or segments.shape[-1] < self.chunking.segment:
                results = work()
            else:
                results, batch = with_room(work, self.device)
                self.chunking = replace(self.chunking, batch=batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if results is None:  # and what the error held is free again
            self._shrink(segments)
        elif self.short:
            self._say()
        return results

    def _shrink(self, segments: Tensor) -> None:
        self.short = True
        if len(segments) > 1:
            self.chunking = replace(self.chunking, batch=len(segments) // 2)
        else:
            self._halve(segments.shape[-1])

    def _say(self) -> None:
        """Tell what there was room for."""
        chunking, self.short = self.chunking, False
        kept = f"segments of {chunking.segment} samples"
        if (chunking.batch or 1) > 1:
            kept += f", {chunking.batch} at once"
        warnings.warn(f"out of memory: going on with {kept}", stacklevel=6)
        if self.smaller:
            self.smaller(chunking)

    def _halve(self, length: int) -> None:
        """Go on with segments of half the length, shorter than `length` in any case."""
        smaller = self.chunking
        while smaller.segment >= length or smaller is self.chunking:
            try:
                smaller = smaller.halved()
            except SepError:
                raise SepError(
                    f"memory has no room for a segment of {length} samples; make some, "
                    "or use --device cpu"
                ) from None
        if self.start:  # what has left already is context enough
            skip = (self.chunking.context - smaller.context) // smaller.align * smaller.align
            self.start, self.waiting = self.start + skip, self.waiting[..., skip:]
        self.chunking = smaller

    def _add(self, results: Tensor, last: bool) -> None:
        """Cross-fade results (B, ..., n) of consecutive segments into what has not left yet."""
        chunking = self.chunking
        for result in results:
            length = result.shape[-1]
            left = max(chunking.context, self.given - self.start) if self.start else 0
            right = 0 if last else length - chunking.context
            kept = result[..., left : right or length].float()
            at = self.start + left - self.given
            if (more := at + kept.shape[-1] - len(self.weights)) > 0:
                if self.total is None:
                    self.total = torch.zeros(*kept.shape[:-1], 0)
                self.total = torch.nn.functional.pad(self.total, (0, more))
                self.weights = torch.nn.functional.pad(self.weights, (0, more))
            weight = _fade(kept.shape[-1], chunking.shared, self.start > 0, not last)
            self.total[..., at : at + kept.shape[-1]] += kept * weight
            self.weights[at : at + kept.shape[-1]] += weight
            middle = left + chunking.shared // 2 if self.start else 0
            self.seams.append((self.start, self.start + middle))
            self.start += chunking.stride

    def _leave(self, stop: int) -> Tensor:
        """The finished samples up to `stop`."""
        count = stop - self.given
        out = self.total[..., :count] / self.weights[:count]
        self.total, self.weights = self.total[..., count:].clone(), self.weights[count:].clone()
        self.given = stop
        return out

    def _joined(self, parts: list[Tensor]) -> Tensor:
        parts = [part for part in parts if part.shape[-1]] or parts[:1]
        if parts:
            return torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        return self._nothing()

    def _nothing(self) -> Tensor:
        return torch.zeros(0) if self.total is None else self.total[..., :0]


def overlap_add(
    adder: OverlapAdd, wave: Tensor, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Send a whole waveform through a new `OverlapAdd`.

    Args:
        adder: what to apply, and how to cut.
        wave: (..., N), for instance (N,) or (C, N), on the CPU.
        progress: called with the samples done and N after every batch.

    Returns:
        (..., N) on the CPU, float32.
    """
    length, chunking = wave.shape[-1], adder.chunking
    step = chunking.stride * (chunking.batch or 1)
    result: Tensor | None = None
    cuts = [*range(chunking.segment + step, length, step), length]
    for begin, stop in zip([0, *cuts[:-1]], cuts, strict=True):
        part = adder.push(wave[..., begin:stop])
        if stop == length:
            rest = adder.finish()
            part = torch.cat([part, rest], -1) if part.shape[-1] else rest
        if part.shape[-1]:
            if result is None:
                result = torch.empty(*part.shape[:-1], length)
            result[..., adder.given - part.shape[-1] : adder.given] = part
        if progress and part.shape[-1]:
            progress(adder.given, length)
    return result


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
