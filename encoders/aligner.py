"""Progressive alignment of an encoder, on clips in memory: three stages of one kind of step.

Stage "text" aims sounds at texts, stage "audio" sounds at sounds of their class, stage "image"
sounds at pictures, each beside part of the losses before it (MARS-Sep, arXiv 2510.10509). Mixtures
of two, with labels graded by their SNR, are in every batch: a judge of separation has to hear
leakage, and to rank versions of one mixture by it. MARS-Sep trains projection heads only;
`encoders.tuning` says what else can be trained.

Shapes: B batch, C class, D embedding, N samples, H mel bin, T frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.align import consistency, info_nce, rank, soft_labels, soft_nce, triplet
from encoders.augment import add_noise, colour, istft, mix, stft, stripes
from encoders.bank import ClipBank
from encoders.base import Alignable, EncoderError
from encoders.tuning import Tuning


@dataclass
class Stage:
    """One stage: how long, how fast, and the weight of each loss.

    Attributes:
        name: of the stage.
        steps: optimiser steps; 0 leaves the stage out.
        lr: peak learning rate of what is tuned of the audio tower, and of the image head (one
            cycle).
        text_lr: peak learning rate of the text head; 0 keeps it as it is.
        text: audio-text InfoNCE over all classes, graded for mixtures.
        rank: order of two versions of one mixture by SNR; half of the mixtures are then such twins.
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
    rank: float = 0.0
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
        crop_s: length of the segments, at most the encoder's window; shorter saves time.
        weight_decay: of AdamW.
        snr_db: mixtures have an SNR between minus and plus this.
        twin_db: twins differ in SNR by up to this before they are masked.
        slope: log odds of the soft labels per dB.
        masked: share of the mixtures that pass a separator-like mask.
        speed: segments are played faster or slower by a factor of up to exp(speed).
        stripes: largest share of an axis that one SpecAugment band covers.
        tune: what is trained, see `encoders.tuning`; None asks the encoder.
        rank: of the adapters that tune="lora" trains.
        seed: of everything drawn.
    """

    batch: int = 32
    crop_s: float = 3.072
    weight_decay: float = 1e-2
    snr_db: float = 25.0
    twin_db: float = 12.0
    slope: float = 0.15
    masked: float = 0.5
    speed: float = 0.2
    stripes: float = 0.1
    tune: str | None = None
    rank: int = 8
    seed: int = 0


@dataclass
class Batch:
    """Segments of a step: lone sounds first, then mixtures.

    Attributes:
        patch: (B, H, T) patches.
        labels: (B, C) soft labels.
        first: (B,) class of the first or only source.
        second: (B,) class of the other source.
        snr_db: (B,) level of the first over the second; infinity for a lone sound.
        pairs: P; rows 0..P-1 and P..2P-1 are lone sounds of the same classes.
        views: V; rows 2P..2P+V-1 are other cuts of the recordings of rows 0..V-1.
        twins: W; rows B-2W..B-W-1 and B-W..B-1 are the same two sounds at other SNRs.
    """

    patch: Tensor
    labels: Tensor
    first: Tensor
    second: Tensor
    snr_db: Tensor
    pairs: int
    views: int
    twins: int


class Aligner:
    """Draws batches and updates the encoder: `begin` a stage, then `step` as often as it says.

    Args:
        encoder: trained in place; its text space should be fitted (`fit_text`) before.
        bank: training clips at the encoder's rate.
        wordings: for each class of the bank, the texts that may name it.
        images: frozen features of M pictures as `image_features` gives them, and their class
            indices (M,); or None.
        config: settings.

    Raises:
        EncoderError: fewer than two classes with clips, a class without a wording, or a tuning
            that cannot be had.
    """

    def __init__(
        self,
        encoder: Alignable,
        bank: ClipBank,
        wordings: Sequence[Sequence[str]],
        images: tuple[tuple[Tensor, ...], Tensor] | None,
        config: AlignConfig,
    ):
        if len(bank.filled) < 2:
            raise EncoderError("alignment needs clips of at least two classes")
        if len(wordings) != len(bank.classes) or not all(wordings):
            raise EncoderError("alignment needs at least one wording for every class")
        self.encoder, self.bank, self.config = encoder, bank, config
        self.images = images if images is not None and len(images[1]) else None
        flat = [text for texts in wordings for text in texts]
        self.text_features = encoder.text_features(flat)
        counts = torch.tensor([len(texts) for texts in wordings])
        self.text_count, self.text_start = counts, counts.cumsum(0) - counts
        self.generator = torch.Generator().manual_seed(config.seed)
        torch.manual_seed(config.seed)
        self.tuning = Tuning(encoder, config.tune or encoder.tuning, config.rank)
        self.stage = Stage("none", steps=0)

    def begin(self, stage: Stage) -> None:
        """Start a stage: its losses, and a new optimiser and cycle for what it moves."""
        encoder, tuning = self.encoder, self.tuning
        self.stage = stage
        encoder.requires_grad_(False)
        fast = tuning.trainable("audio")
        if stage.image and self.images is not None:
            fast += tuning.trainable("image")
        slow = tuning.trainable("text") if stage.text_lr else []
        scalars = [encoder.logit_scale, *(encoder.anchor.parameters() if stage.anchor else ())]
        groups = [
            {"params": fast, "lr": stage.lr, "weight_decay": self.config.weight_decay},
            {"params": slow, "lr": stage.text_lr, "weight_decay": 0.0},
            {"params": scalars, "lr": stage.lr, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.moving = [p for group in groups for p in group["params"]]
        for parameter in self.moving:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(groups, lr=stage.lr)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            [group["lr"] for group in groups],
            total_steps=stage.steps,
            pct_start=0.2,
        )

    def batch(self) -> Batch:
        """Draw the segments of a step."""
        config, bank, generator = self.config, self.bank, self.generator
        pairs = config.batch // 4
        views = pairs if self.stage.consistency else 0
        lone = 2 * pairs + views
        twins = (config.batch - lone) // 2 if self.stage.rank else 0
        paired = bank.draw_classes(pairs, generator)
        mixed = bank.draw_classes(config.batch - lone - twins, generator)
        first = torch.cat([paired, paired, paired[:views], mixed])
        second = bank.draw_others(first, generator)
        clips = [bank.draw_clips(c, generator) for c in (first, second)]
        clips[0][2 * pairs : lone] = clips[0][:views]
        snr_db = (2 * torch.rand(len(first), generator=generator) - 1) * config.snr_db
        snr_db[:lone] = math.inf
        length = min(round(config.crop_s * self.encoder.sample_rate), self.encoder.window)
        device = self.encoder.device
        spectra = [colour(stft(self._cut(index, length)), generator) for index in clips]
        if twins:
            again = [torch.arange(len(first)), torch.arange(len(first) - twins, len(first))]
            again = torch.cat(again)
            first, second, snr_db = first[again], second[again], snr_db[again]
            spectra = [spectrum[again.to(device)] for spectrum in spectra]
            step_db = (2 * torch.rand(twins, generator=generator) - 1) * config.twin_db
            snr_db[-twins:] += step_db
        mixture, snr_db = mix(*spectra, snr_db.to(device), generator, config.masked)
        wave = istft(add_noise(mixture, generator), length)
        patch = self.encoder.audio_patch(wave)
        patch = patch * stripes(patch.shape, generator, config.stripes).to(device)
        first, second = first.to(device), second.to(device)
        labels = soft_labels(first, second, snr_db, len(bank.classes), config.slope)
        return Batch(patch, labels, first, second, snr_db, pairs, views, twins)

    def _cut(self, index: Tensor, length: int) -> Tensor:
        """Segments (B, `length`) of the clips in `index` on the encoder's device."""
        bank = self.bank
        index = index.to(bank.samples.device)
        wave = bank.segments(index, length, self.generator, self.config.speed)
        return wave.to(self.encoder.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of the present stage, by name."""
        encoder, stage, pairs = self.encoder, self.stage, batch.pairs
        audio = normalize(encoder.embed_patch(batch.patch), dim=-1)  # (B, D)
        pick = (torch.rand(len(self.text_count), generator=self.generator) * self.text_count).long()
        text = encoder.project_text(self.text_features[self.text_start + pick])  # (C, D)
        scale = encoder.logit_scale.exp().clamp(max=100)
        a, b, lone = audio[:pairs], audio[pairs : 2 * pairs], batch.first[:pairs]
        parts = {"text": stage.text * soft_nce(scale * audio @ text.T, batch.labels)}
        if batch.twins:
            parts["rank"] = stage.rank * self._rank_loss(audio, text, batch)
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
        self.tuning.train()
        parts = self.losses(self.batch())
        loss = sum(parts.values())
        if not torch.isfinite(loss):
            raise EncoderError("the alignment loss is not finite; lower `lr`")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.moving, 5.0)
        self.optimizer.step()
        self.schedule.step()
        row = {f"loss_{name}": float(part.detach()) for name, part in parts.items()}
        return {
            "loss": float(loss.detach()),
            **row,
            "scale": float(self.encoder.logit_scale.detach().exp()),
            "grad_norm": float(norm),
            "lr": self.schedule.get_last_lr()[0],
        }

    def _pictures(self) -> tuple[Tensor, Tensor]:
        """Embeddings (M, D) of up to 128 random pictures, and their classes (M,)."""
        features, image_class = self.images
        order = torch.randperm(len(image_class), generator=self.generator)[:128]
        order = order.to(image_class.device)
        image = self.encoder.project_image(*(part[order] for part in features))
        return image, image_class[order]

    def _pictured(self, wanted: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of `wanted` (B,) whose class is among `classes` (M,), and one picture of each."""
        same = wanted[:, None] == classes[None, :]
        row = torch.nonzero(same.any(1))[:, 0]
        return row, same[row].float().argmax(1)

    def _rank_loss(self, audio: Tensor, text: Tensor, batch: Batch) -> Tensor:
        """Order of the twins: nearer to the target's text, and farther from the other's."""
        one, two = (slice(-2 * batch.twins, -batch.twins), slice(-batch.twins, None))
        level_db = batch.snr_db[one], batch.snr_db[two]
        loss = 0.0
        for classes, sign in ((batch.first, 1), (batch.second, -1)):
            aim = text[classes[one]]
            near = ((audio[rows] * aim).sum(-1) for rows in (one, two))
            loss = loss + rank(*near, *(sign * level for level in level_db)) / 2
        return loss

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
    def settle(self, batches: int = 12) -> Alignable:
        """Measure batch-norm statistics anew with the present weights; returns the encoder.

        The running averages lag behind weights that still move fast, which costs a short
        training much of its accuracy ("precise BN", arXiv 2105.07576). Leaves eval mode.
        """
        self.tuning.train()
        norms = [m for m in self.encoder.backbone.modules() if isinstance(m, _BatchNorm)]
        norms = [norm for norm in norms if norm.training]
        momenta = [norm.momentum for norm in norms]
        state = self.generator.get_state()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # average over all batches alike
        for _ in range(batches if norms else 0):
            self.encoder.embed_patch(self.batch().patch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.generator.set_state(state)  # training goes on as if this had not happened
        return self.encoder.eval()

    def state(self) -> dict[str, Tensor]:
        """A copy of all that alignment may change, for `restore`."""
        encoder, tuning = self.encoder, self.tuning
        moved = [p for kind in encoder.heads for p in tuning.trainable(kind)]
        moved += [encoder.logit_scale, *encoder.anchor.parameters()]
        ids = {id(p) for p in moved}
        named = [(name, p) for name, p in encoder.named_parameters() if id(p) in ids]
        return {name: p.detach().clone() for name, p in (*named, *encoder.named_buffers())}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to what `state` gave."""
        self.encoder.load_state_dict(
            {k: v for k, v in state.items() if k in self.encoder.state_dict()}, strict=False
        )

    def finish(self) -> Alignable:
        """Settle, merge adapters, freeze and return the encoder."""
        self.settle()
        self.tuning.merge()
        return self.encoder.requires_grad_(False)
