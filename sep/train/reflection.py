"""Reflective training (AURORA): the second pass learns from the first one's own mistakes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from sep.errors import OptionError
from sep.metrics.overlap import soft_iou
from sep.rl.reward import ClassHit
from sep.spectrogram import Spectrogram
from sep.train.batch import Batch
from sep.train.losses import bin_weight, ideal_masks, separation_loss, si_sdr_loss
from sep.train.supervised import SupervisedTask


@dataclass
class ReflectionOptions:
    """Settings of reflective training.

    Attributes:
        pool: batches that the mixtures of a step are chosen from.
        hard: share of them that pass 1 got wrong (`mistaken`), as far as the pool has them; None
            takes the first, whatever they are.
        iou: limit of `mistaken`.
        first: weight of the supervised loss of pass 1.
        keep: mu, weight of the change where pass 1 was right.
        worse: nu, weight of what pass 2 loses against pass 1.
    """

    pool: int = 3
    hard: float | None = 0.3
    iou: float = 0.6
    first: float = 1.0
    keep: float = 0.1
    worse: float = 1.0

    def __post_init__(self):
        if self.pool < 1:
            raise OptionError("reflect.pool is a number of batches, 1 or more")


class ReflectiveTask(SupervisedTask):
    """Supervised training of both passes of a `sep.networks.reflect.ReflectiveNet`.

    AURORA (arXiv 2508.02149) trains on 1,505 of its model's own wrong answers with 3,500 ordinary
    ones. Here a step draws `pool` batches, lets pass 1 answer for every source, and keeps a batch
    of them, `hard` of which it got wrong. Pass 2 answers for the chosen source of each; its loss is
    `reflective_loss`, and SI-SDR as in supervised training. Which are chosen depends on seed, step
    and weights alone.

    Args:
        model: a network with `revised`; the rest as in `SupervisedTask`.
        classes: names the class of a sound.
        options: the numbers.
    """

    def __init__(self, model, *parts, classes: ClassHit, options: ReflectionOptions, **settings):
        if not hasattr(model, "revised"):
            raise OptionError("reflect trains a second pass; add network.kind=reflect")
        super().__init__(model, *parts, **settings)
        self.classes, self.reflection = classes, options

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of pass 1 on all sources + loss of pass 2 on the chosen ones."""
        options, grid = self.reflection, self.model.spectrogram
        batch, hard = self.chosen(step)
        maps = self.model.maps(batch.magnitude)
        logits = self.model.first(maps, batch.query)
        loss, values = separation_loss(logits, batch, grid, self.target, self.si_sdr)
        first = logits[:, 0].detach()
        second = self.model.revised(first, maps[:, -1:], batch.query[:, 0])
        target = ideal_masks(batch, self.target)[:, 0]
        revised, more = reflective_loss(
            first, second, target, bin_weight(batch.mixture), options.keep, options.worse
        )
        if self.si_sdr:
            mask = grid.unwarp(torch.sigmoid(second))[:, None]
            waveform, _ = si_sdr_loss(mask, batch.spectrum, batch.spectra[:, :1])
            revised = revised + self.si_sdr * waveform
            more["reflect/si_sdr_loss"] = waveform.detach()
        return options.first * loss + revised, values | more | {"reflect/hard": hard}

    @torch.no_grad()
    def chosen(self, step: int) -> tuple[Batch, Tensor]:
        """The batch of a step, the source that pass 2 is asked for first, and its hard share."""
        options, training = self.reflection, self.model.training
        batches = [self.drawn(step * options.pool + k) for k in range(options.pool)]
        self.model.eval()  # what is only looked at leaves batch norm alone
        hard = torch.cat([self._mistaken(batch) for batch in batches]).cpu()  # (n, S)
        self.model.train(training)
        count, examples = self.sampler.batch, hard.T.flatten()  # every mixture once, then again
        index = torch.arange(count)
        if options.hard is not None:
            index = choose(examples, count, options.hard)
        batch = _asked_first(_joined(batches), index % len(hard), index // len(hard))
        return batch, examples[index].float().mean()

    def _mistaken(self, batch: Batch) -> Tensor:
        logits = self.model.first(self.model.maps(batch.magnitude), batch.query)
        grid = self.model.spectrogram
        return mistaken(logits, batch, grid, self.classes, batch.label, self.reflection.iou)


def mistaken(
    logits: Tensor,
    batch: Batch,
    grid: Spectrogram,
    classes: ClassHit,
    label: Tensor,
    iou: float = 0.6,
) -> Tensor:
    """Which masks are bad, and their sound is taken for another class: (B, Q) bool.

    Args:
        logits: (B, Q, H, T), a mask for each of the first Q sources of `batch`.
        grid: the spectrogram that the masks belong to.
        classes: names the class of a sound.
        label: (B, Q) index of each source's class.
        iou: a mask is bad whose soft IoU with the ideal ratio mask is below this.
    """
    masks = torch.sigmoid(logits)
    ideal = ideal_masks(batch)[:, : masks.shape[1]]
    bad = soft_iou(masks, ideal, bin_weight(batch.mixture)[:, None]) < iou
    waves = grid.istft(batch.spectrum[:, None] * grid.unwarp(masks), batch.sources.shape[-1])
    return bad & (classes.nearest(waves, grid.sample_rate) != label.to(bad.device))


def choose(hard: Tensor, count: int, share: float) -> Tensor:
    """Indices of `count` examples of which `share` are hard; where one kind lacks, the other fills.

    Args:
        hard: (n,) bool, n of at least `count`.
    """
    wrong, right = hard.nonzero()[:, 0], (~hard).nonzero()[:, 0]
    wanted = min(max(round(share * count), count - len(right)), len(wrong))
    return torch.cat([wrong[:wanted], right[: count - wanted]])


def reflective_loss(
    first: Tensor, second: Tensor, target: Tensor, weight: Tensor, keep: float, worse: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of pass 2: be right, change only what was wrong, and do not make it worse.

    L = BCE_u(P2, M) + keep mean u (1 - |M - P1|) |P2 - P1| + worse relu(BCE_u(P2) - BCE_u(P1)),
    the last one mixture by mixture. No gradient reaches pass 1.

    Args:
        first, second: (B, H, T) mask logits of the passes.
        target: (B, H, T) masks M.
        weight: (B, H, T) u; its mean over the batch is divided out.
    """
    u, first = weight / weight.mean().clamp(min=1e-8), first.detach()
    before, after = (
        (u * binary_cross_entropy_with_logits(x, target, reduction="none")).mean((-2, -1))
        for x in (first, second)
    )
    p1, p2 = torch.sigmoid(first), torch.sigmoid(second)
    kept = (u * (1 - (target - p1).abs()) * (p2 - p1).abs()).mean()
    harm = torch.relu(after - before).mean()
    values = {"bce": after.mean(), "bce_gain": (before - after).mean(), "kept": kept, "worse": harm}
    loss = after.mean() + keep * kept + worse * harm
    return loss, {f"reflect/{name}": value.detach() for name, value in values.items()}


def _joined(batches: list[Batch]) -> Batch:
    return Batch(
        **{name: torch.cat([getattr(b, name) for b in batches]) for name in vars(batches[0])}
    )


def _asked_first(batch: Batch, row: Tensor, source: Tensor) -> Batch:
    """Mixtures `row` (n,) of a batch, each with its source `source` (n,) before the others."""
    order = (source[:, None] + torch.arange(batch.query.shape[1])) % batch.query.shape[1]
    whole = ("spectrum", "mixture", "noise", "rest")
    mixtures = {name: getattr(batch, name)[row] for name in whole}
    by_source = {
        name: value[row[:, None], order]
        for name, value in vars(batch).items()
        if name not in mixtures
    }
    return Batch(**mixtures, **by_source)
