"""One alignment step of the small encoder, on clips in memory.

Shapes: B batch, C class, D embedding, N samples, H mel bin, T frame.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.align import info_nce, soft_labels, soft_nce
from encoders.augment import add_noise, mix, stripes
from encoders.bank import ClipBank
from encoders.base import EncoderError
from encoders.small import SmallEncoder


@dataclass
class AlignConfig:
    """Settings of the alignment.

    Attributes:
        steps: optimiser steps.
        batch: segments a step; half of them are mixtures of two, half pairs of one class.
        crop_s: length of the segments; shorter than the encoder's window saves time.
        lr: peak learning rate of the audio tower and the image head (one cycle).
        text_lr: peak learning rate of the text head.
        weight_decay: of AdamW.
        snr_db: mixtures have an SNR between minus and plus this.
        slope: log odds of the soft labels per dB.
        masked: share of the mixtures that pass a separator-like mask.
        speed: segments are played faster or slower by a factor of up to exp(speed).
        stripes: largest share of an axis that one SpecAugment band covers.
        audio_weight: weight of the audio-audio loss.
        image_weight: weight of the image losses.
        seed: of everything drawn.
    """

    steps: int = 210
    batch: int = 32
    crop_s: float = 3.072
    lr: float = 2e-3
    text_lr: float = 1e-3
    weight_decay: float = 1e-2
    snr_db: float = 25.0
    slope: float = 0.15
    masked: float = 0.5
    speed: float = 0.2
    stripes: float = 0.1
    audio_weight: float = 0.5
    image_weight: float = 0.5
    seed: int = 0


class Aligner:
    """Draws batches and updates the encoder; call `step` `config.steps` times.

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
        encoder.requires_grad_(True)
        slow = [*encoder.text_head.parameters()]
        plain = [encoder.logit_scale]
        known = {id(p) for p in slow + plain}
        fast = [p for p in encoder.parameters() if id(p) not in known]
        groups = [
            {"params": fast, "weight_decay": config.weight_decay},
            {"params": slow, "weight_decay": 0.0},
            {"params": plain, "weight_decay": 0.0},
        ]
        peaks = [config.lr, config.text_lr, config.lr]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, peaks, total_steps=config.steps, pct_start=0.2
        )

    def batch(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """Draw a batch.

        Returns:
            Log-mel patches (B, H, T), soft labels (B, C), classes of the first source (B,), and
            the number of pairs P: rows 0..P-1 and P..2P-1 are lone sounds of the same classes.
        """
        config, bank, generator = self.config, self.bank, self.generator
        pairs = config.batch // 4
        mixtures = config.batch - 2 * pairs
        lone = bank.draw_classes(pairs, generator)
        mixed = bank.draw_classes(mixtures, generator)
        first = torch.cat([lone, lone, mixed])
        second = bank.draw_others(first, generator)
        snr_db = (2 * torch.rand(len(first), generator=generator) - 1) * config.snr_db
        snr_db[: 2 * pairs] = math.inf
        front, length = self.encoder.audio.log_mel, round(config.crop_s * self.encoder.sample_rate)
        spectra = [
            front.spectrum(
                bank.segments(
                    bank.draw_clips(c, generator).to(bank.samples.device),
                    length,
                    generator,
                    config.speed,
                ).to(self.encoder.device)
            )
            for c in (first, second)
        ]
        device = self.encoder.device
        mixture, snr_db = mix(*spectra, snr_db.to(device), generator, config.masked)
        patch = front.patch(add_noise(mixture, generator))
        patch = patch * stripes(patch.shape, generator, config.stripes).to(device)
        first, second = first.to(device), second.to(device)
        labels = soft_labels(first, second, snr_db, len(bank.classes), config.slope)
        return patch, labels, first, pairs

    def step(self) -> dict[str, float]:
        """Take one optimiser step; returns its losses, temperature and gradient norm.

        Raises:
            EncoderError: the loss is not finite.
        """
        encoder, config = self.encoder, self.config
        patch, labels, first, pairs = self.batch()
        encoder.train()
        audio = torch.nn.functional.normalize(encoder.audio.embed_patch(patch), dim=-1)  # (B, D)
        pick = (torch.rand(len(self.text_count), generator=self.generator) * self.text_count).long()
        text = encoder.project_text(self.text_features[self.text_start + pick])  # (C, D)
        scale = encoder.logit_scale.exp().clamp(max=100)
        parts = {"text": soft_nce(scale * audio @ text.T, labels)}
        a, b = audio[:pairs], audio[pairs : 2 * pairs]
        parts["audio"] = config.audio_weight * info_nce(a, b, first[:pairs], scale)
        if self.images is not None:
            parts["image"] = config.image_weight * self._image_loss(audio, text, labels, scale)
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
            "scale": float(scale.detach()),
            "grad_norm": float(norm),
            "lr": self.schedule.get_last_lr()[0],
        }

    def _image_loss(self, audio: Tensor, text: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
        """Images to the texts of their class, and sounds to one image of each class."""
        features, probabilities, image_class = self.images
        order = torch.randperm(len(image_class), generator=self.generator)[:128]
        order = order.to(image_class.device)
        image = self.encoder.project_image(features[order], probabilities[order])
        classes = image_class[order].to(audio.device)
        onto_text = torch.nn.functional.cross_entropy(scale * image @ text.T, classes)
        column = torch.full((len(text),), -1, device=audio.device)
        column[classes] = torch.arange(len(classes), device=audio.device)  # one image a class
        pictured = column >= 0
        rows = labels[:, ~pictured].sum(1) < 1e-3
        if int(rows.sum()) < 2:
            return onto_text
        logits = scale * audio[rows] @ image[column[pictured]].T
        return onto_text + soft_nce(logits, labels[rows][:, pictured])

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
            self.encoder.audio.embed_patch(self.batch()[0])
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.generator.set_state(state)  # training goes on as if this had not happened
        return self.encoder.eval()

    def finish(self) -> SmallEncoder:
        """Settle, freeze and return the encoder."""
        return self.settle().requires_grad_(False)
