"""Progressive alignment of the small encoder, on clips in memory: three stages of one kind of step.

Stage "text" aims sounds at texts, stage "audio" sounds at sounds of their class, stage "image"
sounds at pictures, each beside part of the losses before it (MARS-Sep, arXiv 2510.10509). Mixtures
of two, with labels graded by their SNR, are in every batch: a judge of separation has to hear
leakage. MARS-Sep trains projection heads only; this audio tower starts from pictures and is trained
whole.

Shapes: B batch, C class, D embedding, N samples, H mel bin, T frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.align import consistency, info_nce, soft_labels, soft_nce, triplet
from encoders.augment import add_noise, mix, stripes
from encoders.bank import ClipBank
from encoders.base import EncoderError
from encoders.small import SmallEncoder


@dataclass
class Stage:
    """One stage: how long, how fast, and the weight of each loss.

    Attributes:
        name: of the stage.
        steps: optimiser steps; 0 leaves the stage out.
        lr: peak learning rate of the audio tower and the image head (one cycle).
        text_lr: peak learning rate of the text head; 0 keeps it as it is.
        text: audio-text InfoNCE over all classes, graded for mixtures.
        audio: audio-audio InfoNCE over pairs of a class.
        triplet: audio-audio triplet loss over the same pairs.
        consistency: 1 - cos between two cuts of one recording.
        image: InfoNCE of pictures to texts and of sounds to pictures.
        image_triplet: triplet loss of sounds and pictures.
        anchor: InfoNCE of sounds to the fused anchor of a sound, a text and a picture.
        margin: of the triplet losses.
    """

    name: str
    steps: int = 100
    lr: float = 2e-3
    text_lr: float = 0.0
    text: float = 1.0
    audio: float = 0.0
    triplet: float = 0.0
    consistency: float = 0.0
    image: float = 0.0
    image_triplet: float = 0.0
    anchor: float = 0.0
    margin: float = 0.2


@dataclass
class AlignConfig:
    """Settings that all stages share.

    Attributes:
        batch: segments a step; a quarter are pairs of a class with another quarter, the rest
            mixtures of two, of which half give way to second cuts where a stage compares those.
        crop_s: length of the segments; shorter than the encoder's window saves time.
        weight_decay: of AdamW.
        snr_db: mixtures have an SNR between minus and plus this.
        slope: log odds of the soft labels per dB.
        masked: share of the mixtures that pass a separator-like mask.
        speed: segments are played faster or slower by a factor of up to exp(speed).
        stripes: largest share of an axis that one SpecAugment band covers.
        seed: of everything drawn.
    """

    batch: int = 32
    crop_s: float = 3.072
    weight_decay: float = 1e-2
    snr_db: float = 25.0
    slope: float = 0.15
    masked: float = 0.5
    speed: float = 0.2
    stripes: float = 0.1
    seed: int = 0


@dataclass
class Batch:
    """Segments of a step.

    Attributes:
        patch: (B, H, T) log-mel patches.
        labels: (B, C) soft labels.
        first: (B,) class of the louder or only source.
        pairs: P; rows 0..P-1 and P..2P-1 are lone sounds of the same classes.
        views: V; rows 2P..2P+V-1 are other cuts of the recordings of rows 0..V-1.
    """

    patch: Tensor
    labels: Tensor
    first: Tensor
    pairs: int
    views: int


class Aligner:
    """Draws batches and updates the encoder: `begin` a stage, then `step` as often as it says.

    Args:
        encoder: trained in place; its text space should be centred (`fit_text`) before.
        bank: training clips at the encoder's rate.
        wordings: for each class of the bank, the texts that may name it.
        images: frozen image features (M, 1280), ImageNet probabilities (M, 1000) and class
            indices (M,), or None.
        config: settings.

    Raises:
        EncoderError: fewer than two classes with clips, or a class without a wording.
    """

    def __init__(
        self,
        encoder: SmallEncoder,
        bank: ClipBank,
        wordings: Sequence[Sequence[str]],
        images: tuple[Tensor, Tensor, Tensor] | None,
        config: AlignConfig,
    ):
        if len(bank.filled) < 2:
            raise EncoderError("alignment needs clips of at least two classes")
        if len(wordings) != len(bank.classes) or not all(wordings):
            raise EncoderError("alignment needs at least one wording for every class")
        self.encoder, self.bank, self.config = encoder, bank, config
        self.images = images if images is not None and len(images[2]) else None
        flat = [text for texts in wordings for text in texts]
        self.text_features = encoder.text_features(flat)
        counts = torch.tensor([len(texts) for texts in wordings])
        self.text_count, self.text_start = counts, counts.cumsum(0) - counts
        self.generator = torch.Generator().manual_seed(config.seed)
        torch.manual_seed(config.seed)
        self.stage = Stage("none", steps=0)

    def begin(self, stage: Stage) -> None:
        """Start a stage: its losses, and a new optimiser and cycle for what it moves."""
        encoder, config = self.encoder, self.config
        self.stage = stage
        encoder.requires_grad_(True)
        encoder.text_head.requires_grad_(stage.text_lr > 0)
        encoder.image_head.requires_grad_(stage.image > 0)
        encoder.anchor.requires_grad_(stage.anchor > 0)
        fast = [*encoder.audio.parameters(), *encoder.image_head.parameters()]
        groups = [
            {"params": fast, "weight_decay": config.weight_decay},
            {"params": [*encoder.text_head.parameters()], "weight_decay": 0.0},
            {"params": [encoder.logit_scale, *encoder.anchor.parameters()], "weight_decay": 0.0},
        ]
        peaks = [stage.lr, max(stage.text_lr, 1e-12), stage.lr]
        self.optimizer = torch.optim.AdamW(groups, lr=stage.lr)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, peaks, total_steps=stage.steps, pct_start=0.2
        )

    def batch(self) -> Batch:
        """Draw the segments of a step."""
        config, bank, generator = self.config, self.bank, self.generator
        pairs = config.batch // 4
        views = pairs if self.stage.consistency else 0
        mixtures = config.batch - 2 * pairs - views
        lone = bank.draw_classes(pairs, generator)
        mixed = bank.draw_classes(mixtures, generator)
        first = torch.cat([lone, lone, lone[:views], mixed])
        second = bank.draw_others(first, generator)
        clips = [bank.draw_clips(c, generator) for c in (first, second)]
        clips[0][2 * pairs : 2 * pairs + views] = clips[0][:views]
        snr_db = (2 * torch.rand(len(first), generator=generator) - 1) * config.snr_db
        snr_db[: 2 * pairs + views] = math.inf
        front, length = self.encoder.audio.log_mel, round(config.crop_s * self.encoder.sample_rate)
        device = self.encoder.device
        spectra = [
            front.spectrum(
                bank.segments(index.to(bank.samples.device), length, generator, config.speed).to(
                    device
                )
            )
            for index in clips
        ]
        mixture, snr_db = mix(*spectra, snr_db.to(device), generator, config.masked)
        patch = front.patch(add_noise(mixture, generator))
        patch = patch * stripes(patch.shape, generator, config.stripes).to(device)
        first, second = first.to(device), second.to(device)
        labels = soft_labels(first, second, snr_db, len(bank.classes), config.slope)
        return Batch(patch, labels, first, pairs, views)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of the present stage, by name."""
        encoder, stage, pairs = self.encoder, self.stage, batch.pairs
        audio = normalize(encoder.audio.embed_patch(batch.patch), dim=-1)  # (B, D)
        pick = (torch.rand(len(self.text_count), generator=self.generator) * self.text_count).long()
        text = encoder.project_text(self.text_features[self.text_start + pick])  # (C, D)
        scale = encoder.logit_scale.exp().clamp(max=100)
        a, b, lone = audio[:pairs], audio[pairs : 2 * pairs], batch.first[:pairs]
        parts = {"text": stage.text * soft_nce(scale * audio @ text.T, batch.labels)}
        if stage.audio:
            parts["audio"] = stage.audio * info_nce(a, b, lone, scale)
        if stage.triplet:
            parts["triplet"] = stage.triplet * triplet(a, b, lone, lone, stage.margin)
        if stage.consistency:
            again = audio[2 * pairs : 2 * pairs + batch.views]
            parts["consistency"] = stage.consistency * consistency(audio[: batch.views], again)
        pictures = None
        if stage.image and self.images is not None:
            pictures = image, classes = self._pictures()
            parts["image"] = stage.image * self._image_loss(
                audio, text, image, classes, batch.labels, scale
            )
            if stage.image_triplet:
                row, column = self._pictured(lone, classes)
                if len(row):
                    parts["image_triplet"] = stage.image_triplet * triplet(
                        a[row], image[column], lone[row], classes[column], stage.margin
                    )
        if stage.anchor:
            parts["anchor"] = stage.anchor * self._anchor_loss(a, b, text, pictures, lone, scale)
        return parts

    def step(self) -> dict[str, float]:
        """Take one optimiser step; returns its losses, temperature and gradient norm.

        Raises:
            EncoderError: the loss is not finite.
        """
        encoder = self.encoder
        encoder.train()
        parts = self.losses(self.batch())
        loss = sum(parts.values())
        if not torch.isfinite(loss):
            raise EncoderError("the alignment loss is not finite; lower `lr`")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        row = {f"loss_{name}": float(part.detach()) for name, part in parts.items()}
        return {
            "loss": float(loss.detach()),
            **row,
            "scale": float(encoder.logit_scale.detach().exp()),
            "grad_norm": float(norm),
            "lr": self.schedule.get_last_lr()[0],
        }

    def _pictures(self) -> tuple[Tensor, Tensor]:
        """Embeddings (M, D) of up to 128 random pictures, and their classes (M,)."""
        features, probabilities, image_class = self.images
        order = torch.randperm(len(image_class), generator=self.generator)[:128]
        order = order.to(image_class.device)
        image = self.encoder.project_image(features[order], probabilities[order])
        return image, image_class[order]

    def _pictured(self, wanted: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of `wanted` (B,) whose class is among `classes` (M,), and one picture of each."""
        same = wanted[:, None] == classes[None, :]
        row = torch.nonzero(same.any(1))[:, 0]
        return row, same[row].float().argmax(1)

    def _image_loss(
        self,
        audio: Tensor,
        text: Tensor,
        image: Tensor,
        classes: Tensor,
        labels: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Pictures to the texts of their class, and sounds to one picture of each class."""
        onto_text = torch.nn.functional.cross_entropy(scale * image @ text.T, classes)
        pictured, column = self._pictured(torch.arange(len(text), device=audio.device), classes)
        bare = torch.ones(len(text), dtype=torch.bool, device=audio.device)
        bare[pictured] = False
        rows = labels[:, bare].sum(1) < 1e-3  # sounds of which no class lacks a picture
        if int(rows.sum()) < 2:
            return onto_text
        logits = scale * audio[rows] @ image[column].T
        return onto_text + soft_nce(logits, labels[rows][:, pictured])

    def _anchor_loss(
        self,
        audio: Tensor,
        other: Tensor,
        text: Tensor,
        pictures: tuple[Tensor, Tensor] | None,
        classes: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Sounds (P, D) to anchors of another recording, a text and a picture, some left out."""
        given = {"audio": other.detach(), "text": text[classes]}
        left_out = int(torch.randint(3, (), generator=self.generator))
        if left_out < 2:
            del given[("audio", "text")[left_out]]
        row = torch.arange(len(classes), device=audio.device)
        if pictures is not None and torch.rand((), generator=self.generator) < 0.5:
            found, column = self._pictured(classes, pictures[1])
            if len(found) > 1:
                row, given["image"] = found, pictures[0][column]
                given |= {kind: given[kind][row] for kind in given if kind != "image"}
        anchor = self.encoder.anchor(**given)
        return info_nce(audio[row], anchor, classes[row], scale)

    @torch.no_grad()
    def settle(self, batches: int = 12) -> SmallEncoder:
        """Measure batch-norm statistics anew with the present weights; returns the encoder.

        The running averages lag behind weights that still move fast, which costs a short
        training much of its accuracy ("precise BN", arXiv 2105.07576). Leaves eval mode.
        """
        norms = [m for m in self.encoder.audio.modules() if isinstance(m, _BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        state = self.generator.get_state()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # average over all batches alike
        self.encoder.train()
        for _ in range(batches):
            self.encoder.audio.embed_patch(self.batch().patch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.generator.set_state(state)  # training goes on as if this had not happened
        return self.encoder.eval()

    def finish(self) -> SmallEncoder:
        """Settle, freeze and return the encoder."""
        return self.settle().requires_grad_(False)
