"""Scores of songs as SiSEC reports them: per stem, the median over songs of medians over windows.

A row is a flat dictionary: `song`, `label` (the stem), `system`, and one number a metric of
`sep.metrics.bss_song.NAMES`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sep.metrics.bss_song import NAMES
from sep.metrics.report import METRICS, markdown
from sep.metrics.statistics import paired, summarise

Rows = Sequence[dict[str, Any]]
TITLES = {"sdr_images": "SDR", "sir": "SIR", "sar": "SAR", "isr_images": "ISR"}  # table order


def median(values: Sequence[float]) -> float:
    """Median of the finite numbers; NaN for none."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def window_medians(windows: dict[str, Tensor]) -> dict[str, list[float]]:
    """Scores (S, W) of each window to the S medians of each source over its defined windows."""
    return {name: [median(source) for source in values] for name, values in windows.items()}


def table(rows: Rows, stems: Sequence[str], mean: bool = False) -> str:
    """Markdown: a line a stem and metric, a column a system, the median over songs.

    Below the stems of a metric stands the mean of their numbers. With `mean`, each line of SDR is
    followed by one of the mean over songs with its standard error.
    """
    systems = list(dict.fromkeys(row["system"] for row in rows))
    body = []
    for name, title in TITLES.items():
        medians = {
            system: [median(_column(rows, system, stem, name)) for stem in stems]
            for system in systems
        }
        for k, stem in enumerate(stems):
            cells = [_number(medians[system][k]) for system in systems]
            body.append([f"{title} {stem}", *cells])
            if mean and name == "sdr_images":
                found = (summarise(_column(rows, system, stem, name)) for system in systems)
                cells = [f"{_number(f['mean'])} ± {_number(f['sem'])}" for f in found]
                body.append(["- mean over songs", *cells])
        cells = [_number(float(np.mean(medians[system]))) for system in systems]
        body.append([f"{title}, mean of the stems", *cells])
    return markdown(["dB", *systems], body)


def pairs_table(rows: Rows, pairs: Sequence[tuple[str, str]]) -> str:
    """Markdown: song by song differences of two systems, of a song's mean over its stems."""
    body = []
    for first, second in pairs:
        for name in TITLES:
            a, b = _by_song(rows, first, name), _by_song(rows, second, name)
            shared = [song for song in a if song in b]
            found = paired([a[song] for song in shared], [b[song] for song in shared])
            if not found["n"]:
                continue
            body.append(
                [
                    f"{first} - {second}, {METRICS[name][0]}",
                    f"{found['mean']:+.2f} ± {_number(found['sem'])}",
                    f"[{_number(found['low'])}, {_number(found['high'])}]",
                    f"{found['p']:.2g}",
                ]
            )
    return markdown(["over songs", "difference", "95 % interval", "p"], body)


def rows_of(
    song: str, system: str, stems: Sequence[str], scores: dict[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """A row a stem; `scores` holds one number a stem."""
    return [
        {"song": song, "label": stem, "system": system}
        | {name: float(scores[name][k]) for name in NAMES}
        for k, stem in enumerate(stems)
    ]


def _column(rows: Rows, system: str, stem: str, name: str) -> list[float]:
    return [row[name] for row in rows if (row["system"], row["label"]) == (system, stem)]


def _by_song(rows: Rows, system: str, name: str) -> dict[str, float]:
    """Mean over the stems of each song; NaN where one is undefined."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["system"] == system:
            found.setdefault(row["song"], []).append(row[name])
    return {song: float(np.mean(values)) for song, values in found.items()}


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "-"
