"""What teaches the small encoder to see: adapters of its picture backbone, and its picture head.

A recipe's pictures are few, and features of ImageNet, which is photographs, know drawings badly.
So each is looked at in many ways (`augment`), and only a matrix of low rank is added to each layer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, normalize, one_hot, pad

from encoders import lite0, lowrank
from encoders.base import EncoderError
from encoders.precision import layout
from encoders.preprocess import normalised
from encoders.small import SmallEncoder, see

AT_ONCE = 128  # pictures that are in memory together as floats
WHITE = 0.98  # from here on a colour is the background of a drawing
THUMBNAIL, COPY = 16, 0.93  # pixels a side, and the correlation from which on two are near copies


@dataclass
class PictureConfig:
    """How a picture tower is tuned.

    Args:
        steps: updates.
        batch: pictures an update.
        side: pixels a side in training, less than the 224 of use, which saves half of the time.
        rank: of the adapters.
        lr: peak learning rate of the adapters, in one cycle.
        head_lr: that of the head.
        weight_decay: of both.
        temperature: of the cross-entropy between a picture and the names of all classes.
        mixup: both parameters of the Beta distribution by which pairs of pictures, and what they
            show, are blended (arXiv 1710.09412); 0 leaves that out.
        settle_steps: updates of the head alone that follow, on features of every picture.
        settle_batch: features an update.
        looks: of each picture beside itself, in those features.
        pull: weight of one less the cosine to the name, beside the cross-entropy, in these updates.
        seed: of the order and the augmentation.
    """

    steps: int = 600
    batch: int = 48
    side: int = 160
    rank: int = 16
    lr: float = 2e-3
    head_lr: float = 1e-3
    weight_decay: float = 0.01
    temperature: float = 0.05
    mixup: float = 0.4
    settle_steps: int = 600
    settle_batch: int = 128
    looks: int = 3
    pull: float = 5.0
    seed: int = 0


def share_out(pictures: Tensor, labels: Tensor, count: int, seed: int = 0) -> Tensor:
    """Share pictures out to `count` folds (N,) of which each has some of every class.

    Near copies, by the correlation of their thumbnails, come into the same fold, whatever their
    class; a class of fewer pictures than folds is missing in some.

    Args:
        pictures: (N, 3, S, S) uint8.
        labels: class index (N,) of each.
        count: K, at least 2.
        seed: of the order within a class.

    Raises:
        EncoderError: fewer than two folds.
    """
    if count < 2:
        raise EncoderError(f"{count} folds: it takes at least 2")
    small = torch.cat([_thumbnail(some) for some in pictures.split(AT_ONCE)])
    small = normalize(small - small.mean(1, keepdim=True), dim=1)
    first = list(range(len(pictures)))  # of the near copies of each

    def root(k: int) -> int:
        while first[k] != k:
            k = first[k]
        return k

    for a, b in (small @ small.T > COPY).nonzero().tolist():
        if a < b:
            first[root(b)] = root(a)
    draw, fold = np.random.default_rng(seed), {}
    for label in labels.unique().tolist():  # each class goes on where the one before ended
        mine = (labels == label).nonzero().flatten().tolist()
        own = sorted({root(k) for k in mine} - fold.keys())
        draw.shuffle(own)
        fold |= {k: (len(fold) + turn) % count for turn, k in enumerate(own)}
    return torch.tensor([fold[root(k)] for k in range(len(pictures))])


def _thumbnail(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, S, S), uint8, as rows of a few numbers each."""
    return interpolate(pictures.float(), (THUMBNAIL, THUMBNAIL), mode="area").flatten(1)


