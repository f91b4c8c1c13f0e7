"""What an action of the mask policy is: one value a bin, or one value a tile of bins."""

import torch
from torch import Tensor, nn


class BinExploration:
    """One Beta action for each bin of the mask: the action is the mask (MARS-Sep)."""

    def proposal(self, logits: Tensor, weight: Tensor) -> Tensor:
        """Mask logits (B, H, T) to the policy's proposal (B, H, T)."""
        return torch.sigmoid(logits)

    def masks(self, logits: Tensor, mean: Tensor, action: Tensor) -> Tensor:
        """Actions (B, G, H, T) to masks (B, G, H, T)."""
        return action

    def pool(self, weight: Tensor) -> Tensor:
        """Bin weights (B, H, T) to weights of the actions (B, H, T)."""
        return weight


class TileExploration:
    """One Beta action for each tile of bins, added to the mask logits as a smooth offset.

    The proposal of a tile is the sigmoid of its mean logit, weighted by bin weight; an action Z
    shifts the logits by logit Z - logit E[Z], interpolated bilinearly between tile centres. The
    mean mask is then the mask itself. The Beta policy's mean lies nearer to 1/2 than its mode, the
    mask of inference: a shift by logit Z - logit P leaks on average, and a policy trained with it
    learns to suppress too much. The action space has exact Beta densities and is smaller by the
    tile's size, which is what makes the score-function gradient informative.

    Args:
        tile: (rows, frames) of a tile; H and T must be multiples of them.
        limit: largest shift of a logit.
    """

    def __init__(self, tile: tuple[int, int] = (8, 8), limit: float = 4.0):
        self.tile, self.limit = (int(tile[0]), int(tile[1])), limit

    def proposal(self, logits: Tensor, weight: Tensor) -> Tensor:
        """Mask logits and bin weights (B, H, T) to the proposal (B, H / rows, T / frames)."""
        if logits.shape[-2] % self.tile[0] or logits.shape[-1] % self.tile[1]:
            raise ValueError(f"mask {tuple(logits.shape[-2:])} is no multiple of tile {self.tile}")
        return torch.sigmoid(self.pool(logits * weight) / self.pool(weight))

    def masks(self, logits: Tensor, mean: Tensor, action: Tensor) -> Tensor:
        """Actions to masks.

        Args:
            logits: (B, H, T).
            mean: (B, h, t) mean of the policy that the actions come from (`BetaPolicy.mean`).
            action: (B, G, h, t).

        Returns:
            (B, G, H, T).
        """
        shift = torch.logit(action) - torch.logit(mean)[:, None]
        shift = nn.functional.interpolate(
            shift.clamp(-self.limit, self.limit),
            size=logits.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        return torch.sigmoid(logits[:, None] + shift)

    def pool(self, weight: Tensor) -> Tensor:
        """Mean of bin weights (B, H, T) over each tile: (B, h, t)."""
        return nn.functional.avg_pool2d(weight, self.tile)
