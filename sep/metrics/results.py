"""The results page of a run: how it was made, on what machine, in what time, with what scores."""

import json
import os
import platform
from pathlib import Path

import torch

from sep import hub
from sep.errors import ModelError

STAGES = (
    "download",
    "prepare data",
    "align the encoder, train the judge",
    "embed queries",
    "train the separator",
    "fine-tune by RL, then its control",
    "separate the test set",
    "score",
)


def machine() -> str:
    """Processor, usable cores, accelerator and versions in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    cores = len(os.sched_getaffinity(0))
    parts = [f"{name}, {cores} core{'s' if cores > 1 else ''}"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts.append(f"Python {platform.python_version()}, torch {torch.__version__}")
    return "; ".join(parts)


def stage_times(log: Path) -> dict[str, float]:
    """Seconds of each finished stage, from the `<number>.seconds` files in the log folder."""
    times = {}
    for number, title in enumerate(STAGES):
        path = log / f"{number}.seconds"
        if path.is_file():
            times[f"{number} {title}"] = float(path.read_text())
    return times


def training_facts(exp: Path) -> list[str]:
    """One line a trained system: seed, steps and training seconds kept with its best model."""
    lines = []
    for folder in sorted(exp.glob("*/best")):
        try:
            facts = hub.read_config(folder)["provenance"]
        except ModelError:
            continue
        shown = {k: v for k, v in facts.items() if isinstance(v, str | int | float)}
        lines.append(f"{folder.parent.name}: {json.dumps(shown)}")
    return lines


def page(tables: str, exp: Path, command: str) -> str:
    """Markdown of a whole run.

    Args:
        tables: the score tables and their notes.
        exp: experiment folder with `log/` and the trained systems.
        command: what made the run.
    """
    lines = ["# Results", "", f"Made by `{command}`.", "", f"Machine: {machine()}.", ""]
    times = stage_times(exp / "log")
    if times:
        lines += ["| stage | seconds |", "| --- | ---: |"]
        lines += [f"| {stage} | {seconds:.0f} |" for stage, seconds in times.items()]
        lines += [f"| together | {sum(times.values()):.0f} |", ""]
    facts = training_facts(exp)
    if facts:
        lines += ["Best checkpoints:", "", *(f"- {line}" for line in facts), ""]
    return "\n".join([*lines, "## Scores", "", tables])
