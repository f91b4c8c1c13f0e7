"""Whether a separator knows how sure it is: calibration of its masks and of its confidence.

The mask P of a bin is read as the probability that the target dominates it, which the ideal binary
mask decides; bins count by their energy.
"""

import torch
from torch import Tensor


def expected_error(mask: Tensor, truth: Tensor, weight: Tensor, bins: int = 10) -> Tensor:
    """Expected calibration error: mean |mean P - share of true bins| over equal ranges of P.

    Args:
        mask: P in [0, 1], truth: 0 or 1, weight: of the bins; all of one shape.
        bins: ranges of P; each counts by its share of the weight.

    Returns:
        A number in [0, 1]; 0 where the weight is 0 everywhere.
    """
    return _gaps(mask, truth, weight, bins).abs().sum()


def _gaps(mask: Tensor, truth: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Sums of P - truth in each range of P (bins,), for a total weight of 1."""
    index = (mask * bins).long().clamp(max=bins - 1).flatten()
    gap = torch.zeros(bins, dtype=torch.float64, device=mask.device)
    gap.index_add_(0, index, (weight * (mask - truth)).double().flatten())
    return gap / weight.double().sum().clamp(min=1e-12)


def brier(mask: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of (P - truth)^2; arguments as in `expected_error`."""
    weight = weight.double()
    return (weight * (mask - truth).square()).sum() / weight.sum().clamp(min=1e-12)


def spearman(first: Tensor, second: Tensor) -> float:
    """Rank correlation of two columns (n,), ties at their mean rank; NaN for a constant one."""
    ranks = torch.stack([_ranks(first), _ranks(second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    """Ranks (n,) from 1; equal values share the mean of theirs."""
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    last = count.cumsum(0)
    return (last - (count - 1) / 2).double()[place]


class Reliability:
    """Reliability of a set of clips, collected clip by clip; each counts as much as any other.

    Confidence of a clip is the mean of |2 P - 1| over its bins, weighted by energy. The calibration
    error is that of the bins of all clips together.

    Args:
        bins: ranges of P of the calibration error.
    """

    def __init__(self, bins: int = 10):
        self.bins = bins
        self._gaps: list[Tensor] = []
        self._brier: list[float] = []
        self._confidence: list[float] = []
        self._quality: list[float] = []

    def add(self, mask: Tensor, magnitude: Tensor, target: Tensor, quality: float) -> None:
        """Take in a clip.

        Args:
            mask: (F, T) of the separator; magnitude, target: (F, T) of mixture and clean target.
            quality: its SI-SDR in dB; clips without one (NaN) are left out.
        """
        if quality != quality:
            return
        truth, energy = (target > 0.5 * magnitude).to(mask), magnitude.square()
        total = energy.sum().clamp(min=1e-12)
        self._gaps.append(_gaps(mask, truth, energy, self.bins).cpu())
        self._brier.append(float(brier(mask, truth, energy)))
        self._confidence.append(float(((2 * mask - 1).abs() * energy).sum() / total))
        self._quality.append(quality)

    def summary(self) -> dict[str, float]:
        """`ece`, means of `brier` and `confidence`, and `spearman` of confidence and quality."""
        columns = {"brier": self._brier, "confidence": self._confidence}
        values = {name: float(torch.tensor(column).mean()) for name, column in columns.items()}
        error = torch.stack(self._gaps).mean(0).abs().sum() if self._gaps else float("nan")
        values = {"ece": float(error)} | values
        pair = torch.tensor(self._confidence), torch.tensor(self._quality)
        enough = len(self._quality) > 1
        return values | {"spearman": spearman(*pair) if enough else float("nan")}
