"""The clipped surrogate of PPO on mask actions, with the diagnostics that show whether it works.

Equation 8 of MARS-Sep (arXiv 2510.10509) after Schulman et al. (arXiv 1707.06347), as a loss:

    L = -E[min(r A, clip(r, 1 - eps, 1 + eps) A)],  r = pi(action) / pi_old(action).

The ratio is taken entry by entry of the action (`bin`), once a frame as the exponential of the
mean log-ratio over its rows (`frame`), or once a mask as that over all entries (`mean`). The
product over all entries is never formed: over tens of thousands of bins it leaves the range of
floating point after one update. With a single update a rollout r is 1, nothing is clipped, and
what remains is a normalised policy gradient.
"""

import torch
from torch import Tensor

from sep.errors import OptionError


def clipped_surrogate(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    weight: Tensor,
    clip: float = 0.2,
    ratio: str = "bin",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped policy loss.

    Args:
        log_prob, old_log_prob: (B, G, h, t) log-densities of the actions now and at rollout.
        advantage: (B, G) or (B, G, t), one a mask or one a frame.
        weight: (B, h, t) importance of the action entries; normalised to mean 1 a mixture here.
        clip: eps.
        ratio: `bin`, `frame` or `mean`.

    Returns:
        The loss to minimise, and detached ratio_min, ratio_max, approx_kl (Schulman's k3, nats an
        entry) and clip_fraction.

    Shapes: B batch, G masks a mixture, (h, t) grid of the action.
    """
    weight = (weight / weight.mean((-2, -1), keepdim=True))[:, None]
    advantage = advantage[:, :, None, :] if advantage.dim() == 3 else advantage[..., None, None]
    log_ratio = log_prob - old_log_prob
    if ratio == "mean":
        log_ratio = (weight * log_ratio).mean((-2, -1), keepdim=True)
        advantage = advantage.mean(-1, keepdim=True)
        weight = torch.ones_like(log_ratio)
    elif ratio == "frame":
        column = weight.mean(-2, keepdim=True)
        log_ratio = (weight * log_ratio).mean(-2, keepdim=True) / column.clamp(min=1e-8)
        weight = column
    elif ratio != "bin":
        raise OptionError(f"ratio '{ratio}' is unknown; use bin, frame or mean")
    r = log_ratio.exp()
    # the minimum of both products, as a limit on r from the side that the sign of A says
    low = torch.where(advantage < 0, 1 - clip, 0.0)
    high = torch.where(advantage < 0, float("inf"), 1 + clip)
    gain = (weight * r.clamp(low, high)).mean(-2, keepdim=True) * advantage
    with torch.no_grad():
        lowest, highest = r.aminmax()
        diagnostics = {
            "ratio_min": lowest,
            "ratio_max": highest,
            "approx_kl": (r - 1 - log_ratio).mean(),
            "clip_fraction": ((r - 1).abs() > clip).float().mean(),
        }
    return -gain.mean(), diagnostics
