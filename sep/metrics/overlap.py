"""How far a mask and its ideal overlap, weighted by bin; all differentiable but `hard_iou`."""

from torch import Tensor


def soft_iou(mask: Tensor, ideal: Tensor, weight: Tensor) -> Tensor:
    """J = sum u min(M, I) / sum u max(M, I), in [0, 1].

    Args:
        mask, ideal: (..., H, T) in [0, 1].
        weight: (..., H, T) importance u of the bins.

    Returns:
        (...).
    """
    shared = (weight * mask.minimum(ideal)).sum((-2, -1))
    return shared / (weight * mask.maximum(ideal)).sum((-2, -1)).clamp(min=1e-8)


def soft_dice(mask: Tensor, ideal: Tensor, weight: Tensor) -> Tensor:
    """2 sum u M I / sum u (M^2 + I^2), in [0, 1]; arguments as for `soft_iou`.

    With squares (V-Net, arXiv 1606.04797) it is 1 for the ideal mask and nothing else; with plain
    sums a mask between 0 and 1 would be pushed to the nearer end.
    """
    shared = 2 * (weight * mask * ideal).sum((-2, -1))
    return shared / (weight * (mask.square() + ideal.square())).sum((-2, -1)).clamp(min=1e-8)


def hard_iou(mask: Tensor, ideal: Tensor, weight: Tensor) -> Tensor:
    """IoU of what is above 1/2 in both, 1 where nothing is; arguments as for `soft_iou`."""
    mask, ideal = mask > 0.5, ideal > 0.5
    union = (weight * (mask | ideal)).sum((-2, -1))
    shared = (weight * (mask & ideal)).sum((-2, -1))
    return (shared / union.clamp(min=1e-8)).where(union > 0, union.new_ones(()))
