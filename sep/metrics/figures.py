"""Figures of a score run: spread by system, two systems clip by clip, and class by class."""

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sep.metrics.report import METRICS, Rows, select


def save(figure: Figure, path: Path) -> None:
    """Write a PNG by way of a temporary name and close the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    figure.savefig(temporary, format="png", dpi=100)
    plt.close(figure)
    os.replace(temporary, path)


def _finite(rows: Rows, metric: str) -> np.ndarray:
    values = np.array([row.get(metric, np.nan) for row in rows], dtype=np.float64)
    return values[np.isfinite(values)]


def spread(rows: Rows, systems: Sequence[str], metric: str = "si_sdri") -> Figure:
    """Violin of the clips' scores and the mean with its standard error, a column a system."""
    figure, axes = plt.subplots(figsize=(1.5 + 1.3 * len(systems), 4), layout="constrained")
    columns = {s: _finite(select(rows, s, "text"), metric) for s in systems}
    columns = {s: values for s, values in columns.items() if len(values) > 1}
    if columns:
        place = np.arange(len(columns))
        axes.violinplot(list(columns.values()), place, showextrema=False, widths=0.8)
        means = [v.mean() for v in columns.values()]
        errors = [v.std(ddof=1) / np.sqrt(len(v)) for v in columns.values()]
        axes.errorbar(place, means, errors, fmt="o", color="black", capsize=4)
        for x, mean in zip(place, means, strict=True):
            axes.annotate(f"{mean:.2f}", (x, mean), xytext=(7, 3), textcoords="offset points")
        axes.set_xticks(place, list(columns))
        low, high = np.percentile(np.concatenate(list(columns.values())), [0.5, 99])
        axes.set_ylim(low - 1, high + 1)  # long tails would flatten everything else
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_ylabel(METRICS[metric][0])
    axes.set_title("Text queries: clips, mean ± standard error")
    return figure


def scatter(rows: Rows, first: str, second: str, metric: str = "si_sdri") -> Figure:
    """Each clip's score by two systems; points above the diagonal are better in `second`."""
    a = {r["id"]: r.get(metric, np.nan) for r in select(rows, first, "text")}
    b = {r["id"]: r.get(metric, np.nan) for r in select(rows, second, "text")}
    shared = [i for i in a if i in b]
    x, y = np.array([a[i] for i in shared]), np.array([b[i] for i in shared])
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.scatter(x, y, s=12, alpha=0.6)
    shown = np.concatenate([x, y])
    shown = shown[np.isfinite(shown)]
    if len(shown):
        ends = [shown.min(), shown.max()]
        axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.set_xlabel(f"{first}, {METRICS[metric][0]}")
    axes.set_ylabel(f"{second}, {METRICS[metric][0]}")
    axes.set_title(f"The same {len(shared)} mixtures")
    return figure


def by_class(rows: Rows, systems: Sequence[str], metric: str = "si_sdri") -> Figure:
    """Mean score by class of the target, best class on top, a marker a system."""
    chosen = {s: select(rows, s, "text") for s in systems}
    labels = sorted({r["label"] for found in chosen.values() for r in found})
    means = {
        s: [
            values.mean() if len(values := _finite(of_label, metric)) else np.nan
            for of_label in ([r for r in found if r["label"] == label] for label in labels)
        ]
        for s, found in chosen.items()
    }
    counts = [sum(r["label"] == label for r in chosen[systems[-1]]) for label in labels]
    order = np.argsort(np.nan_to_num(means[systems[-1]], nan=-np.inf))
    height = 1.5 + 0.16 * len(labels)
    figure, axes = plt.subplots(figsize=(6.5, height), layout="constrained")
    for system, marker in zip(systems, "so^Dv", strict=False):
        axes.plot(
            np.array(means[system])[order], np.arange(len(labels)), marker, ms=4, label=system
        )
    names = [f"{labels[i]} ({counts[i]})" for i in order]
    axes.set_yticks(np.arange(len(labels)), names, fontsize=7)
    axes.set_ylim(-1, len(labels))
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlabel(METRICS[metric][0])
    figure.legend(loc="outside upper center", ncols=len(systems))
    return figure
