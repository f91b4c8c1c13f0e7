"""Losses of the heads of a `TraceNet`: when, where and what (VideoSEG-O3, arXiv 2606.06819)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical

from sep.networks.trace import Trace
from sep.rl.advantage import group_advantage
from sep.rl.shaping import active_frames
from sep.train.term import Update


def occupied(magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (B, S, T) and rows (B, S, H) of a target (B, S, H, T) within 40 dB of its peak."""
    flat = magnitude.flatten(0, 1)
    when, where = active_frames(flat), active_frames(flat.transpose(-2, -1))
    return when.unflatten(0, magnitude.shape[:2]), where.unflatten(0, magnitude.shape[:2])


def set_iou(drawn: Tensor, truth: Tensor) -> Tensor:
    """IoU (B, G) of drawn sets (B, G, n), 0 or 1, with true ones (B, n); 1 if both are empty."""
    truth = truth[:, None].to(drawn)
    shared, union = (drawn * truth).sum(-1), torch.maximum(drawn, truth).sum(-1)
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


def head_gradient(
    trace: Trace, when: Tensor, where: Tensor, label: Tensor, group: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """REINFORCE on each head with an advantage of its own, relative to G draws of the same head.

    Draws of frames and rows earn their IoU with the true ones, a drawn class 1 if it is the
    target's. Log-probabilities are means over frames or rows. Draws are fresh: this is on policy.

    Args:
        trace: of the first source of each mixture, (B, 1, ...).
        when: (B, T), where: (B, H) bool; label: (B,) true class.
        group: G.

    Returns:
        The loss, and the mean reward of each head, detached.
    """
    loss, values = trace.when.new_zeros(()), {}
    for name, logits, truth in (("when", trace.when, when), ("where", trace.where, where)):
        policy = Bernoulli(logits=logits[:, 0, None].expand(-1, group, -1))
        drawn = policy.sample()
        values[name] = set_iou(drawn, truth)
        log_prob = policy.log_prob(drawn).mean(-1)
        loss = loss - (group_advantage(values[name]) * log_prob).mean()
    if trace.what.shape[-1]:
        policy = Categorical(probs=trace.what[:, 0, None].expand(-1, group, -1))
        drawn = policy.sample()
        values["what"] = (drawn == label[:, None]).float()
        loss = loss - (group_advantage(values["what"]) * policy.log_prob(drawn)).mean()
    return loss, {f"trace/{name}_reward": value.mean() for name, value in values.items()}


class TraceLoss:
    """BCE(a, active frames) + BCE(b, occupied rows) + CE(c, class) over all sources.

    Args:
        when, where, what: weights.
        policy: weight of `head_gradient` on the first source, with `group` draws a head.
        classes: for each class of the data its index among the network's; None: the same order.
    """

    def __init__(
        self,
        when: float = 1.0,
        where: float = 1.0,
        what: float = 0.1,
        policy: float = 0.0,
        group: int = 4,
        classes: Sequence[int] | None = None,
    ):
        self.classes = None if classes is None else torch.tensor(classes)
        self.when, self.where, self.what = when, where, what
        self.policy, self.group = policy, group

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted losses; logs each, and how often frames, rows and classes are right."""
        batch = update.batch
        trace = update.model.trace(update.maps, batch.query)
        when, where = occupied(batch.warped)
        label = batch.label if self.classes is None else self.classes[batch.label]
        label = label.to(trace.what.device)
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
        total = sum(weight * loss for weight, loss in losses.values())
        if self.policy:
            first = (when[:, 0], where[:, 0], label[:, 0])
            gradient, rewards = head_gradient(trace, *first, self.group)
            total, values = total + self.policy * gradient, values | rewards
        return total, values


def _log(probability: Tensor) -> Tensor:
    return torch.log(probability.flatten(0, 1).clamp(min=1e-8))
