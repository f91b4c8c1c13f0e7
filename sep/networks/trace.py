"""A separator that says when, where and what it hears before it says the mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sep.networks.confidence import ConfidentNet


@dataclass
class Trace:
    """The parts of a decision, for Q queries of each of B mixtures.

    Attributes:
        when: (B, Q, T) logits of the target being active in a frame.
        where: (B, Q, H) logits of its having energy in a row.
        what: (B, Q, C) probabilities of its class; C is 0 for a network without classes.
    """

    when: Tensor
    where: Tensor
    what: Tensor


class TraceNet(ConfidentNet):
    """A separator whose mask logits are l = l_query + beta_w logit a(t) + beta_h logit b(f).

    The decoupled trace of VideoSEG-O3 (arXiv 2606.06819): heads say a(t), when the target sounds,
    b(f), where, and what it is; the class prototypes, mixed by the last, are added to the query
    with weight beta_c. All betas start at 0, so that masks begin as those of `QueryNet`.

    Args:
        labels: names of the classes.
        options: those of `QueryNet`.
    """

    kind = "trace"

    def __init__(self, labels: Sequence[str] = (), **options: Any):
        super().__init__(**options)
        self.config["labels"] = list(labels)
        channels, dim = self.config["mask_channels"], self.config["embed_dim"]
        self.when_head, self.where_head = _profile(channels), _profile(channels)
        self.what_head = nn.Linear(2 * channels, dim)
        self.trace_gain = nn.Parameter(torch.zeros(3))  # beta of when, where and what
        self.register_buffer("prototypes", torch.zeros(len(labels), dim))

    def name_classes(self, labels: Sequence[str], vectors: Tensor) -> None:
        """Give the classes their names and prototypes (C, D), such as embeddings of the names."""
        self.config["labels"] = list(labels)
        self.prototypes = vectors.to(self.prototypes)

    def trace(self, maps: Tensor, query: Tensor) -> Trace:
        """What the heads say of `maps` (B, K, H, T) and queries (B, Q, D)."""
        prompt = self.prompt(query)
        logits = super().combine(maps, query)
        profiles = []
        for head, axis in ((self.when_head, -2), (self.where_head, -1)):
            # the prompt is positive, so that it may be applied after the maximum
            parts = [maps.mean(axis), maps.amax(axis)]  # (B, K, T) or (B, K, H)
            parts = [part[:, None] * prompt[..., None] for part in parts]
            parts += [part[:, :, None] for part in (logits.mean(axis), logits.amax(axis))]
            profiles.append(head(torch.cat(parts, 2).flatten(0, 1)).unflatten(0, query.shape[:2]))
        when, where = (profile[:, :, 0] for profile in profiles)
        pooled = torch.cat([maps.mean((-2, -1)), maps.amax((-2, -1))], 1)[:, None]
        heard = self.what_head(pooled * prompt.repeat(1, 1, 2)) + 10 * query
        return Trace(when, where, (heard @ self.prototypes.T).softmax(-1))

    def combine(self, maps: Tensor, query: Tensor, trace: Trace | None = None) -> Tensor:
        """Mask logits as in `QueryNet.combine`; another `trace` may stand in for the heads'."""
        several = query if query.dim() == 3 else query[:, None]
        trace = trace or self.trace(maps, several)
        when, where, what = self.trace_gain
        logits = super().combine(maps, several + what * (trace.what @ self.prototypes))
        logits = logits + when * trace.when[:, :, None] + where * trace.where[..., None]
        return logits if query.dim() == 3 else logits[:, 0]

    def logits(self, magnitude: Tensor, query: Tensor) -> Tensor:
        """Mask logits on the log-frequency grid, shapes as in `QueryNet.logits`."""
        each = query.expand(len(magnitude), -1) if query.dim() == 1 else query
        return self.combine(self.maps(magnitude), each)

    forward = logits


def _profile(channels: int) -> nn.Sequential:
    """Features (N, 2 K + 2, T) of frames, or of rows, to one logit each (N, 1, T)."""
    return nn.Sequential(
        nn.Conv1d(2 * channels + 2, 32, 5, padding=2), nn.ReLU(), nn.Conv1d(32, 1, 5, padding=2)
    )
