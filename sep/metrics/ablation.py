"""Tables and curves of an ablation: settings with several seeds against a control and a base.

Every setting is compared clip by clip. The value of a clip is its mean over the seeds, so intervals
are over the recordings of targets; how far the seeds are apart is a number of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sep.metrics.figures import plt
from sep.metrics.report import Rows, markdown, recordings, select
from sep.metrics.statistics import paired
from sep.train.log import read_log


@dataclass
class Row:
    """What is known of one setting; every list has an entry a seed.

    Attributes:
        folders: of its runs; seconds: their training times.
        scores: rows of every clip.
        control_scores, control_seconds: of the supervised continuations it is compared with.
        start: rows of the model that both were trained on from.
        masks_a_step: masks that a training step scores.
        commands: how the run of the first seed and its control were made.
    """

    masks_a_step: int
    folders: list[Path] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scores: list[Rows] = field(default_factory=list)
    control_seconds: list[float] = field(default_factory=list)
    control_scores: list[Rows] = field(default_factory=list)
    start: Rows = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def gain(self, query: str, metric: str) -> "Difference":
        """Against its control."""
        return difference(self.scores, self.control_scores, query, metric)


@dataclass(frozen=True)
class Difference:
    """One setting against another on one measure.

    Attributes:
        mean, low, high: over mixtures, of the means over seeds; 95 % bootstrap interval over the
            recordings of targets.
        seeds: standard deviation of the seeds' means; NaN for a single seed.
        p: of Wilcoxon's signed-rank test.
    """

    mean: float
    low: float
    high: float
    seeds: float
    p: float

    def text(self, digits: int) -> str:
        """`mean [low, high]` with signs."""
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


def column(rows: Rows, query: str, metric: str) -> np.ndarray:
    """(n,) values of one evaluated model in the order of the clips' ids; NaN where undefined."""
    return np.array([row.get(metric, np.nan) for row in select(rows, "model", query)], float)


def difference(
    first: Sequence[Rows], second: Sequence[Rows], query: str, metric: str
) -> Difference:
    """Compare two settings, the k-th run of one with the k-th of the other.

    Args:
        first, second: rows of each seed's run, over the same clips.
        query: kind of query; metric: name of the measure.
    """
    both = [
        (column(a, query, metric), column(b, query, metric))
        for a, b in zip(first, second, strict=True)
    ]
    over_seeds = [np.mean(runs, 0) for runs in zip(*both, strict=True)]
    found = paired(*over_seeds, groups=recordings(select(first[0], "model", query)))
    means = [np.nanmean(a - b) for a, b in both]
    spread = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
    return Difference(found["mean"], found["low"], found["high"], spread, found["p"])


def table(rows: dict[str, Row], gap: float, base: str = "base") -> str:
    """Markdown table by text queries, a line a row: against its control and against row `base`.

    Args:
        rows: by name.
        gap: held-out similarity of the true targets less that of the mixtures.
    """
    head = ("row", "train s", "of control", "held-out similarity", "% of gap", "SI-SDRi dB")
    head += ("seeds", "similarity - base", "SI-SDRi - base dB", "encoder", "level dB")
    body = []
    for name, row in rows.items():
        meaning, signal = row.gain("text", "judge_similarity"), row.gain("text", "si_sdri")
        cells = [
            name,
            f"{np.mean(row.seconds):.0f}",
            f"{sum(row.seconds) / sum(row.control_seconds):.2f}",
            meaning.text(4),
            f"{100 * meaning.mean / gap:+.1f}",
            signal.text(3),
            f"{meaning.seeds:.4f}, {signal.seeds:.3f}" if len(row.seconds) > 1 else "",
        ]
        for metric, digits in (("judge_similarity", 4), ("si_sdri", 3)):
            known = base in rows and name != base
            against = rows[base].scores if known else []
            cells.append(
                difference(row.scores, against, "text", metric).text(digits) if known else ""
            )
        cells.append(f"{row.gain('text', 'encoder_similarity').mean:+.4f}")
        cells.append(f"{row.gain('text', 'level_db').mean:+.2f}")
        body.append(cells)
    return markdown(head, body)


