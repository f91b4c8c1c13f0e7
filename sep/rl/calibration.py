"""Confidence of the mask in its policy gradient: VideoSEG-O3's calibration (arXiv 2606.06819).

`Emission` lets the advantage of a sampled mask reach the network by the log-likelihood of the mask
on a coarse grid; `ConfidentKappa` explores less where the mask is confidently good, as far as the
head that `ConfidenceLoss` trains can tell.
"""

import torch
from torch import Tensor, nn

from sep.errors import OptionError
from sep.metrics.overlap import soft_dice, soft_iou
from sep.model import QueryNet
from sep.train.losses import ideal_masks, weighted_bce
from sep.train.term import Update


def emission_log_prob(logits: Tensor, masks: Tensor, grid: tuple[int, int] = (32, 32)) -> Tensor:
    """Mean over the cells of a grid of [m log sigmoid(l) + (1 - m) log(1 - sigmoid(l))].

    l is the mean logit of a cell and m is 1 where the mean of the mask is above 1/2.

    Args:
        logits: (B, H, T); masks: (B, G, H, T), no gradient; grid: rows and columns.

    Returns:
        (B, G) in nats a cell.
    """
    pool = nn.functional.adaptive_avg_pool2d
    hit = (pool(masks.detach(), grid) > 0.5).to(logits.dtype)
    cells = pool(logits, grid)[:, None].expand_as(hit)
    bce = nn.functional.binary_cross_entropy_with_logits(cells, hit, reduction="none")
    return -bce.mean((-2, -1))


class Emission:
    """Score-function surrogate -mean exp(log pi - sg log pi) A of the mask on a coarse grid.

    Its gradient at the logit of a cell is -A (m - sigmoid(l)) / cells for one mask. The KL terms of
    the Beta policy do not cover it, so a supervised anchor on the same logits goes with it.

    Args:
        weight: of the surrogate.
        anchor: weight of weighted BCE + Dice with the ideal ratio mask.
        grid: rows and columns.
    """

    scored = True  # needs masks and advantages of the rollout

    def __init__(self, weight: float = 1.0, anchor: float = 0.2, grid: tuple[int, int] = (32, 32)):
        self.weight, self.anchor, self.grid = weight, anchor, (int(grid[0]), int(grid[1]))

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted surrogate and its anchor; logs emission and emission_anchor."""
        advantage = update.advantage
        if advantage.dim() == 3:
            advantage = advantage.mean(-1)
        log_prob = emission_log_prob(update.logits[:, 0], update.masks, self.grid)
        loss = -((log_prob - log_prob.detach()).exp() * advantage).mean()
        ideal = ideal_masks(update.batch)[:, :1]
        bce, _ = weighted_bce(update.logits[:, :1], ideal, update.weight)
        mask, weight = torch.sigmoid(update.logits[:, :1]), update.weight[:, None]
        anchor = bce + 1 - soft_dice(mask, ideal, weight).mean()
        values = {"emission": log_prob.detach().mean(), "emission_anchor": anchor.detach()}
        return self.weight * loss + self.anchor * anchor, values


class ConfidenceLoss:
    """Mean squared error of the confidence of a `ConfidentNet` against the IoU of its masks.

    Args:
        weight: of the loss.
    """

    def __init__(self, weight: float = 1.0):
        self.weight = weight

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss; logs confidence, iou and confidence_error."""
        batch, logits = update.batch, update.logits.detach()
        ideal = ideal_masks(batch)
        iou = soft_iou(torch.sigmoid(logits), ideal, update.weight[:, None])  # (B, S)
        expected = update.model.confidence(update.maps, batch.query, logits)
        loss = (expected - iou).square().mean()
        values = {"confidence": expected.mean(), "iou": iou.mean(), "confidence_error": loss}
        return self.weight * loss, {name: value.detach() for name, value in values.items()}


class ConfidentKappa:
    """kappa = low + (high - low) J |2 P - 1|, J the confidence of a `ConfidentNet`.

    Args:
        low, high: of kappa.

    Raises:
        OptionError: not 0 < low <= high.
    """

    def __init__(self, low: float = 4.0, high: float = 30.0):
        if not 0 < low <= high:
            raise OptionError(f"kappa from {low} to {high}: give two numbers above 0 that rise")
        self.low, self.high = low, high

    def __call__(
        self, model: QueryNet, maps: Tensor, query: Tensor, logits: Tensor, proposal: Tensor
    ) -> Tensor:
        """Kappa (B, h, t) of a proposal (B, h, t); the other arguments as in `PolicyTask`."""
        trust = model.confidence(maps, query, logits)[:, None, None]
        return (self.low + (self.high - self.low) * trust * (2 * proposal - 1).abs()).detach()
