"""Supervised mask targets and losses; pure functions returning (loss, detached diagnostics)."""

import torch
from torch import Tensor, nn


def bin_weight(mixture: Tensor) -> Tensor:
    """OmniSep's loss weight of time-frequency bins, clamp(log(1 + |X|), 0.001, 10); any shape."""
    return torch.log1p(mixture).clamp(1e-3, 10.0)


def target_masks(sources: Tensor, mixture: Tensor, kind: str) -> Tensor:
    """Ideal masks of each source.

    Args:
        sources: (B, S, H, T) source magnitudes.
        mixture: (B, H, T) mixture magnitude.
        kind: `binary`, 1 where |S_n| > 0.5 |X| (CLIPSep, OmniSep), or `ratio`,
            |S_n| / sum_n |S_n|.

    Returns:
        (B, S, H, T) in [0, 1].
    """
    if kind == "binary":
        return (sources > 0.5 * mixture[:, None]).to(sources.dtype)
    if kind == "ratio":
        return sources / sources.sum(1, keepdim=True).clamp(min=1e-8)
    raise ValueError(f"target '{kind}' is unknown; use binary or ratio")


def weighted_bce(
    logits: Tensor, target: Tensor, weight: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Binary cross-entropy of mask logits, weighted by bin.

    Args:
        logits, target: (B, S, H, T).
        weight: (B, H, T), e.g. `bin_weight`; its mean over the batch is divided out, so that the
            loss is in nats a bin whatever the level.
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = (bce * weight[:, None]).mean() / weight.mean().clamp(min=1e-8)
    mask = torch.sigmoid(logits.detach())
    return loss, {"bce": loss.detach(), "mask_mean": mask.mean()}
