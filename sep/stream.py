"""Separating block by block, and what that needs: a scan, a pairing, a similarity."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from encoders.base import Encoder
from sep.audio import Resampler, fit_length
from sep.chunk import OverlapAdd
from sep.errors import AudioFileError
from sep.feedback import SILENCE
from sep.masking import Masking


def on_grid(target: Tensor, peak: float) -> Tensor:
    """Round in place to 24 bits below the mixture's peak.

    Then target + residual is the mixture again: samples of integer recordings lie on such a grid
    too, and sums and differences on one grid are exact in float32 as long as they stay below the
    peak. Other recordings come back within a rounding of float32.
    """
    if peak == 0 or not math.isfinite(peak):
        return torch.zeros_like(target)
    scale = 2.0 ** min(23 - math.ceil(math.log2(peak)), 120)
    return target.mul_(scale).round_().div_(scale)


def peak_of(wave: Tensor) -> float:
    """Largest magnitude of a waveform of any shape, 0 for an empty one."""
    return float(torch.linalg.vector_norm(wave, math.inf)) if wave.numel() else 0.0


def paired(
    waiting: deque[Tensor], ready: list[Tensor], peak: float, last: bool
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Take blocks (C, n) from `waiting` as far as targets are ready, and their targets.

    At the end what the resampler is short of is silence, and what it has too much is dropped.
    """
    while waiting and (last or ready[0].shape[-1] >= waiting[0].shape[-1]):
        mixture = waiting.popleft()
        count = mixture.shape[-1]
        parts = [fit_length(part[:, :count], count).clone() for part in ready]
        ready[:] = [part[:, count:] for part in ready]
        yield mixture, [on_grid(part, peak) for part in parts]


class Scan:
    """What has to be known of a whole recording before it is separated block by block."""

    def __init__(self):
        self.frames, self.peak = 0, 0.0
        self.mid, self.power = 0.0, torch.zeros(0, dtype=torch.float64)

    def push(self, block: Tensor) -> None:
        """Take samples (C, n)."""
        self.frames += block.shape[-1]
        self.peak = max(self.peak, peak_of(block))
        self.mid += float(block.mean(0).double().square().sum())
        power = block.double().square().sum(-1)
        self.power = power if not len(self.power) else self.power + power

    def guide(self, wave: Tensor) -> Tensor:
        """What the network hears of (C, n): the mid signal, or where the channels cancel over the
        whole recording, the loudest one (as `sep.query.loud_mono`)."""
        if len(self.power) and self.mid < 0.01 * float(self.power.mean()):
            return wave[int(self.power.argmax())]
        return wave.mean(0)


class Meter:
    """Embeds a sound that arrives in pieces: the mean of its windows, weighted by their level."""

    def __init__(self, encoder: Encoder, rate: int, device: torch.device, batch: int = 8):
        self.encoder, self.rate, self.device, self.batch = encoder, rate, device, batch
        self.window = round(encoder.window / encoder.sample_rate * rate)
        self.waiting = torch.zeros(0)
        self.total: Tensor | None = None

    def push(self, wave: Tensor) -> None:
        """Take samples (n,) at the rate given."""
        self.waiting = torch.cat([self.waiting, wave])
        size = self.window * self.batch
        while len(self.waiting) >= size:
            self._embed(self.waiting[:size].view(self.batch, self.window))
            self.waiting = self.waiting[size:]

    def similarity(self, query: Tensor) -> float:
        """Cosine with a query (D,) of all that came, NaN for silence."""
        whole = len(self.waiting) // self.window * self.window
        self._embed(self.waiting[:whole].view(-1, self.window))
        self._embed(self.waiting[whole:][None], len(self.waiting[whole:]) / self.window)
        self.waiting = torch.zeros(0)
        if self.total is None:
            return math.nan
        return float(torch.nn.functional.normalize(self.total, dim=0) @ query.cpu())

    def _embed(self, rows: Tensor, weight: float = 1.0) -> None:
        rows = rows[rows.abs().amax(-1) > SILENCE] if rows.numel() else rows[:0]
        if not len(rows):
            return
        vectors = self.encoder.embed_audio(rows.to(self.device), self.rate).float().cpu()
        level = rows.square().mean(-1, keepdim=True).sqrt() * weight
        total = (vectors * level).sum(0)
        self.total = total if self.total is None else self.total + total


class Ear(Protocol):
    """Hears a sound that arrives in pieces."""

    def push(self, wave: Tensor) -> None:
        """Take samples (n,) at the model's rate."""


class Both:
    """Two ears as one."""

    def __init__(self, *ears: Ear):
        self.ears = ears

    def push(self, wave: Tensor) -> None:
        """Let both hear it."""
        for ear in self.ears:
            ear.push(wave)


def hear(
    blocks: Iterable[Tensor],
    rate: int,
    masking: Masking,
    adder: OverlapAdd,
    scan: Scan,
    ears: Sequence[Ear] = (),
    all_channels: bool = False,
) -> Iterator[tuple[Tensor, bool, Tensor]]:
    """Let ears hear what the network hears of a recording, and its targets, at the model's rate.

    Args:
        blocks: of the recording, (C, n).
        rate: of the recording in Hz.
        masking: of segments at the model's rate; K readings for each of Q queries.
        adder: new, cuts and joins for it.
        scan: what is known of the whole recording.
        ears: none, or 1 + K * Q: of the mixture and of each target.
        all_channels: mask the channels, too, beside what the network hears of them.

    Yields:
        a block, whether it is the last, and the K * Q targets (R, K * Q, m) that were ready after
        it: of what the network hears and, if asked for and C > 1, of each channel.

    Raises:
        AudioFileError: the number of channels changes.
    """
    down: Resampler | None = None
    missing = object()
    iterator = iter(blocks)
    block = next(iterator, missing)
    while block is not missing:
        following = next(iterator, missing)
        last = following is missing
        if down is None:
            channels = len(block)
            down = Resampler(channels, rate, masking.model.sample_rate)
        if len(block) != channels:
            raise AudioFileError(f"audio: {len(block)} channels after {channels}; keep to one")
        wave = down.push(block, last)
        guide = scan.guide(wave)
        rows = torch.cat([guide[None], wave]) if all_channels and channels > 1 else guide[None]
        results = adder.push(rows)  # (R, K, Q, m)
        if last:
            rest = adder.finish()
            results = torch.cat([results, rest], -1) if results.shape[-1] else rest
        if results.dim() < 4:  # nothing has come out yet
            results = torch.zeros(len(rows), 1, masking.count, 0)
        results = results.flatten(1, 2)
        for ear, sound in zip(ears, [guide, *results[0]], strict=bool(ears)):
            ear.push(sound)
        yield block, last, results
        block = following


def separated(
    blocks: Iterable[Tensor],
    rate: int,
    masking: Masking,
    adder: OverlapAdd,
    scan: Scan,
    ears: Sequence[Ear] = (),
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Mixture (C, m) and its K * Q targets (C, m), block by block; arguments as for `hear`."""
    own = masking.model.sample_rate
    waiting: deque[Tensor] = deque()
    ups: list[Resampler] = []
    ready: list[Tensor] = []
    for block, last, results in hear(blocks, rate, masking, adder, scan, ears, all_channels=True):
        channels = len(block)
        if not ups:
            ups = [Resampler(channels, own, rate) for _ in range(masking.count)]
            ready = [torch.zeros(channels, 0) for _ in ups]
        waiting.append(block)
        for k, up in enumerate(ups):
            part = up.push(results[-channels:, k], last)
            ready[k] = torch.cat([ready[k], part], -1)
        yield from paired(waiting, ready, scan.peak, last)
