"""Losses of the heads of a `TraceNet`: when, where and what (VideoSEG-O3, arXiv 2606.06819)."""

import torch
from torch import Tensor, nn

from sep.rl.shaping import active_frames
from sep.rl.term import Update


def occupied(magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (B, S, T) and rows (B, S, H) of a target (B, S, H, T) within 40 dB of its peak."""
    flat = magnitude.flatten(0, 1)
    when, where = active_frames(flat), active_frames(flat.transpose(-2, -1))
    return when.unflatten(0, magnitude.shape[:2]), where.unflatten(0, magnitude.shape[:2])


class TraceLoss:
    """BCE(a, active frames) + BCE(b, occupied rows) + CE(c, class) over all sources.

    Args:
        label: (clips,) class of every training clip, in the order of the network's labels.
        when, where, what: weights.
    """

    def __init__(self, label: Tensor, when: float = 1.0, where: float = 1.0, what: float = 0.1):
        self.label, self.when, self.where, self.what = label, when, where, what

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted losses; logs each, and how often frames, rows and classes are right."""
        batch = update.batch
        trace = update.model.trace(update.maps, batch.query)
        when, where = occupied(batch.warped)
        label = self.label[batch.clip.cpu()].to(trace.what.device)
        bce = nn.functional.binary_cross_entropy_with_logits
        losses = {
            "when": (self.when, bce(trace.when, when.to(trace.when))),
            "where": (self.where, bce(trace.where, where.to(trace.where))),
            "what": (self.what, nn.functional.nll_loss(_log(trace.what), label.flatten())),
        }
        right = {
            "when_right": (trace.when > 0) == when,
            "where_right": (trace.where > 0) == where,
            "what_right": trace.what.argmax(-1) == label,
        }
        values = {f"trace/{name}": loss.detach() for name, (_, loss) in losses.items()}
        values |= {f"trace/{name}": value.float().mean() for name, value in right.items()}
        return sum(weight * loss for weight, loss in losses.values()), values


def _log(probability: Tensor) -> Tensor:
    return torch.log(probability.flatten(0, 1).clamp(min=1e-8))
