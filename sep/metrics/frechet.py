"""Frechet audio distance: how far a set of sounds is from another, by Gaussians of embeddings.

Reference: Kilgour et al., "Frechet Audio Distance", arXiv 1812.08466.
"""

import numpy as np
from scipy.linalg import qr, svdvals
from torch import Tensor


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two sets of embeddings (n, D) and (m, D).

    The root's trace is the sum of the singular values of A1 A2', with Si = Ai' Ai and Ai the
    centred embeddings over sqrt(n - 1): real and not negative whatever the rank, where a matrix
    square root of the product has to be cleaned of complex parts.

    Returns:
        0 or more; NaN where a set has fewer than two members.
    """
    first, second = (np.asarray(x, dtype=np.float64) for x in (first, second))
    if min(len(first), len(second)) < 2:
        return float("nan")
    roots = [_root(x) for x in (first, second)]
    spread = sum(float(np.square(root).sum()) for root in roots)
    shared = float(svdvals(roots[0] @ roots[1].T).sum())
    mean = float(np.square(first.mean(0) - second.mean(0)).sum())
    return max(mean + spread - 2 * shared, 0.0)  # rounding may leave a little less


def _root(x: np.ndarray) -> np.ndarray:
    """A (min(n, D), D) with A' A = the sample covariance of (n, D)."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return qr(centred, mode="r", check_finite=False)[0][: min(x.shape)]


def needed(dim: int) -> int:
    """Clips below which a set of D-dimensional embeddings has no full covariance."""
    return dim + 1


def distance(estimates: Tensor, references: Tensor) -> dict[str, float]:
    """Distance of separated sounds to the true ones, as an entry of a summary.

    Args:
        estimates, references: (n, D) embeddings; rows of silence, which are NaN, are left out.

    Returns:
        `n` clips of the smaller set; `undefined`, the other estimates; and `mean`, the distance:
        NaN where `n` is below `needed`, as it then is mostly the bias of small sets. A distance of
        two sets has no error, median or interval of clips: these are NaN.
    """
    sets = [x[x.isfinite().all(-1)].double().cpu().numpy() for x in (estimates, references)]
    count = min(len(x) for x in sets)
    enough = count >= needed(estimates.shape[-1])
    value = frechet_distance(*sets) if enough else float("nan")
    entry = {"n": count, "undefined": len(estimates) - count, "mean": value}
    return entry | dict.fromkeys(("sem", "median", "low", "high"), float("nan"))
