"""The factorised Beta policy over mask values (MARS-Sep, arXiv 2510.10509, section 3)."""

import functools

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Beta, kl_divergence

from sep.errors import OptionError

_ROWS, _COLUMNS, _TAIL = 129, 257, 5.0  # proposals and normal scores of the table of quantiles
_LEVELS = 4  # tables an octave of 2 + kappa
_EDGE = 1e-6  # actions stay this far from 0 and 1, where the log-density may be infinite


@functools.lru_cache(maxsize=64)
def _quantiles(kappa: float) -> Tensor:
    """Beta quantiles (proposal, normal score) in float32."""
    proposal = np.linspace(0, 1, _ROWS)[:, None]
    probability = special.ndtr(np.linspace(-_TAIL, _TAIL, _COLUMNS))[None]
    values = special.betaincinv(1 + kappa * proposal, 1 + kappa * (1 - proposal), probability)
    return torch.from_numpy(values).float()


def _tables(kappa: float | Tensor) -> tuple[Tensor, Tensor]:
    """Tables of quantiles (levels, proposal, normal score) and where in them each kappa lies.

    Levels are a quarter of an octave of 2 + kappa apart; a single kappa has a table of its own.
    """
    if not isinstance(kappa, Tensor):
        return _quantiles(kappa)[None], torch.zeros(())
    octave = torch.log2(kappa + 2) * _LEVELS
    first, last = int(octave.min().floor()), int(octave.max().ceil())
    levels = [2 ** (level / _LEVELS) - 2 for level in range(first, max(last, first + 1) + 1)]
    return torch.stack([_quantiles(level) for level in levels]), octave - first


class BetaPolicy:
    """Independent Beta(1 + kappa P, 1 + kappa (1 - P)) at every entry of a proposal P in [0, 1].

    The mode of the policy is P itself, so deterministic inference uses P. Larger kappa explores
    less. Every method is a pure function of its tensors; random draws use torch's global stream.

    Args:
        kappa: concentration, 9 in the paper; or a tensor of them (B, ...), one for each entry of
            the proposals that it is used with.
    """

    def __init__(self, kappa: float | Tensor = 9.0):
        lowest = kappa.min() if isinstance(kappa, Tensor) else kappa
        if not lowest > 0:
            raise OptionError(f"kappa {float(lowest):g} must be above 0")
        self.kappa = kappa

    def distribution(self, proposal: Tensor) -> Beta:
        """Beta distribution of each entry of the proposal (any shape)."""
        alpha = 1 + self.kappa * proposal
        return Beta(alpha, self.kappa + 2 - alpha, validate_args=False)

    @torch.no_grad()
    def sample(self, proposal: Tensor, group: int) -> Tensor:
        """Draw actions (B, G, ...) for a proposal (B, ...), G = group."""
        drawn = self.distribution(proposal).sample((group,))
        return drawn.transpose(0, 1).clamp(_EDGE, 1 - _EDGE).contiguous()

    @torch.no_grad()
    def quantile(self, proposal: Tensor, normal: Tensor) -> Tensor:
        """Actions (B, G, ...) whose standard-normal scores are `normal` (B, G, ...).

        The quantile function of the Beta distribution at Phi(normal), from a table that is linear
        between its points, and between kappas where they differ: off by less than 0.002. For noise
        that is already there, and for many entries, where exact sampling is slow.
        """
        tables, level = (part.to(normal) for part in _tables(self.kappa))
        row = (proposal[:, None] * (_ROWS - 1)).expand_as(normal)
        column = ((normal.clamp(-_TAIL, _TAIL) + _TAIL) / (2 * _TAIL) * (_COLUMNS - 1)).contiguous()
        top, left = row.long().clamp(max=_ROWS - 2), column.long().clamp(max=_COLUMNS - 2)
        down, right = row - top, column - left
        at = top * _COLUMNS + left
        flat = tables.flatten()

        def read(at: Tensor) -> Tensor:
            upper = torch.lerp(flat[at], flat[at + 1], right)
            lower = torch.lerp(flat[at + _COLUMNS], flat[at + _COLUMNS + 1], right)
            return torch.lerp(upper, lower, down)

        if len(tables) == 1:
            return read(at).clamp(_EDGE, 1 - _EDGE)
        below = level.long().clamp(max=len(tables) - 2)
        at = at + below[:, None] * _ROWS * _COLUMNS
        above = read(at + _ROWS * _COLUMNS)
        return torch.lerp(read(at), above, (level - below)[:, None]).clamp(_EDGE, 1 - _EDGE)

    def reparameterised(self, proposal: Tensor) -> Tensor:
        """Draw one action for each entry (B, ...) with a gradient to the proposal: (B, 1, ...).

        Torch's implicit reparameterisation of the Beta distribution (arXiv 1805.08498).
        """
        return self.distribution(proposal).rsample()[:, None].clamp(_EDGE, 1 - _EDGE)

    def log_prob(self, proposal: Tensor, action: Tensor) -> Tensor:
        """Log-density of actions (B, G, ...) under a proposal (B, ...), entry by entry."""
        kappa = self.kappa[:, None] if isinstance(self.kappa, Tensor) else self.kappa
        alpha = (1 + self.kappa * proposal)[:, None]
        beta = kappa + 2 - alpha
        normaliser = torch.lgamma(alpha) + torch.lgamma(beta)
        total = torch.as_tensor(kappa + 2, dtype=alpha.dtype, device=alpha.device)
        normaliser = normaliser - torch.lgamma(total)
        return (alpha - 1) * action.log() + (beta - 1) * torch.log1p(-action) - normaliser

    def entropy(self, proposal: Tensor) -> Tensor:
        """Differential entropy in nats, entry by entry."""
        return self.distribution(proposal).entropy()

    def kl(self, proposal: Tensor, other: Tensor) -> Tensor:
        """KL(policy at `proposal` || policy at `other`) in nats, entry by entry."""
        return kl_divergence(self.distribution(proposal), self.distribution(other))

    def mean(self, proposal: Tensor) -> Tensor:
        """Mean action at each entry, (1 + kappa P) / (2 + kappa): nearer to 1/2 than the mode."""
        return (1 + self.kappa * proposal) / (2 + self.kappa)

    @staticmethod
    def mode(proposal: Tensor) -> Tensor:
        """The most likely action, the proposal itself."""
        return proposal
