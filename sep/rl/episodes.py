"""Policy gradient of the decisions of a `TurnNet`: where to look again, and when to stop.

The rewards of VideoSEG-O3 (arXiv 2606.06819) for G sampled episodes of a mixture: that of the final
mask, how well the chosen intervals fit the target's, whether each look was better than the best
before, and a cost a look. The interval term is the IoU (the released code divides by the length of
the prediction alone, which favours short ones).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sep.metrics.overlap import soft_iou
from sep.networks.turns import Episode
from sep.rl.advantage import group_advantage
from sep.rl.reward import Rollout
from sep.rl.shaping import active_frames, active_span
from sep.train.losses import ideal_masks, weighted_bce
from sep.train.term import Update


def interval_iou(interval: Tensor, active: Tensor, cells: int) -> Tensor:
    """IoU of stretches of time with the stretch from the first to the last active frame.

    Args:
        interval: (B, ..., 2) first cell and the one after the last.
        active: (B, T) bool.
        cells: that T frames are divided into.

    Returns:
        (B, ...); 0 for an empty interval or where nothing is active.
    """
    shape = (-1,) + (1,) * (interval.dim() - 2)
    first, last = (edge.view(shape).float() for edge in active_span(active))
    begin, end = (interval.float() * active.shape[-1] / cells).unbind(-1)
    shared = (torch.minimum(end, last) - torch.maximum(begin, first)).clamp(min=0)
    union = (end - begin) + (last - first).clamp(min=0) - shared
    return shared / union.clamp(min=1e-8)


def progress(quality: Tensor, taken: Tensor, scale: float = 0.1) -> Tensor:
    """Sum over further looks of clip((J_n - max_{m < n} J_m) / scale, -1, 1).

    Args:
        quality: (..., n) J of each look.
        taken: (..., n - 1) whether each look but the first was taken.
        scale: gain that earns 1.
    """
    best = quality.cummax(-1).values[..., :-1]
    return (((quality[..., 1:] - best) / scale).clamp(-1, 1) * taken).sum(-1)


class TurnLoss:
    """REINFORCE on whole episodes, advantages relative to those of the same mixture.

    Every update draws episodes of its own, so it is on policy and no ratio is needed. The refining
    network is taught by the cross-entropy of the final masks beside it. Only what `TurnNet` adds
    learns from the maps, which are detached.

    Args:
        reward: of the final masks, its parts apart; None takes their IoU with the ideal.
        group: G; weight: of the policy gradient; refine: of the cross-entropy.
        interval, progress: weights of these rewards; cost: of a look.
    """

    def __init__(
        self,
        reward: Callable[[Rollout], tuple[Tensor, dict[str, Tensor]]] | None = None,
        group: int = 4,
        weight: float = 1.0,
        refine: float = 1.0,
        interval: float = 0.5,
        progress: float = 1.0,
        cost: float = 0.02,
    ):
        self.reward, self.group, self.weight, self.refine = reward, group, weight, refine
        self.interval, self.progress, self.cost = interval, progress, cost

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted losses; logs reward, interval IoU, progress, looks and stop probability."""
        batch, model = update.batch, update.model
        query = batch.query[:, :1].expand(-1, self.group, -1)
        episode = model.play(update.maps.detach(), query, sample=True)
        ideal = ideal_masks(batch)[:, :1]
        with torch.no_grad():
            parts = self.rewards(episode, update, ideal[:, 0])
            advantage = group_advantage(parts["reward"])
        loss = -(advantage * episode.log_prob).mean()
        final = episode.looks[:, :, -1]
        refine, _ = weighted_bce(final, ideal.expand_as(final), update.weight)
        values = {f"turns/{name}": value.mean() for name, value in parts.items()}
        values |= {"turns/bce": refine.detach(), "turns/stop": episode.stop.detach().mean()}
        return self.weight * loss + self.refine * refine, values

    def rewards(self, episode: Episode, update: Update, ideal: Tensor) -> dict[str, Tensor]:
        """Reward (B, G) of episodes and its parts before weighting.

        Args:
            ideal: (B, H, T) ratio mask of the target.
        """
        masks = torch.sigmoid(episode.looks)  # (B, G, n, H, T)
        quality = soft_iou(masks.flatten(1, 2), ideal[:, None], update.weight[:, None])
        quality = quality.unflatten(1, masks.shape[1:3])
        taken = episode.interval[..., 1] > 0  # (B, G, n - 1)
        active = active_frames(update.batch.warped[:, 0])
        fit = interval_iou(episode.interval, active, update.model.cells) * taken
        final = quality[..., -1]
        if self.reward is not None:
            final, _ = self.reward(update.listen(masks[:, :, -1]))
        parts = {
            "final": final,
            "interval": fit.sum(-1) / taken.sum(-1).clamp(min=1),
            "progress": progress(quality, taken),
            "looks": episode.turns.float(),
        }
        reward = parts["final"] + self.interval * parts["interval"]
        reward = reward + self.progress * parts["progress"] - self.cost * parts["looks"]
        return {"reward": reward} | parts