def kinds_table(rows: dict[str, Row], kinds: Sequence[str]) -> str:
    """Markdown table of the other kinds of query, against the control."""
    head = ["row", *(f"{kind}: {what}" for kind in kinds for what in ("similarity", "SI-SDRi dB"))]
    body = []
    for name, row in rows.items():
        cells = [name]
        for kind in kinds:
            cells.append(row.gain(kind, "judge_similarity").text(4))
            cells.append(row.gain(kind, "si_sdri").text(3))
        body.append(cells)
    return markdown(head, body)


def start_table(rows: dict[str, Row]) -> str:
    """Markdown table of rows and controls against the model they started from, by text."""
    measures = (("judge_similarity", "similarity", 4), ("si_sdri", "SI-SDRi dB", 3))
    head = ["row", *(f"{who} - start: {m[1]}" for who in ("row", "control") for m in measures)]
    body = []
    for name, row in rows.items():
        cells = [name]
        for scores in (row.scores, row.control_scores):
            before = [row.start] * len(scores)
            cells += [difference(scores, before, "text", m[0]).text(m[2]) for m in measures]
        body.append(cells)
    return markdown(head, body)


def efficiency(row: Row, metric: str) -> tuple[list[int], list[float]]:
    """Validation curve of a setting: masks scored so far, and the mean over its runs.

    Args:
        row: its runs' folders hold `log.csv`.
        metric: name of a validation value.
    """
    runs = []
    for folder in row.folders:
        rows = read_log(folder / "log.csv")
        runs.append({step: value for step, name, value in rows if name == f"valid/{metric}"})
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    return (
        [step * row.masks_a_step for step in steps],
        [float(np.mean([run[step] for run in runs])) for step in steps],
    )


def efficiency_table(curves: dict[str, dict[str, tuple[list, list]]], base: str = "base") -> str:
    """Markdown table of the masks scored until the value of row `base` at its end is reached.

    Args:
        curves: as for `draw_curves`.
    """
    head = ["row", *(f"masks to base's {measure}" for measure in curves)]
    body = []
    for name in curves[next(iter(curves))]:
        cells = [name]
        for lines in curves.values():
            wanted = lines[base][1][-1]
            reached = [m for m, value in zip(*lines[name], strict=True) if value >= wanted]
            cells.append(str(reached[0]) if reached else f"above {lines[name][0][-1]}")
        body.append(cells)
    return markdown(head, body)


def draw_curves(curves: dict[str, dict[str, tuple[list, list]]]) -> Figure:
    """A panel a measure, a line a setting: `curves[measure][setting]` is masks and values."""
    figure, panels = plt.subplots(
        1, len(curves), figsize=(5 * len(curves), 4.5), layout="constrained", squeeze=False
    )
    for axes, (measure, lines) in zip(panels[0], curves.items(), strict=True):
        for k, (name, (masks, values)) in enumerate(lines.items()):
            axes.plot(masks, values, "-o" if k < 10 else "--s", ms=3, label=name)
        axes.set(xlabel="masks scored", ylabel=f"validation: {measure}")
    panels[0][-1].legend(fontsize="small", bbox_to_anchor=(1, 1), loc="upper left")
    return figure


def draw_trade(points: dict[str, tuple[Difference, Difference]]) -> Figure:
    """Meaning against signal, a cross a setting: (held-out similarity, SI-SDRi) to the control."""
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for name, (meaning, signal) in points.items():
        low = [[signal.mean - signal.low], [meaning.mean - meaning.low]]
        high = [[signal.high - signal.mean], [meaning.high - meaning.mean]]
        axes.errorbar(
            signal.mean, meaning.mean, xerr=[low[0], high[0]], yerr=[low[1], high[1]], fmt="o", ms=4
        )
        axes.annotate(name, (signal.mean, meaning.mean), xytext=(4, 4), textcoords="offset points")
    axes.axhline(0, lw=0.5, color="black")
    axes.axvline(0, lw=0.5, color="black")
    axes.set(
        xlabel="SI-SDRi less that of the control, dB",
        ylabel="held-out similarity less that of the control",
    )
    return figure
