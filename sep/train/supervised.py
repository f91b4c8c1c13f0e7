"""Supervised training of the separator: cross-entropy of its masks and SI-SDR of its sounds."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sep.data.bank import MixtureSampler, QueryBank
from sep.model import QueryNet
from sep.train import distributed
from sep.train.batch import Batch, draw_batch
from sep.train.losses import bin_weight, separation_loss
from sep.train.term import Term, Update
from sep.train.validation import Validation


def learning_rate(peak: float, progress: float, warmup: float, final: float = 0.02) -> float:
    """Linear warm-up over the first part `warmup` of a run, then half a cosine to peak x final."""
    if progress < warmup:
        return peak * (progress + 1e-3) / (warmup + 1e-3)
    rest = (progress - warmup) / max(1 - warmup, 1e-9)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0))))


class SupervisedTask:
    """One U-Net forward a mixture, masks for all of its sources, each named by its own query.

    Args:
        model: the separator, on its device.
        sampler: training mixtures.
        queries: their embeddings.
        validation: fixed mixtures.
        lr: peak learning rate of AdamW; weight_decay: its decay.
        warmup: part of the run in which the rate rises.
        target: `binary` or `ratio` masks; si_sdr: weight of the waveform term (`separation_loss`).
        mixed: probability of query mix-up; negative: of a negative query (`draw_batch`).
        grad_clip: largest gradient norm.
        train_norm: batch statistics in training; off to keep the running ones, as when a trained
            model is continued.
        terms: what else is added to the loss (`sep.train.term`); those that need no rollout.
    """

    def __init__(
        self,
        model: QueryNet,
        sampler: MixtureSampler,
        queries: QueryBank,
        validation: Validation,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.05,
        target: str = "ratio",
        si_sdr: float = 0.0,
        mixed: float = 0.5,
        negative: float = 0.0,
        grad_clip: float = 5.0,
        train_norm: bool = True,
        terms: Sequence[Term] = (),
    ):
        self.model, self.sampler, self.queries = model, sampler, queries
        self.validation, self.mixed, self.negative = validation, mixed, negative
        self.target, self.si_sdr, self.terms = target, si_sdr, terms
        self.lr, self.warmup, self.grad_clip = lr, warmup, grad_clip
        self.optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=weight_decay)
        model.train(train_norm)

    def train_step(self, step: int, progress: float) -> dict[str, float]:
        """One AdamW step on one batch of mixtures."""
        lr = learning_rate(self.lr, progress, self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss, values = self.loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.model)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.optimizer.step()
        return {
            "loss": loss.item(),
            "gradient_norm": distributed.gathered(norm).item(),
            "lr": lr,
        } | {k: v.item() for k, v in values.items()}

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """What a step minimises, and detached values for the log."""
        batch, grid = self.drawn(step), self.model.spectrogram
        maps = self.model.maps(batch.magnitude)
        logits = self.model.combine(maps, batch.query)  # (B, S, H, T)
        loss, values = separation_loss(logits, batch, grid, self.target, self.si_sdr)
        for term in self.terms:
            part, measured = term(
                Update(self.model, batch, maps, logits, bin_weight(batch.mixture))
            )
            loss, values = loss + part, values | measured
        return loss, values

    def drawn(self, step: int) -> Batch:
        """The mixtures and queries of a step."""
        grid = self.model.spectrogram
        return draw_batch(self.sampler, self.queries, grid, step, self.mixed, self.negative)

    def validate(self) -> dict[str, float]:
        """Values on the fixed validation mixtures."""
        return self.validation(self.model)

    def picture(self, path: Path) -> None:
        """Draw the first validation mixture."""
        self.validation.picture(self.model, path)

    def extra_state(self) -> dict[str, Any]:
        """Where the sampler is; every random draw is a function of seed and step."""
        return {"sampler": self.sampler.state()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the place of the sampler."""
        self.sampler.restore(state.get("sampler", {}))
