"""A separator that looks again: it chooses a stretch of time, analyses it finer, and stops."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical

from sep.errors import OptionError
from sep.networks.trace import Trace, TraceNet

CHOICES = ("policy", "random", "whole")


@dataclass
class Episode:
    """The looks at mixtures, for Q queries of each of B, at most n of them.

    Attributes:
        looks: (B, Q, n, H, T) mask logits after each look; a stopped one repeats its last.
        interval: (B, Q, n - 1, 2) first cell and the one after the last; 0, 0 where it had stopped.
        stop: (B, Q, n - 1) probability of stopping after each look but the last.
        turns: (B, Q) looks that were taken.
        log_prob: (B, Q) of all decisions, stops and intervals.
    """

    looks: Tensor
    interval: Tensor
    stop: Tensor
    turns: Tensor
    log_prob: Tensor


class TurnNet(TraceNet):
    """Multi-turn coarse-to-fine separation, VideoSEG-O3 (arXiv 2606.06819) carried over to sound.

    The first look is that of the base network. After each look but the last a head stops, or a
    categorical over the stretches [s, e) of 16 time cells, s < e, picks where to look again. There
    a small network reads the linear frequency rows that the log-frequency warp had skipped, `fine`
    of them for each of its rows (magnitudes carry no finer time), with the mask so far and the
    query, and adds to the logits within a gate with raised-cosine edges. Its last layer starts at
    0, so that masks begin as those of the base network.

    Args:
        turns: most looks.
        cells: cells of time.
        fine: rows that are read for each row of the log-frequency grid.
        choose: `policy`; or the controls of equal cost that look at a `random` stretch or at the
            `whole`, each at every turn.
        options: those of `TraceNet`.

    Raises:
        OptionError: an unknown `choose`, or turns below 2.
    """

    kind = "turns"

    def __init__(
        self,
        turns: int = 3,
        cells: int = 16,
        fine: int = 4,
        choose: str = "policy",
        **options: Any,
    ):
        super().__init__(**options)
        if choose not in CHOICES:
            raise OptionError(f"choose '{choose}' is unknown; use {', '.join(CHOICES)}")
        if turns < 2:
            raise OptionError(f"turns {turns} leave nothing to choose; give 2 or more")
        self.config |= {"turns": turns, "cells": cells, "fine": fine, "choose": choose}
        self.turns, self.cells, self.fine, self.choose = turns, cells, fine, choose
        pairs = [(s, e) for s in range(cells) for e in range(s + 1, cells + 1)]
        self.register_buffer("pairs", torch.tensor(pairs), persistent=False)  # (136, 2)
        row, weight = _rows_between(self.spectrogram.warp_row, self.spectrogram.warp_weight, fine)
        self.register_buffer("fine_row", row, persistent=False)
        self.register_buffer("fine_weight", weight, persistent=False)
        self.chooser = nn.Sequential(
            nn.Conv1d(5, 32, 3, padding=1), nn.ReLU(), nn.Conv1d(32, 32, 3, padding=1), nn.ReLU()
        )
        self.interval_head = nn.Conv1d(32, 3, 1)  # of a cell: being in, first, last
        self.stop_head = nn.Linear(32, 1)
        self.refiner = _Refiner(fine, self.config["mask_channels"])
        self.refiner.to(memory_format=torch.channels_last)
        for head in (self.interval_head, self.stop_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def maps(self, magnitude: Tensor) -> Tensor:
        """Maps of the base network and log magnitudes between its rows: (B, K + fine, H, T)."""
        source = torch.log(magnitude + self.floor)
        lower, upper = (source.index_select(-2, self.fine_row + k) for k in (0, 1))
        between = torch.lerp(lower, upper, self.fine_weight).unflatten(-2, (-1, self.fine))
        return torch.cat([super().maps(magnitude), between.transpose(1, 2)], 1)

    def trace(self, maps: Tensor, query: Tensor) -> Trace:
        """As in `TraceNet.trace`."""
        return super().trace(self.base(maps), query)

    def confidence(self, maps: Tensor, query: Tensor, logits: Tensor) -> Tensor:
        """As in `ConfidentNet.confidence`."""
        return super().confidence(self.base(maps), query, logits)

    def combine(self, maps: Tensor, query: Tensor, trace: Trace | None = None) -> Tensor:
        """Mask logits of the last look, decisions by the largest probability."""
        several = query if query.dim() == 3 else query[:, None]
        looks = self.play(maps, several, trace=trace).looks[:, :, -1]
        return looks if query.dim() == 3 else looks[:, 0]

    def play(
        self, maps: Tensor, query: Tensor, sample: bool = False, trace: Trace | None = None
    ) -> Episode:
        """Look at `maps` (B, K + fine, H, T) for queries (B, Q, D), turn by turn.

        Args:
            sample: draw the decisions instead of taking the likeliest.
            trace: in the place of the heads' own.
        """
        base, fine = self.base(maps), maps[:, len(self.synth_net.scale) :]
        trace = trace or super().trace(base, query)
        logits = super().combine(base, query, trace)
        prompt = self.prompt(query)
        if sample:  # episodes teach what looks again, not what it looks at
            logits, prompt = logits.detach(), prompt.detach()
        shape, frames = logits.shape[:2], logits.shape[-1]
        going = torch.ones(shape, dtype=torch.bool, device=maps.device)
        visited = maps.new_zeros(*shape, self.cells)
        log_prob, looks, intervals, stops = maps.new_zeros(shape), [logits], [], []
        for _ in range(self.turns - 1):
            stop, interval = self._decide(fine, logits, trace.when, visited)
            stopping, chosen = self._choice(stop, interval, sample)
            if self.choose == "policy":
                step = stop.log_prob(stopping) + (1 - stopping) * interval.log_prob(chosen)
                log_prob = log_prob + torch.where(going, step, 0.0)
            going = going & (stopping == 0)
            pair = self.pairs[chosen] * going[..., None]
            stops.append(stop.probs)
            intervals.append(pair)
            visited = visited + _gate(pair, self.cells, self.cells, 0)
            if going.any():
                gate = _gate(pair, self.cells, frames)[:, :, None]
                logits = logits + gate * self.refiner(fine, logits, prompt, gate)
            looks.append(logits)
        took = torch.stack(intervals, 2)
        return Episode(
            looks=torch.stack(looks, 2),
            interval=took,
            stop=torch.stack(stops, 2),
            turns=1 + (took[..., 1] > 0).sum(2),
            log_prob=log_prob,
        )

    def _decide(
        self, fine: Tensor, logits: Tensor, when: Tensor, visited: Tensor
    ) -> tuple[Bernoulli, Categorical]:
        """Distributions of stopping and of intervals, from cells of what has been seen so far."""
        mask = torch.sigmoid(logits.detach())
        loud = fine.mean((1, 2))[:, None].expand_as(when)
        seen = [mask.mean(-2), (2 * mask - 1).abs().mean(-2), when.detach(), loud.detach()]
        cells = nn.functional.adaptive_avg_pool1d(torch.stack(seen, 2).flatten(0, 1), self.cells)
        cells = torch.cat([cells, visited.flatten(0, 1)[:, None]], 1)  # (B Q, 5, cells)
        hidden = self.chooser(cells)
        inside, first, last = self.interval_head(hidden).unbind(1)
        total = nn.functional.pad(inside.cumsum(-1), (1, 0))
        begin, end = self.pairs.T
        scores = total[:, end] - total[:, begin] + first[:, begin] + last[:, end - 1]
        stop = self.stop_head(hidden.mean(-1))[:, 0]
        stop, scores = (values.unflatten(0, logits.shape[:2]) for values in (stop, scores))
        return Bernoulli(logits=stop), Categorical(logits=scores)

    def _choice(
        self, stop: Bernoulli, interval: Categorical, sample: bool
    ) -> tuple[Tensor, Tensor]:
        """Whether to stop (1. or 0.) and the index of the interval."""
        if self.choose == "whole":
            whole = torch.full_like(interval.probs[..., 0], self.cells - 1)  # the pair (0, cells)
            return torch.zeros_like(stop.probs), whole.long()
        if self.choose == "random":
            drawn = torch.randint(len(self.pairs), stop.probs.shape, device=stop.probs.device)
            return torch.zeros_like(stop.probs), drawn
        if sample:
            return stop.sample(), interval.sample()
        return (stop.probs > 0.5).to(stop.probs), interval.probs.argmax(-1)


class _Refiner(nn.Module):
    """A correction of mask logits from what lies between the rows of the log-frequency grid."""

    def __init__(self, fine: int, channels: int, width: int = 8):
        super().__init__()
        self.read = nn.Conv2d(fine + 1, width, 3, padding=1)
        self.modulate = nn.Linear(channels, 2 * width)
        self.mix = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.write = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(self, fine: Tensor, logits: Tensor, prompt: Tensor, gate: Tensor) -> Tensor:
        """Corrections (B, Q, H, T).

        Args:
            fine: (B, fine, H, T); logits: (B, Q, H, T); prompt: (B, Q, K).
            gate: (B, Q, 1, T); what lies outside is not seen.
        """
        gate = gate > 0
        fine = fine[:, None].expand(-1, logits.shape[1], -1, -1, -1)
        seen = torch.cat([fine, logits[:, :, None]], 2) * gate[:, :, None]
        scale, shift = self.modulate(prompt).flatten(0, 1)[..., None, None].chunk(2, 1)
        hidden = torch.relu(self.read(seen.flatten(0, 1)) * (1 + scale) + shift)
        hidden = torch.relu(self.mix(hidden * gate.flatten(0, 1)[:, None]))
        return self.write(hidden).unflatten(0, logits.shape[:2])[:, :, 0]


def _rows_between(row: Tensor, weight: Tensor, fine: int) -> tuple[Tensor, Tensor]:
    """Linear rows (lower neighbour and weight) at `fine` places between rows of the warp.

    Row h stands for the stretch from half-way to its lower to half-way to its upper neighbour; the
    places divide it evenly.
    """
    centre = row.double() + weight[:, 0].double()
    edge = torch.cat([centre[:1], (centre[1:] + centre[:-1]) / 2, centre[-1:]])
    part = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine
    place = torch.lerp(edge[:-1, None], edge[1:, None], part).flatten()
    lower = place.floor().clamp(max=float(row.max()))
    return lower.long(), (place - lower).float()[:, None]


def _gate(pair: Tensor, cells: int, frames: int, ramp: float = 0.5) -> Tensor:
    """Gates (..., frames) in [0, 1] of intervals (..., 2) in cells; 0 everywhere for (0, 0).

    Edges within the clip rise and fall as raised cosines over `ramp` cells inside the interval;
    ends of the clip have none.
    """
    time = (torch.arange(frames, device=pair.device) + 0.5) * cells / frames
    begin, end = pair[..., :1].to(time), pair[..., 1:].to(time)
    inside = ((time >= begin) & (time < end)).to(time)
    if not ramp:
        return inside
    rise = torch.where(begin == 0, 1.0, ((time - begin) / ramp).clamp(0, 1))
    fall = torch.where(end == cells, 1.0, ((end - time) / ramp).clamp(0, 1))
    return inside * (0.5 - 0.5 * torch.cos(torch.pi * torch.minimum(rise, fall)))
