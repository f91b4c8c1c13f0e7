"""The factorised Beta policy over mask values (MARS-Sep, arXiv 2510.10509, section 3)."""

import functools

import numpy as np
import torch
from scipy import special
from torch import Tensor, nn
from torch.distributions import Beta

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
        table = tables.squeeze(0)
        places = [normal / _TAIL, (2 * proposal - 1)[:, None]]  # from -1 to 1 along the table
        if len(tables) > 1:
            places.append((2 * level / (len(tables) - 1) - 1)[:, None])
        at = torch.stack([place.expand_as(normal) for place in places], -1)
        read = nn.functional.grid_sample(
            table[None, None],
            at.view(*[1] * table.dim(), -1, table.dim()),
            padding_mode="border",
            align_corners=True,
        )
        return read.view_as(normal).clamp_(_EDGE, 1 - _EDGE)

    def reparameterised(self, proposal: Tensor) -> Tensor:
        """Draw one action for each entry (B, ...) with a gradient to the proposal: (B, 1, ...).

        Torch's implicit reparameterisation of the Beta distribution (arXiv 1805.08498).
        """
        return self.distribution(proposal).rsample()[:, None].clamp(_EDGE, 1 - _EDGE)

    def log_prob(self, proposal: Tensor, action: Tensor) -> Tensor:
        """Log-density of actions (B, G, ...) under a proposal (B, ...), entry by entry."""
        kappa = self.kappa[:, None] if isinstance(self.kappa, Tensor) else self.kappa
        # (alpha - 1) log z + (beta - 1) log(1 - z), ordered for few passes over the actions
        rest = torch.log1p(-action)
        odds, rest = action.log() - rest, kappa * rest
        above_one = (self.kappa * proposal)[:, None]  # alpha - 1
        return torch.addcmul(rest, above_one, odds) - self._normaliser(proposal)[:, None]

    def entropy(self, proposal: Tensor) -> Tensor:
        """Differential entropy in nats, entry by entry."""
        with torch.no_grad():
            alpha, beta, total = self._shape(proposal)
            value = self._normaliser(proposal) + (total - 2) * total.digamma()
            value = value - (alpha - 1) * alpha.digamma() - (beta - 1) * beta.digamma()
            slope = (beta - 1) * beta.polygamma(1) - (alpha - 1) * alpha.polygamma(1)
        return _with_slope(value, self.kappa * slope, proposal)

    def kl(self, proposal: Tensor, other: Tensor) -> Tensor:
        """KL(policy at `proposal` || policy at `other`) in nats, entry by entry.

        Its gradient is that to `proposal` alone.
        """
        if torch.equal(proposal, other):  # as at the first update after a rollout
            return torch.zeros_like(proposal)
        with torch.no_grad():
            alpha, beta, _ = self._shape(proposal)
            apart = self.kappa * (proposal - other)
            value = self._normaliser(other) - self._normaliser(proposal)
            value = value + apart * (alpha.digamma() - beta.digamma())
            slope = apart * (alpha.polygamma(1) + beta.polygamma(1))
        return _with_slope(value, self.kappa * slope, proposal)

    def _shape(self, proposal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, beta and their sum, which does not depend on the proposal."""
        total = torch.as_tensor(self.kappa + 2, dtype=proposal.dtype, device=proposal.device)
        alpha = 1 + self.kappa * proposal
        return alpha, total - alpha, total

    def _normaliser(self, proposal: Tensor) -> Tensor:
        """Logarithm of the Beta function of alpha and beta."""
        alpha, beta, total = self._shape(proposal)
        return alpha.lgamma() + beta.lgamma() - total.lgamma()

    def mean(self, proposal: Tensor) -> Tensor:
        """Mean action at each entry, (1 + kappa P) / (2 + kappa): nearer to 1/2 than the mode."""
        return (1 + self.kappa * proposal) / (2 + self.kappa)

    @staticmethod
    def mode(proposal: Tensor) -> Tensor:
        """The most likely action, the proposal itself."""
        return proposal


def _with_slope(value: Tensor, slope: Tensor, at: Tensor) -> Tensor:
    """`value` with the gradient `slope` to `at`: derivatives of gamma functions cost more."""
    return value + slope * (at - at.detach())
