"""What an action of the mask policy is: a bin, a tile, a cell of the prior, a whole reading."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from sep.errors import OptionError
from sep.model import QueryNet
from sep.policy import BetaPolicy


class BinExploration:
    """One Beta action for each bin of the mask: the action is the mask (MARS-Sep)."""

    def of(self, model: QueryNet, maps: Any, query: Tensor) -> Self:
        """The exploration of mixtures with these `maps` of a network and queries (B, D)."""
        return self

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

    def of(self, model: QueryNet, maps: Any, query: Tensor) -> Self:
        """As for bins."""
        return self

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


class PriorExploration(TileExploration):
    """One Beta action for each cell of the heat map of `sep.networks.prior.PriorNet` (CoPRS).

    The proposal is the heat map itself. An action Z takes its place: the network's decoder makes
    the mask of the heat map H + logit Z - logit E[Z], which for the mean action is the mask of
    inference. Densities are exact; what the decoder does with the cells is part of the environment,
    so that the surrogate teaches the heat map and what it is made from.

    Args:
        tile: (rows, frames) of a cell, the network's stride.
        limit: largest shift of a logit of the heat map.
    """

    def of(self, model: QueryNet, maps: Any, query: Tensor) -> Self:
        """The exploration of these mixtures.

        Raises:
            OptionError: a network without a heat map, or with cells of another size.
        """
        if model.kind != "prior":
            raise OptionError("explore=prior needs a network with a prior: network={kind: prior}")
        if self.tile != (model.stride, model.stride):
            raise OptionError(f"explore=prior needs tile=[{model.stride},{model.stride}]")
        bound = type(self)(self.tile, self.limit)
        bound.model, bound.scene, bound.query = model, maps, query[:, None]
        bound.heat = model.locate(maps, bound.query)  # (B, 1, h, w)
        return bound

    def pool(self, weight: Tensor) -> Tensor:
        """Mean of bin weights (B, H, T) over each cell, the last of which may be narrower."""
        return nn.functional.avg_pool2d(weight, self.tile, ceil_mode=True)

    def proposal(self, logits: Tensor, weight: Tensor) -> Tensor:
        """The heat map (B, h, w)."""
        return torch.sigmoid(self.heat[:, 0])

    def masks(self, logits: Tensor, mean: Tensor, action: Tensor) -> Tensor:
        """Actions (B, G, h, w) to masks (B, G, H, T); arguments as for tiles."""
        shift = torch.logit(action) - torch.logit(mean)[:, None]
        heat = self.heat + shift.clamp(-self.limit, self.limit)
        return torch.sigmoid(self.model.decode(self.scene, self.query, heat))


class ReadingExploration(BinExploration):
    """Two Beta actions a mixture: how open its mask is, and how sharp.

    An action makes of the logits l the mask sigmoid(c l + d), a reading as `sep.candidates` tries
    them. The proposals are sigmoid(m), m the weighted mean logit, and s / (1 + s), s the weighted
    mean of |l|; for an action Z, d is logit Z_0 - logit E[Z_0] and log c logit Z_1 - logit E[Z_1],
    so that the mean action leaves the mask as it is. Densities are exact. Two numbers a mixture are
    so few that a group of masks tells which way to go, even by rewards that say little.

    Args:
        limit: largest |d| and |log c|.
    """

    def __init__(self, limit: float = 2.0):
        self.limit = limit

    def proposal(self, logits: Tensor, weight: Tensor) -> Tensor:
        """Mask logits and bin weights (B, H, T) to the proposal (B, 2, 1)."""
        total = weight.sum((1, 2)).clamp(min=1e-8)
        level = (weight * logits).sum((1, 2)) / total
        spread = (weight * logits.abs()).sum((1, 2)) / total
        return torch.stack([torch.sigmoid(level), spread / (1 + spread)], 1)[..., None]

    def draw(self, policy: BetaPolicy, proposal: Tensor, group: int) -> Tensor:
        """Sample actions (B, G, 2, 1), independent of each other."""
        return policy.sample(proposal, group)

    def masks(self, logits: Tensor, mean: Tensor, action: Tensor) -> Tensor:
        """Actions (B, G, 2, 1) to masks (B, G, H, T); arguments as for tiles."""
        shift = torch.logit(action) - torch.logit(mean)[:, None]
        offset, stretch = shift.clamp(-self.limit, self.limit).unbind(2)  # (B, G, 1) each
        return torch.sigmoid(stretch[..., None].exp() * logits[:, None] + offset[..., None])

    def pool(self, weight: Tensor) -> Tensor:
        """Both actions of a mixture count alike: (B, H, T) to ones (B, 2, 1)."""
        return weight.new_ones(len(weight), 2, 1)


Exploration = BinExploration | TileExploration


def named(
    name: str, tile: tuple[int, int] = (8, 8), grid: tuple[int, int] = (16, 16)
) -> Exploration:
    """The exploration called `name`: bin, tile, prior (of size `tile`), copula (`grid`), reading.

    Raises:
        OptionError: an unknown name.
    """
    kinds = {
        "bin": BinExploration,
        "tile": lambda: TileExploration(tile),
        "copula": lambda: CopulaExploration(grid),
        "prior": lambda: PriorExploration(tile),
        "reading": ReadingExploration,
    }
    if name not in kinds:
        raise OptionError(f"explore '{name}' is unknown; use {', '.join(kinds)}")
    return kinds[name]()
