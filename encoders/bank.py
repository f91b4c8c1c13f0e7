"""All clips of a split in memory, cut into batches of segments without a loop over items."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from encoders.base import EncoderError
from encoders.preprocess import resample

_BLOCK = 320  # samples over which energy is summed


class ClipBank:
    """Clips as one flat int16 tensor, with their class.

    Args:
        waves: one tensor (N,) a clip, all at one rate: floats in [-1, 1], or int16.
        labels: class name of each clip.
        classes: all class names in the order of the indices; None takes the sorted `labels`.
        device: where segments are cut.

    Raises:
        EncoderError: no clip, an empty clip, or a label that `classes` lacks.
    """

    def __init__(
        self,
        waves: Sequence[Tensor],
        labels: Sequence[str],
        classes: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
    ):
        if not waves or min(wave.numel() for wave in waves) == 0:
            raise EncoderError("a clip bank needs at least one clip and no empty clips")
        self.classes = list(classes) if classes is not None else sorted(set(labels))
        unknown = set(labels) - set(self.classes)
        if unknown:
            raise EncoderError(f"labels without a class: {', '.join(sorted(unknown))}")
        self.samples = torch.cat([_as_int16(wave) for wave in waves]).to(device)
        self.length = torch.tensor([len(wave) for wave in waves], device=device)
        self.start = self.length.cumsum(0) - self.length
        blocks = self.samples[: len(self.samples) // _BLOCK * _BLOCK].unflatten(0, (-1, _BLOCK))
        energy = blocks.double().square().sum(-1).cumsum(0)
        self.energy = torch.nn.functional.pad(energy, (1, 0))  # before each block
        index = {name: i for i, name in enumerate(self.classes)}
        self.label = torch.tensor([index[label] for label in labels], device=device)
        self.members = [torch.nonzero(self.label == i)[:, 0] for i in range(len(self.classes))]
        self.filled = torch.tensor([i for i, m in enumerate(self.members) if len(m)])
        self.weight = torch.tensor([float(len(m)) for m in self.members if len(m)]).sqrt()

    @classmethod
    def read(
        cls,
        paths: Sequence[str | Path],
        labels: Sequence[str],
        sample_rate: int,
        classes: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Decode recordings to mono at `sample_rate` Hz; raises EncoderError naming a bad file."""
        waves = [_as_int16(read_mono(path, sample_rate)) for path in paths]
        return cls(waves, labels, classes, device)

    def __len__(self) -> int:
        return len(self.length)

    def draw_classes(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` class indices, without repeats while classes last.

        A class is drawn in proportion to the square root of its clips, between every clip alike
        and every class alike.
        """
        rounds = -(-count // len(self.filled))
        orders = [
            torch.multinomial(self.weight, len(self.filled), generator=generator)
            for _ in range(rounds)
        ]
        return self.filled[torch.cat(orders)[:count]]

    def draw_others(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """For each of B classes that have clips, draw another that has: (B,), uniformly."""
        hop = torch.randint(1, len(self.filled), (len(classes),), generator=generator)
        return self.filled[(torch.searchsorted(self.filled, classes) + hop) % len(self.filled)]

    def draw_clips(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one clip index (B,) for each of B class indices."""
        pick = torch.rand(len(classes), generator=generator).tolist()
        rows = [self.members[c] for c in classes.tolist()]
        return torch.stack([m[int(p * len(m))] for m, p in zip(rows, pick, strict=True)])

    def segments(
        self, index: Tensor, length: int, generator: torch.Generator, speed: float = 0.0
    ) -> Tensor:
        """Cut a random segment (B, `length`) of each clip in `index` (B,).

        Of two random places in a long clip the louder is taken. A clip shorter than the segment
        is repeated with random gaps, or stands alone at a random place (one time in three).
        With `speed`, each is played faster or slower by a factor of up to exp(`speed`).
        """
        device = self.samples.device
        log_rate = (2 * torch.rand(len(index), generator=generator) - 1) * speed
        place, other, gap, alone = torch.rand(4, len(index), generator=generator).to(device)
        rate = log_rate.exp().to(device)
        clip = self.length[index].float()
        span = length * rate  # samples of the clip that a segment takes
        begin, second = (torch.floor(p * (clip - span).clamp(min=0)) for p in (place, other))
        louder = self._energy(index, second, span) > self._energy(index, begin, span)
        begin = torch.where(louder, second, begin)
        # Short clips: period = clip + gap, or longer than the segment when alone.
        lone = alone < 1 / 3
        period = torch.where(lone, clip + span, clip + gap * span / 4)
        short = torch.where(lone, -place * (span - clip + 1), place * period).floor()
        long = clip >= span
        period = torch.where(long, clip + span, period).floor()
        start = torch.where(long, begin, short)
        time = torch.arange(length, device=device) * rate[:, None] + start[:, None]  # (B, N)
        time = time.remainder_(period[:, None])
        inside = time <= clip[:, None] - 1
        first = (time.long() + self.start[index][:, None]).clamp_(max=len(self.samples) - 1)
        wave = self.samples[first].float()
        if speed:
            following = self.samples[(first + 1).clamp_(max=len(self.samples) - 1)].float()
            wave = torch.lerp(wave, following, time.frac_())
        return wave.mul_(inside).div_(32767)

    def _energy(self, index: Tensor, begin: Tensor, span: Tensor) -> Tensor:
        """Energy (B,) of the clips from sample `begin` over `span` samples, to a block's width."""
        first = (self.start[index] + begin) / _BLOCK
        last = first + torch.minimum(span, self.length[index] - begin) / _BLOCK
        return self.energy[last.long()] - self.energy[first.long()]

    def head(self, index: Tensor, length: int) -> Tensor:
        """The first `length` samples (B, `length`) of clips, repeated where a clip is shorter."""
        time = torch.arange(length, device=self.samples.device).remainder(
            self.length[index][:, None]
        )
        return self.samples[self.start[index][:, None] + time].float() / 32767


def read_mono(path: str | Path, sample_rate: int) -> Tensor:
    """Read a recording as one channel (N,) at `sample_rate` Hz; raises EncoderError."""
    import soundfile

    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise EncoderError(f"{path} cannot be read as audio ({error}); replace it") from None
    if not len(wave):
        raise EncoderError(f"{path} holds no samples; replace it")
    return resample(torch.from_numpy(wave).mean(1), rate, sample_rate)


def _as_int16(wave: Tensor) -> Tensor:
    if wave.dtype == torch.int16:
        return wave
    return (wave.clamp(-1, 1) * 32767).round().to(torch.int16)
