"""Fixed test mixtures made anew under other conditions: level, noise, band, room, other sources.

Every condition is a function of the sources, their labels and a seed. Shapes: n mixtures, S sources
with the target first, N samples, L labels.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sep.data.mixing import active_rms
from sep.data.scene import convolve, hiss, low_pass, room

QUIETER_DB, SNR_DB, CUT_HZ = 20.0, 20.0, 4_000.0
T60_S, DIRECT_DB = 0.5, 0.0
PINK = 0.5  # between white and brown
PEAK = 0.9  # of mixtures that sources were added to

Pair = tuple[Tensor, Tensor]  # mixtures (n, N) and what is to be found in them (n, N)


class Conditions:
    """Mixtures of a test set under each condition.

    Sources that are added, or take another's place, come out of the set's other mixtures, with the
    active level of the first interferer. A mixture for which there is none is silent.

    Args:
        sources: (n, S, N), the target first.
        labels: of each mixture's sources.
        names: the L labels, and near: (L, K) for each the indices of others, the nearest first.
        seed: of rooms and noise.
        sample_rate: in Hz.
    """

    def __init__(
        self,
        sources: Tensor,
        labels: Sequence[Sequence[str]],
        names: Sequence[str],
        near: Tensor,
        seed: int = 0,
        sample_rate: int = 16_000,
    ):
        self.sources, self.labels, self.rate = sources, labels, sample_rate
        self.classes, self.seed = {name for row in labels for name in row}, seed
        rows = zip(names, near.tolist(), strict=True)
        self.near = {name: [names[k] for k in row] for name, row in rows}

    def __iter__(self) -> Iterator[tuple[str, Pair]]:
        """Each condition's name and its mixtures, made when they are asked for."""
        yield "as they are", self.plain()
        yield f"{QUIETER_DB:g} dB quieter", self.quieter()
        yield f"noise floor {SNR_DB:g} dB down", self.noisy()
        yield f"nothing above {CUT_HZ / 1000:g} kHz", self.limited()
        yield f"in a room, T60 {T60_S:g} s", self.reverberated()
        yield "1 source", self.alone()
        yield "3 sources", self.joined(1)
        yield "4 sources", self.joined(2)
        yield "beside the nearest class", self.confused()

    def plain(self) -> Pair:
        return self.sources.sum(1), self.sources[:, 0]

    def quieter(self) -> Pair:
        mixture, target = self.plain()
        gain = 10 ** (-QUIETER_DB / 20)
        return mixture * gain, target * gain

    def noisy(self) -> Pair:
        """With pink noise so far below the active level of the mixture."""
        mixture, target = self.plain()
        tilt = torch.full((len(mixture),), PINK)
        noise = hiss(tilt, mixture.shape[-1], self._generator())
        level = active_rms(mixture) * 10 ** (-SNR_DB / 20)
        return mixture + noise * level[:, None], target

    def limited(self) -> Pair:
        cut = torch.tensor(CUT_HZ)
        pairs = [
            low_pass(torch.stack(pair), cut, self.rate) for pair in zip(*self.plain(), strict=True)
        ]
        return torch.stack(pairs).unbind(1)

    def reverberated(self) -> Pair:
        """Each source by a response of its own; the target is what is heard of it in the room."""
        shape = self.sources.shape[:2]
        times, direct = torch.full(shape, T60_S), torch.full(shape, DIRECT_DB)
        responses = room(times, direct, self._generator(), self.rate)
        pairs = zip(self.sources, responses, strict=True)
        heard = torch.stack([convolve(waves, each) for waves, each in pairs])
        return heard.sum(1), heard[:, 0]

    def alone(self) -> Pair:
        return self.sources[:, 0], self.sources[:, 0]

    def joined(self, more: int) -> Pair:
        """With `more` sources of further classes."""
        mixture, target = (wave.clone() for wave in self.plain())
        for i, labels in enumerate(self.labels):
            free = self.classes - set(labels)
            for _ in range(more):
                wave, label = self._other(i, free)
                mixture[i] += wave
                free -= {label}
            if not wave.any():
                mixture[i] = target[i] = 0
        return _below_peak(mixture, target)

    def confused(self) -> Pair:
        """Target and, in place of the others, the class of the set that is nearest to it."""
        target = self.sources[:, 0].clone()
        mixture = target.clone()
        for i, (own, *_) in enumerate(self.labels):
            nearest = next((name for name in self.near[own] if name in self.classes), "")
            wave, _ = self._other(i, {nearest})
            mixture[i] += wave
            if not wave.any():
                mixture[i] = target[i] = 0
        return _below_peak(mixture, target)

    def _other(self, row: int, labels: set[str]) -> tuple[Tensor, str]:
        """The next source of one of the labels behind mixture `row`, and its label.

        It has the active level of the row's first interferer; silence where there is none.
        """
        count = len(self.labels)
        for k in range(row + 1, row + count):
            for wave, label in zip(self.sources[k % count], self.labels[k % count], strict=True):
                if label in labels and wave.any():
                    return wave * (active_rms(self.sources[row, 1]) / active_rms(wave)), label
        return torch.zeros_like(self.sources[row, 0]), ""

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def _below_peak(mixture: Tensor, target: Tensor) -> Pair:
    gain = PEAK / mixture.abs().amax(-1, keepdim=True).clamp(min=PEAK)
    return mixture * gain, target * gain
