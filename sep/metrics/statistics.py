"""What a column of per-clip scores says: mean, standard error, median, interval, paired test.

Clips without a defined score (NaN, or an infinite one) are left out and counted. Intervals are
95 % percentile bootstrap intervals of the mean over clips, seeded.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import linregress, pearsonr, t, wilcoxon

RESAMPLES = 5000


def bootstrap_interval(
    values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean.

    Args:
        values: (n,) finite numbers.
        seed: of the resampling.
        resamples: number of bootstrap means.

    Returns:
        Lower and upper end; NaN for no values.
    """
    if len(values) == 0:
        return float("nan"), float("nan")
    draw = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[draw].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def summarise(
    values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, float]:
    """Mean, standard error (sample standard deviation / sqrt n), median and interval.

    Args:
        values: scores, one a clip; None and numbers that are not finite are counted and left out.
        seed, resamples: of the bootstrap.

    Returns:
        `n`, `undefined`, `mean`, `sem`, `median`, `low`, `high`.
    """
    values = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    finite = values[np.isfinite(values)]
    count = len(finite)
    low, high = bootstrap_interval(finite, seed, resamples)
    return {
        "n": count,
        "undefined": len(values) - count,
        "mean": float(finite.mean()) if count else float("nan"),
        "sem": float(finite.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan"),
        "median": float(np.median(finite)) if count else float("nan"),
        "low": low,
        "high": high,
    }


def paired(first: Sequence[float], second: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Clip-by-clip difference first - second with its interval and Wilcoxon's p-value.

    Args:
        first: scores of one system, one a clip.
        second: scores of the other on the same clips in the same order.
        seed: of the bootstrap.

    Returns:
        `summarise` of the differences, with `wins` (share of clips where the first is higher, ties
        half) and `p` (two-sided Wilcoxon signed-rank; 1 where all differences are zero).
    """
    if len(first) != len(second):
        raise ValueError(f"paired scores need the same clips: {len(first)} and {len(second)}")
    columns = [np.array([np.nan if v is None else v for v in x], float) for x in (first, second)]
    with np.errstate(invalid="ignore"):
        difference = columns[0] - columns[1]
    finite = difference[np.isfinite(difference)]
    p = float(wilcoxon(finite).pvalue) if np.any(finite != 0) else 1.0
    wins = float(np.mean((finite > 0) + 0.5 * (finite == 0))) if len(finite) else float("nan")
    return {**summarise(difference, seed), "wins": wins, "p": p}


def correlation(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Pearson correlation and least-squares line of y on x, with 95 % intervals.

    Args:
        x, y: (n,) values of the same clips; pairs that are not finite are left out.

    Returns:
        `n`, `r`, `r_low`, `r_high` (Fisher's z), `slope`, `slope_low`, `slope_high` (Student's t)
        and `intercept`; NaN for fewer than four pairs or a constant x or y.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    names = ("r", "r_low", "r_high", "slope", "slope_low", "slope_high", "intercept")
    if len(x) < 4 or not np.ptp(x) or not np.ptp(y):
        return {"n": len(x)} | dict.fromkeys(names, float("nan"))
    found, line = pearsonr(x, y), linregress(x, y)
    interval, half = found.confidence_interval(0.95), t.ppf(0.975, len(x) - 2) * line.stderr
    values = (found.statistic, interval.low, interval.high)
    values += (line.slope, line.slope - half, line.slope + half, line.intercept)
    return {"n": len(x)} | {k: float(v) for k, v in zip(names, values, strict=True)}
