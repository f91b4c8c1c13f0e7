"""From per-clip rows to a summary, paired comparisons, and the files that hold them.

A row is a flat dictionary: `id`, `system`, `query` (the kind: text, audio or image), `label`, where
it is known the `recording` that the target is of, and one number a metric. Errors and intervals are
over recordings. Every file is written under a temporary name and renamed.
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sep.metrics.folder import score_folder as score_folder
from sep.metrics.statistics import paired, summarise

# name of the column -> title in tables, digits after the point
METRICS = {
    "si_sdr": ("SI-SDR dB", 2),
    "si_sdri": ("SI-SDRi dB", 2),
    "sdr_images": ("SDR (images) dB", 2),
    "sdri": ("SDRi (images) dB", 2),
    "sdr_sources": ("SDR (sources) dB", 2),
    "isr_images": ("ISR (images) dB", 2),
    "sir": ("SIR dB", 2),
    "sar": ("SAR dB", 2),
    "encoder_similarity": ("similarity, encoder", 3),
    "judge_similarity": ("similarity, judge", 3),
    "referee_similarity": ("similarity, referee", 3),
    "clap_text": ("CLAP, text", 3),
    "clap_audio": ("CLAP, true target", 3),
    "imagebind_text": ("ImageBind, text", 3),
    "imagebind_audio": ("ImageBind, true target", 3),
    "yamnet_text": ("YAMNet, text", 3),
    "yamnet_audio": ("YAMNet, true target", 3),
    "encoder_hit": ("class hits, encoder", 3),
    "judge_hit": ("class hits, judge", 3),
    "referee_hit": ("class hits, referee", 3),
    "absent_db": ("level when absent, dB", 1),
    "frechet": ("Frechet distance", 4),  # of all clips together, in summaries only
}
CLASS_RESAMPLES = 1000  # of the bootstrap of a class
UNBOUNDED_DB = 100.0  # a ratio above this is rounding noise, shown as ">100"

Rows = Sequence[dict[str, Any]]


def _metrics(rows: Rows) -> list[str]:
    """The metrics that any of the rows has, in table order."""
    return [name for name in METRICS if any(name in row for row in rows)]


def select(rows: Rows, system: str, query: str) -> list[dict[str, Any]]:
    """Rows of one system under one query kind, sorted by id."""
    chosen = [r for r in rows if r["system"] == system and r["query"] == query]
    return sorted(chosen, key=lambda row: row["id"])


def recordings(rows: Rows) -> list[Any]:
    """What each row's target is of; a clip whose recording is not known is one of its own."""
    return [row.get("recording", row["id"]) for row in rows]


def summary(rows: Rows, seed: int = 0) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """`summary[query][system][metric]` -> the numbers of `statistics.summarise`."""
    result: dict = {}
    for query, system in dict.fromkeys((r["query"], r["system"]) for r in rows):
        chosen = select(rows, system, query)
        groups = recordings(chosen)
        result.setdefault(query, {})[system] = {
            name: summarise([r.get(name) for r in chosen], seed, groups=groups)
            for name in _metrics(chosen)
        }
    return result


def class_rows(rows: Rows, seed: int = 0) -> list[dict[str, Any]]:
    """A row a query kind, system, class and metric, with the numbers of `statistics.summarise`."""
    found = []
    for query, system in dict.fromkeys((r["query"], r["system"]) for r in rows):
        chosen = select(rows, system, query)
        for label in sorted({r["label"] for r in chosen}):
            own = [r for r in chosen if r["label"] == label]
            for name in _metrics(own):
                head = {"query": query, "system": system, "label": label, "metric": name}
                values = [r.get(name) for r in own]
                found.append(head | summarise(values, seed, CLASS_RESAMPLES, recordings(own)))
    return found


def compare(
    rows: Rows, first: str, second: str, query: str = "text", seed: int = 0
) -> dict[str, dict[str, float]]:
    """Paired differences first - second on the clips that both systems have, a metric each."""
    a = {r["id"]: r for r in select(rows, first, query)}
    b = {r["id"]: r for r in select(rows, second, query)}
    shared = [i for i in a if i in b]
    of = recordings([a[i] for i in shared])
    return {
        name: paired([a[i].get(name) for i in shared], [b[i].get(name) for i in shared], seed, of)
        for name in _metrics([*a.values()])
        if any(name in r for r in b.values())
    }


