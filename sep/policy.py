"""The factorised Beta policy over mask values (MARS-Sep, arXiv 2510.10509, section 3)."""

import torch
from torch import Tensor
from torch.distributions import Beta, kl_divergence

_EDGE = 1e-6  # actions stay this far from 0 and 1, where the log-density may be infinite


class BetaPolicy:
    """Independent Beta(1 + kappa P, 1 + kappa (1 - P)) at every entry of a proposal P in [0, 1].

    The mode of the policy is P itself, so deterministic inference uses P. Larger kappa explores
    less. Every method is a pure function of its tensors; random draws use torch's global stream.

    Args:
        kappa: concentration, 9 in the paper.
    """

    def __init__(self, kappa: float = 9.0):
        if not kappa > 0:
            raise ValueError(f"kappa {kappa} must be above 0")
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

    def reparameterised(self, proposal: Tensor) -> Tensor:
        """Draw one action for each entry (B, ...) with a gradient to the proposal: (B, 1, ...).

        Torch's implicit reparameterisation of the Beta distribution (arXiv 1805.08498).
        """
        return self.distribution(proposal).rsample()[:, None].clamp(_EDGE, 1 - _EDGE)

    def log_prob(self, proposal: Tensor, action: Tensor) -> Tensor:
        """Log-density of actions (B, G, ...) under a proposal (B, ...), entry by entry."""
        alpha = (1 + self.kappa * proposal)[:, None]
        beta = self.kappa + 2 - alpha
        normaliser = torch.lgamma(alpha) + torch.lgamma(beta)
        normaliser = normaliser - torch.lgamma(alpha.new_tensor(self.kappa + 2))
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
