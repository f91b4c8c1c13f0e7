"""The scores of several runs on different test sets, such as five folds, as those of one set."""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from sep.errors import DataError, OptionError
from sep.metrics import report
from sep.program import guarded, say


def read(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's `scores/per_clip.csv`, whose ids get the name of the run before them.

    Raises:
        DataError: there are no scores, or a table that is none.
    """
    path = run / "scores" / "per_clip.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run stage 7 first") from None
    if not rows or not {"id", "system", "query", "label"} <= rows[0].keys():
        raise DataError(f"{path}: holds no scores; run stage 7 again")
    try:
        return [
            {k: row[k] for k in ("system", "query", "label", "recording") if k in row}
            | {"id": f"{run.name}/{row['id']}"}
            | {name: float(row[name] or "nan") for name in report.METRICS if name in row}
            for row in rows
        ]
    except (TypeError, ValueError):
        raise DataError(f"{path}: damaged; run stage 7 again") from None


def pool(cfg: DictConfig) -> None:
    """Read all runs, summarise what they have together, write and print the tables."""
    runs = [Path(run) for run in cfg.runs]
    if len({run.name for run in runs}) < max(2, len(runs)):
        raise OptionError(
            "runs: name two or more of different names, such as [exp/fold1,exp/fold2]"
        )
    rows = [row for run in runs for row in read(run)]
    summaries = report.summary(rows, cfg.seed)
    text = [f"{', '.join(str(run) for run in runs)} as one test set.\n"]
    if "text" in summaries:
        text.append(report.score_table(summaries["text"]))
    text.append(report.kinds_table(summaries))
    pairs, systems = {}, {row["system"] for row in rows}
    for first, second in cfg.pairs:
        if {first, second} <= systems:
            found = report.compare(rows, first, second, seed=cfg.seed)
            pairs[f"{first} - {second}"] = found
            text.append(report.paired_table(found, first, second))
    text.append(report.undefined_note(summaries))
    table, out = "\n\n".join(filter(None, text)), Path(cfg.out)
    report.write_csv(out / "per_clip.csv", rows)
    report.write_json(out / "summary.json", {"systems": summaries, "pairs": pairs})
    report.write_text(out / "table.md", table + "\n")
    say(f"{table}\n\n{out}: wrote table.md, summary.json and per_clip.csv")


@hydra.main(version_base=None, config_path="conf", config_name="pool")
def main(cfg: DictConfig) -> None:
    guarded(pool, cfg)


if __name__ == "__main__":
    main()
