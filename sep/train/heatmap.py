"""Supervision of the heat map of `PriorNet` and of the mask decoded from it (CoPRS)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sep.errors import OptionError
from sep.metrics.overlap import soft_dice, soft_iou
from sep.model import QueryNet
from sep.train.losses import ideal_masks, weighted_bce
from sep.train.term import Update


def cell_mean(values: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Weighted mean over the cells of a heat map: sum_cell w v / sum_cell w, 0 where w is 0.

    Args:
        values, weight: (B, S, H, T).
        stride: rows and frames of a cell; the last column may be narrower.

    Returns:
        (B, S, ceil(H / stride), ceil(T / stride)).
    """
    shared = nn.functional.avg_pool2d(weight * values, stride, ceil_mode=True)
    return shared / nn.functional.avg_pool2d(weight, stride, ceil_mode=True).clamp(min=1e-12)


def cell_target(masks: Tensor, mixture: Tensor, stride: int) -> Tensor:
    """Where each source is: its ideal mask's share of the mixture's energy in every cell.

    Args:
        masks: (B, S, H, T) ideal masks; mixture: (B, H, T) magnitude.
        stride: of the heat map.

    Returns:
        (B, S, h, w) in [0, 1].
    """
    return cell_mean(masks, mixture.square()[:, None], stride)


def weighted_focal(
    logits: Tensor, target: Tensor, weight: Tensor, gamma: float = 2.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Focal loss for masks between 0 and 1: cross-entropy times |P - M|^gamma, weighted by bin.

    The published focal loss (arXiv 1708.02002) where the target is 0 or 1; between them the form of
    arXiv 2006.04388, which is 0 at the target.

    Args:
        logits, target: (B, S, H, T).
        weight: (B, H, T); its mean over the batch is divided out.
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = bce * (torch.sigmoid(logits) - target).abs().pow(gamma)
    loss = (focal * weight[:, None]).mean() / weight.mean().clamp(min=1e-8)
    return loss, {"focal": loss.detach()}


class PriorLoss:
    """CoPRS's segmentation loss, a `sep.train.term.Term` of RL and of supervised training.

    L = weight (BCE(H, Mbar) + Dice(sigmoid H, Mbar) + dice Dice(P, M) + focal Focal(P, M)), over
    all sources of the batch, P their masks, M the ideal ones, H the heat maps, Mbar `cell_target`.

    Args:
        weight: lambda_SEG.
        dice, focal: lambda_d and lambda_f, 3 and 10 in the paper.
        target: `ratio` or `binary` ideal masks.
    """

    def __init__(
        self, weight: float = 0.3, dice: float = 3.0, focal: float = 10.0, target: str = "ratio"
    ):
        self.weight, self.dice, self.focal, self.target = weight, dice, focal, target

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        batch, stride = update.batch, update.model.stride
        ideal = ideal_masks(batch, self.target)
        wanted = cell_target(ideal, batch.mixture, stride)
        weight = nn.functional.avg_pool2d(update.weight, stride, ceil_mode=True)
        heat = update.model.locate(update.maps, batch.query)
        found, mask = torch.sigmoid(heat), torch.sigmoid(update.logits)
        bce, _ = weighted_bce(heat, wanted, weight)
        focal, _ = weighted_focal(update.logits, ideal, update.weight)
        prior_dice = 1 - soft_dice(found, wanted, weight[:, None]).mean()
        mask_dice = 1 - soft_dice(mask, ideal, update.weight[:, None]).mean()
        loss = self.weight * (bce + prior_dice + self.dice * mask_dice + self.focal * focal)
        values = {
            "prior/bce": bce,
            "prior/dice": prior_dice,
            "prior/iou": soft_iou(found, wanted, weight[:, None]).mean(),
            "prior/mask_dice": mask_dice,
            "prior/mask_focal": focal,
        }
        return loss, {name: value.detach() for name, value in values.items()}


def heatmap_loss(
    model: QueryNet, settings: Mapping[str, float] | None, target: str
) -> list[PriorLoss]:
    """The terms that `prior` of a configuration asks for: none, or one.

    Args:
        model: that they are for.
        settings: arguments of `PriorLoss` but for `target`.

    Raises:
        OptionError: a network without a heat map, or an unknown setting.
    """
    if not settings:
        return []
    if model.kind != "prior":
        raise OptionError("prior needs a network with a heat map: network={kind: prior}")
    known = ("weight", "dice", "focal")
    for name in settings:
        if name not in known:
            raise OptionError(f"prior.{name} is unknown; use {', '.join(known)}")
    return [PriorLoss(**settings, target=target)]
