"""What an action of the mask policy is: one value a bin, or one value a tile of bins."""

import torch
from torch import Tensor, nn

from sep.errors import OptionError
from sep.policy import BetaPolicy


class BinExploration:
    """One Beta action for each bin of the mask: the action is the mask (MARS-Sep)."""

    def proposal(self, logits: Tensor, weight: Tensor) -> Tensor:
        """Mask logits (B, H, T) to the policy's proposal (B, H, T)."""
        return torch.sigmoid(logits)

    def draw(self, policy: BetaPolicy, proposal: Tensor, group: int) -> Tensor:
        """Sample actions (B, G, H, T), independent from bin to bin."""
        rows, *grid = proposal.shape
        return policy.quantile(proposal, torch.randn(rows, group, *grid, device=proposal.device))

    def masks(self, logits: Tensor, mean: Tensor, action: Tensor) -> Tensor:
        """Actions (B, G, H, T) to masks (B, G, H, T)."""
        return action

    def pool(self, weight: Tensor) -> Tensor:
        """Bin weights (B, H, T) to weights of the actions (B, H, T)."""
        return weight


class CopulaExploration(BinExploration):
    """One Beta action for each bin, correlated with its neighbours by a Gaussian copula.

    The normal scores of the bins are white noise on a coarse grid, interpolated bilinearly and
    brought back to unit variance, so that every bin keeps its exact Beta marginal. The joint
    density of bins that share noise is degenerate; the ratio that PPO takes is that of the
    marginals, bin by bin, a composite likelihood.

    Args:
        grid: (rows, columns) of the noise.
    """

    def __init__(self, grid: tuple[int, int] = (16, 16)):
        self.grid = (int(grid[0]), int(grid[1]))

    def draw(self, policy: BetaPolicy, proposal: Tensor, group: int) -> Tensor:
        """Sample actions (B, G, H, T)."""
        noise = torch.randn(len(proposal), group, *self.grid, device=proposal.device)
        down, across = (
            _stretch(size, points).to(noise)
            for size, points in zip(proposal.shape[-2:], self.grid, strict=True)
        )
        return policy.quantile(proposal, down @ noise @ across.T)


def _stretch(size: int, points: int) -> Tensor:
    """Bilinear interpolation (size, points) that keeps the variance of white noise."""
    rows = nn.functional.interpolate(
        torch.eye(points)[None], size=size, mode="linear", align_corners=True
    )[0].T
    return rows / rows.square().sum(1, keepdim=True).sqrt()


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
            raise OptionError(f"mask {tuple(logits.shape[-2:])} is no multiple of tile {self.tile}")
        return torch.sigmoid(self.pool(logits * weight) / self.pool(weight))

    def draw(self, policy: BetaPolicy, proposal: Tensor, group: int) -> Tensor:
        """Sample actions (B, G, h, t), independent from tile to tile."""
        return policy.sample(proposal, group)

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


Exploration = BinExploration | TileExploration


def named(
    name: str, tile: tuple[int, int] = (8, 8), grid: tuple[int, int] = (16, 16)
) -> Exploration:
    """The exploration called `name`: bin, tile (of size `tile`) or copula (noise on `grid`).

    Raises:
        OptionError: an unknown name.
    """
    kinds = {
        "bin": BinExploration,
        "tile": lambda: TileExploration(tile),
        "copula": lambda: CopulaExploration(grid),
    }
    if name not in kinds:
        raise OptionError(f"explore '{name}' is unknown; use {', '.join(kinds)}")
    return kinds[name]()