def augment(picture: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Another look at a picture (3, S, S) in [0, 1], as (3, `side`, `side`).

    By chance mirrored, on a coloured ground in place of white, brighter, darker or of another
    contrast, grey, with its colours exchanged, and cut or shrunk on white.
    """

    def chance(share: float) -> bool:
        return uniform() < share

    def uniform(low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    size = picture.shape[-1]
    if chance(0.5):
        picture = picture.flip(-1)
    if chance(0.3):
        ground = torch.rand(3, 1, 1, generator=generator)
        picture = torch.where(picture.amin(0) >= WHITE, ground, picture)
    if chance(0.5):
        brighter = 0.15 * torch.randn((), generator=generator).item()
        picture = ((picture - 0.5) * uniform(0.6, 1.4) + 0.5 + brighter).clamp(0, 1)
    if chance(0.15):
        picture = picture.mean(0, keepdim=True).expand(3, -1, -1)
    if chance(0.2):
        picture = picture[torch.randperm(3, generator=generator)]
    if chance(0.7):
        kept = int(size * uniform(0.55, 1.0))
        top, left = (int(uniform(0, size - kept + 1)) for _ in range(2))
        picture = picture[:, top : top + kept, left : left + kept]
    elif chance(0.5):
        spare = int(size * uniform(0, 0.6))
        top, left = (int(uniform(0, spare + 1)) for _ in range(2))
        picture = pad(picture, (left, spare - left, top, spare - top), value=1.0)
    return interpolate(picture[None], (side, side), mode="bilinear", antialias=True)[0]


class PictureTuner:
    """Gives an encoder adapters and a new picture head; trains both by `step`, then `finish`.

    Every picture is drawn to the name of its class among those of all: cross-entropy over cosines.
    That leaves it far from the name, which a separator was trained with, so that at the end the
    head alone learns to come near it. Sounds and texts stay where they are.

    Args:
        encoder: changed in place.
        pictures: (N, 3, S, S) uint8.
        labels: class index (N,) of each.
        names: for each class, the text that names it.
        config: settings.

    Raises:
        EncoderError: pictures of fewer than two classes, or a setting below one.
    """

    def __init__(
        self,
        encoder: SmallEncoder,
        pictures: Tensor,
        labels: Tensor,
        names: Sequence[str],
        config: PictureConfig,
    ):
        for name in ("steps", "batch", "side", "rank", "settle_steps", "settle_batch"):
            if getattr(config, name) < 1:
                raise EncoderError(f"pictures.{name} must be at least 1")
        if len(labels.unique()) < 2:
            raise EncoderError("a picture tower learns from pictures of two classes or more")
        self.encoder, self.config = encoder, config
        self.pictures, self.labels = pictures, labels
        self.generator = torch.Generator().manual_seed(config.seed)
        self.draw = np.random.default_rng(config.seed)
        torch.manual_seed(config.seed)
        encoder.eval().requires_grad_(False)
        self.texts = encoder.embed_text(names)
        encoder.adapt_images(config.rank)
        net = lite0.build(classify=True).eval().requires_grad_(False).to(encoder.device)
        self.net = net.to(memory_format=layout(encoder.device))
        lowrank.attach(self.net, encoder.image_adapter)
        encoder.image_head.train()
        parts = (encoder.image_adapter, encoder.image_head)
        for part in parts:
            part.requires_grad_(True)
        groups = [list(part.parameters()) for part in parts]
        self.moving = [parameter for group in groups for parameter in group]
        rates = [config.lr, config.head_lr]
        self.optimizer = torch.optim.AdamW(
            [{"params": group} for group in groups], weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rates, total_steps=config.steps, pct_start=0.15
        )

    def step(self) -> float:
        """One update; returns the loss in nats."""
        config, device = self.config, self.encoder.device
        index = torch.randint(len(self.labels), (config.batch,), generator=self.generator)
        looks = [augment(self.pictures[k] / 255, config.side, self.generator) for k in index]
        shown, what = torch.stack(looks), one_hot(self.labels[index], len(self.texts)).float()
        if config.mixup:
            shown, what = self._mixed(shown, what)
        image = self.encoder.project_image(*see(self.net, normalised(shown).to(device)))
        loss = cross_entropy(image @ self.texts.T / config.temperature, what.to(device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.moving, 1.0)
        self.optimizer.step()
        self.schedule.step()
        value = loss.item()
        if not math.isfinite(value):
            raise EncoderError("the loss on pictures is no number; lower lr")
        return value

    def _mixed(self, shown: Tensor, what: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) and their classes (B, C), each blended with those of another."""
        share = torch.from_numpy(self.draw.beta(self.config.mixup, self.config.mixup, len(shown)))
        share = torch.maximum(share, 1 - share).float()
        other = torch.randperm(len(shown), generator=self.generator)
        a, b = share[:, None, None, None], share[:, None]
        return a * shown + (1 - a) * shown[other], b * what + (1 - b) * what[other]

    def finish(self) -> None:
        """Bring pictures near their names by the head, then leave the encoder as one in use."""
        encoder, config, device = self.encoder.eval(), self.config, self.encoder.device
        encoder.requires_grad_(False)
        encoder.adapters_changed()
        seen = [encoder.image_features([*self.pictures])]
        for _ in range(config.looks):
            for some in self.pictures.split(AT_ONCE):
                looks = [augment(p / 255, p.shape[-1], self.generator) for p in some]
                seen.append(encoder.image_features(looks))
        features, probabilities = (torch.cat(parts) for parts in zip(*seen, strict=True))
        labels = self.labels.repeat(1 + config.looks).to(device)
        head = encoder.image_head.train().requires_grad_(True)
        optimizer = torch.optim.AdamW(head.parameters(), weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.head_lr, total_steps=config.settle_steps
        )
        for _ in range(config.settle_steps):
            index = torch.randint(len(labels), (config.settle_batch,), generator=self.generator)
            index = index.to(device)
            image = encoder.project_image(features[index], probabilities[index])
            cosines, what = image @ self.texts.T, labels[index]
            near = 1 - cosines.gather(1, what[:, None]).mean()
            loss = cross_entropy(cosines / config.temperature, what) + config.pull * near
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        encoder.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(encoder: SmallEncoder, pictures: Tensor, labels: Tensor, texts: Tensor) -> float:
    """Share of pictures (N, 3, S, S), uint8, whose nearest text (C, D) is that of their class."""
    image = encoder.embed_image([*pictures])
    return (image @ texts.T).argmax(-1).eq(labels.to(image.device)).float().mean().item()
