"""Training of the held-out judge. Its augmentation is its own, apart from that of the encoders.

Shapes: B batch, C class, N samples, H mel bin.
"""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from encoders.bank import ClipBank
from encoders.base import EncoderError
from encoders.judge import Judge
from encoders.precision import half_precision


@dataclass
class JudgeConfig:
    """Settings of the judge's training.

    Attributes:
        steps: optimiser steps.
        batch: segments a step.
        lr: peak learning rate (one cycle).
        weight_decay: of AdamW.
        mixed: share of the segments that hold a second sound.
        level_db: the second sound is up to this much louder or softer.
        knee_db: level under the other sound at which a sound counts as half heard.
        seed: of everything drawn and of the weights at the start.
    """

    steps: int = 600
    batch: int = 48
    lr: float = 4e-3
    weight_decay: float = 2e-2
    mixed: float = 0.6
    level_db: float = 20.0
    knee_db: float = 12.0
    seed: int = 4711


class JudgeTrainer:
    """Draws batches and updates a judge; call `step` `config.steps` times."""

    def __init__(self, bank: ClipBank, config: JudgeConfig, device: str | torch.device = "cpu"):
        torch.manual_seed(config.seed)
        self.judge = Judge(bank.classes).to(device)
        self.bank, self.config, self.device = bank, config, torch.device(device)
        self.low = half_precision(self.device)
        if self.low:
            self.judge.net.stages.to(memory_format=torch.channels_last)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(
            self.judge.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.lr, total_steps=config.steps, pct_start=0.15
        )

    def batch(self) -> tuple[Tensor, Tensor]:
        """Draw waveforms (B, N) and how much each class is heard in them (B, C)."""
        config, bank, generator = self.config, self.bank, self.generator
        rows = config.batch
        classes = bank.draw_classes(2 * rows, generator)
        clips = bank.draw_clips(classes, generator).to(bank.samples.device)
        waves = bank.segments(clips, self.judge.window, generator)
        waves = waves / waves.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
        waves = _equalise(waves, generator)
        level_db = (2 * torch.rand(rows, generator=generator) - 1) * config.level_db
        alone = torch.rand(rows, generator=generator) >= config.mixed
        level_db[alone | (classes[:rows] == classes[rows:])] = -200.0
        gain = (10 ** (level_db / 20)).to(waves.device)[:, None]
        wave = waves[:rows] + gain * waves[rows:]
        hiss = torch.randn(wave.shape, generator=generator).to(wave.device)
        wave = wave + hiss * 10 ** (-1 - 2 * torch.rand(rows, 1, generator=generator)).to(
            wave.device
        )
        heard = torch.zeros(rows, len(bank.classes))
        slope = 0.3
        heard.scatter_(1, classes[rows:, None], _heard(level_db, config.knee_db, slope)[:, None])
        heard.scatter_(1, classes[:rows, None], _heard(-level_db, config.knee_db, slope)[:, None])
        return wave, heard

    def step(self) -> dict[str, float]:
        """Take one optimiser step; returns its loss. Raises EncoderError if it is not finite."""
        wave, heard = (x.to(self.device) for x in self.batch())
        self.judge.train()
        keep = torch.rand(len(wave), 64, generator=self.generator).to(self.device) > 0.1
        with torch.autocast(self.device.type, torch.bfloat16) if self.low else nullcontext():
            embedding = self.judge.net(wave, keep)
        logits = self.judge.logits(embedding.float())
        loss = binary_cross_entropy_with_logits(logits, heard, reduction="none").sum(1).mean()
        if not torch.isfinite(loss):
            raise EncoderError("the judge's loss is not finite; lower `lr`")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.judge.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        return {"loss": float(loss.detach()), "lr": self.schedule.get_last_lr()[0]}


@torch.no_grad()
def accuracy(judge: Judge, bank: ClipBank, seed: int = 0, mixtures: int = 200) -> dict[str, float]:
    """Score a judge on clips it was not trained on.

    Returns:
        `solo`: share of the clips classified right; `mixture`: share of 0 dB mixtures of two
        classes whose likeliest class is one of the two; `both`: share of the two classes found
        among the two likeliest; `gap`: mean cosine to the class of a clip minus that of its 0 dB
        mixture.
    """
    generator = torch.Generator().manual_seed(seed)
    length, rate = judge.sample_rate * 4, judge.sample_rate
    index = torch.arange(len(bank))
    solo = torch.cat([judge.classify(bank.head(part, length), rate) for part in index.split(64)])
    first = bank.draw_classes(mixtures, generator)
    second = bank.draw_classes(mixtures, generator)
    different = first != second
    first, second = first[different], second[different]
    a, b = (
        bank.segments(bank.draw_clips(c, generator), length, generator) for c in (first, second)
    )
    a, b = (x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6) for x in (a, b))
    mixed = torch.cat([judge.logits(judge.embed(part, rate)) for part in (a + b).split(64)])
    two = mixed.topk(2, dim=1).indices
    pair = torch.stack([first, second], 1).to(two.device)
    names = [judge.labels[i] for i in first.tolist()]
    gap = judge.similarity(a, rate, names) - judge.similarity(a + b, rate, names)
    return {
        "solo": float((solo == bank.label.to(solo.device)).float().mean()),
        "mixture": float((two[:, :1] == pair).any(1).float().mean()),
        "both": float((two[:, :, None] == pair[:, None, :]).any(1).float().mean()),
        "gap": float(gap.mean()),
    }


def _heard(level_db: Tensor, knee_db: float, slope: float) -> Tensor:
    return torch.sigmoid(slope * (level_db + knee_db))


def _equalise(wave: Tensor, generator: torch.Generator) -> Tensor:
    """Colour (B, N) by a random smooth curve over frequency, up to 12 dB up or down."""
    spectrum = torch.fft.rfft(wave)
    knots = torch.randn(len(wave), 1, 7, generator=generator) * 4
    curve_db = torch.nn.functional.interpolate(
        knots, spectrum.shape[-1], mode="linear", align_corners=True
    )[:, 0].clamp(-12, 12)
    return torch.fft.irfft(spectrum * (10 ** (curve_db / 20)).to(wave.device), n=wave.shape[-1])