def _number(value: float, digits: int, signed: bool = False) -> str:
    if math.isnan(value):
        return "-"
    if value > UNBOUNDED_DB:
        return f">{UNBOUNDED_DB:.0f}"
    value = round(value, digits) + 0.0  # no "-0.00"
    return f"{value:{'+' if signed else ''}.{digits}f}"


def cell(entry: dict[str, float] | None, digits: int) -> str:
    """`mean ± standard error`, the mean alone where no error is known."""
    if entry is None or math.isnan(entry["mean"]):
        return "-"
    if entry["mean"] > UNBOUNDED_DB:
        return f">{UNBOUNDED_DB:.0f}"
    error = "" if math.isnan(entry["sem"]) else f" ± {_number(entry['sem'], digits)}"
    return _number(entry["mean"], digits) + error


def markdown(header: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table; the first `left` columns are aligned left, the others right."""
    lines = [header, ["---"] * left + ["---:"] * (len(header) - left), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def score_table(entries: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown table of one query kind: a line a metric, a column a system, mean ± s.e.

    Below the means of SI-SDRi stand its median and its 95 % interval.
    """
    systems = list(entries)
    names = [name for name in METRICS if any(name in entry for entry in entries.values())]
    body = []
    for name in names:
        title, digits = METRICS[name]
        body.append([title, *(cell(entries[s].get(name), digits) for s in systems)])
        if name == "si_sdri":
            found = [entries[s].get(name) for s in systems]
            body.append(
                ["- median", *("-" if e is None else _number(e["median"], digits) for e in found)]
            )
            body.append(["- 95 % interval", *(_interval(e, digits) for e in found)])
    return markdown(["", *systems], body)


def _interval(entry: dict[str, float] | None, digits: int, signed: bool = False) -> str:
    if entry is None or math.isnan(entry["low"]):
        return "-"
    return f"[{_number(entry['low'], digits, signed)}, {_number(entry['high'], digits, signed)}]"


def kinds_table(
    summaries: dict[str, dict[str, dict[str, dict[str, float]]]], metric: str = "si_sdri"
) -> str:
    """Markdown table of one metric: a line a query kind, a column a system; "" for no scores."""
    systems = list(dict.fromkeys(s for entries in summaries.values() for s in entries))
    title, digits = METRICS[metric]
    body = []
    for query, entries in summaries.items():
        counts = [entry[metric]["n"] for entry in entries.values() if metric in entry]
        if counts:
            cells = (cell(entries.get(s, {}).get(metric), digits) for s in systems)
            body.append([f"{query} ({max(counts)} clips)", *cells])
    return markdown([f"{title} by query", *systems], body) if body else ""


def paired_table(comparison: dict[str, dict[str, float]], first: str, second: str) -> str:
    """Markdown table of `compare`: mean difference, interval, share of wins, p."""
    body = []
    for name, entry in comparison.items():
        title, digits = METRICS[name]
        if entry["n"] == 0 or math.isnan(entry["mean"]):
            continue
        difference = f"{entry['mean']:+.{digits + 1}f} ± {_number(entry['sem'], digits + 1)}"
        interval = _interval(entry, digits + 1, signed=True)
        body.append(
            [title, difference, interval, f"{100 * entry['wins']:.0f} %", f"{entry['p']:.2g}"]
        )
    header = [f"{first} - {second}", "difference", "95 % interval", f"{first} higher", "p"]
    return markdown(header, body)


def undefined_note(summaries: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """One sentence that counts the clips without a defined score, or says there are none."""
    found = [
        f"{query}/{system}: {worst}"
        for query, entries in summaries.items()
        for system, metrics in entries.items()
        if (worst := max((m["undefined"] for m in metrics.values()), default=0))
    ]
    if not found:
        return "Every clip has a defined score."
    return (
        "Clips with a silent reference or output, or with nothing beside the target (for the SIR), "
        f"have no score and are left out: {', '.join(found)}."
    )


def write_text(path: Path, text: str) -> None:
    """Write a text file by way of a temporary name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_csv(path: Path, rows: Rows) -> None:
    """Write the rows, one line each; the columns are all keys in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    write_text(path, out.getvalue())


def _plain(value: Any) -> Any:
    """NaN and infinities as None, which JSON has."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON; numbers that are not finite become null."""
    write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
