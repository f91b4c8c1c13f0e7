"""What a column of per-clip scores says: mean, standard error, median, interval, paired test.

Clips without a defined score (NaN, or an infinite one) are left out and counted. Intervals are
95 % percentile bootstrap intervals of the mean, seeded.

Mixtures that share a recording are not independent: what is hard to find is so in each of them.
With `groups`, such as the target's recording of every mixture, whole groups are drawn by the
bootstrap (Field and Welsh, "Bootstrapping clustered data", 2007), and standard errors allow for
them likewise.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import linregress, pearsonr, t, wilcoxon

RESAMPLES = 5000


def bootstrap_interval(
    values: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean.

    Args:
        values: (n,) finite numbers.
        seed: of the resampling.
        resamples: number of bootstrap means.
        groups: (n,) what each number belongs to; None for a group each.

    Returns:
        Lower and upper end; NaN for no values.
    """
    if len(values) == 0:
        return float("nan"), float("nan")
    total, count = _by_group(values, groups)
    draw = np.random.default_rng(seed).integers(len(total), size=(resamples, len(total)))
    means = total[draw].sum(axis=1) / count[draw].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def standard_error(values: np.ndarray, groups: Sequence[Hashable] | None = None) -> float:
    """Standard error of the mean of values (n,): NaN for a single value or group.

    sqrt(G / (G - 1) sum_g e_g^2) / n with e_g the sum of a group's deviations from the mean and G
    groups; with a group each that is the sample standard deviation / sqrt n.
    """
    if len(values) == 0:
        return float("nan")
    apart, _ = _by_group(values - values.mean(), groups)
    if len(apart) < 2:
        return float("nan")
    return float(np.sqrt(len(apart) / (len(apart) - 1) * np.square(apart).sum()) / len(values))


def _by_group(
    values: np.ndarray, groups: Sequence[Hashable] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each group (G,), in the order of their first value."""
    if groups is None:
        return values, np.ones(len(values))
    order = {group: k for k, group in enumerate(dict.fromkeys(groups))}
    place = np.array([order[group] for group in groups], dtype=int)
    return np.bincount(place, values), np.bincount(place).astype(float)


def summarise(
    values: Sequence[float],
    seed: int = 0,
    resamples: int = RESAMPLES,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """Mean, standard error, median and interval.

    Args:
        values: scores, one a clip; None and numbers that are not finite are counted and left out.
        seed, resamples: of the bootstrap.
        groups: which clips belong together, one a clip; None for a group each.

    Returns:
        `n`, `groups` (how many), `undefined`, `mean`, `sem`, `median`, `low`, `high`.
    """
    values = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    known = np.isfinite(values)
    finite = values[known]
    if groups is not None:
        groups = [group for group, kept in zip(groups, known, strict=True) if kept]
    count = len(finite)
    low, high = bootstrap_interval(finite, seed, resamples, groups)
    return {
        "n": count,
        "groups": count if groups is None else len(set(groups)),
        "undefined": len(values) - count,
        "mean": float(finite.mean()) if count else float("nan"),
        "sem": standard_error(finite, groups),
        "median": float(np.median(finite)) if count else float("nan"),
        "low": low,
        "high": high,
    }


def paired(
    first: Sequence[float],
    second: Sequence[float],
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, float]:
    """Clip-by-clip difference first - second with its interval and Wilcoxon's p-value.

    Args:
        first: scores of one system, one a clip.
        second: scores of the other on the same clips in the same order.
        seed: of the bootstrap.
        groups: as for `summarise`.

    Returns:
        `summarise` of the differences, with `wins` (share of clips where the first is higher, ties
        half) and `p` (two-sided Wilcoxon signed-rank, of the means of groups; 1 where all
        differences are zero).
    """
    if len(first) != len(second):
        raise ValueError(f"paired scores need the same clips: {len(first)} and {len(second)}")
    columns = [np.array([np.nan if v is None else v for v in x], float) for x in (first, second)]
    with np.errstate(invalid="ignore"):
        difference = columns[0] - columns[1]
    known = np.isfinite(difference)
    finite = difference[known]
    own = None if groups is None else [g for g, kept in zip(groups, known, strict=True) if kept]
    total, count = _by_group(finite, own)
    p = float(wilcoxon(total / count).pvalue) if np.any(total != 0) else 1.0
    wins = float(np.mean((finite > 0) + 0.5 * (finite == 0))) if len(finite) else float("nan")
    return {**summarise(difference, seed, groups=groups), "wins": wins, "p": p}


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
