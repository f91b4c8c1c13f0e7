"""What is said of separated recordings: on the way, in a line, in a summary."""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sep.commands.plan import Job
from sep.commands.pool import Outcome
from sep.errors import SepError

if TYPE_CHECKING:
    from sep.results import FileSplit

ABSENT_DB = -40.0  # a target this far below its recording is named as not found
# Less similar than this, a target may not be what was asked for: of 240 test mixtures 8 % of the
# targets that were there, 42 % of those that were not.
ABSENT_SIMILARITY = 0.05


def facts(result: "FileSplit", names: list[str], took: float) -> dict[str, Any]:
    """What a summary holds of a finished recording; undefined numbers are None."""
    columns = (result.similarities, result.mixture_similarities, result.levels_db)
    keys = ("similarity", "mixture_similarity", "level_db")
    rows = zip(names, *columns, strict=True)
    return {
        "duration_s": result.frames / result.sample_rate,
        "sample_rate": result.sample_rate,
        "channels": result.channels,
        "weights": [round(weight, 4) for weight in result.weights],
        "sounds": [
            {
                "query": name,
                **{k: v if math.isfinite(v) else None for k, v in zip(keys, row, strict=True)},
            }
            for name, *row in rows
        ],
        "took_s": round(took, 3),
    }


def line(job: Job, result: "FileSplit", names: list[str], took: float) -> str:
    """What is said of a finished recording."""
    rows = zip(result.mixture_similarities, result.similarities, result.levels_db, strict=True)
    verdicts = [_verdict(*row) for row in rows]
    if len(names) > 1:
        verdicts = [f"{name[:40]}: {text}" for name, text in zip(names, verdicts, strict=True)]
    outputs = " + ".join(str(path) for path in job.outputs)
    seconds = result.frames / result.sample_rate
    return f"{job.source}: {seconds:.1f} s -> {outputs} | {'; '.join(verdicts)} | took {took:.1f} s"


def _verdict(mixture: float, target: float, level_db: float) -> str:
    """Similarities to the query before and after, and a word when it may not be there."""
    if math.isnan(mixture):
        return "silent recording, silent result"
    text = f"similarity to the query: mixture {mixture:.3f}"
    if level_db < ABSENT_DB or math.isnan(target):
        return f"{text}; the sound was hardly found (target at {level_db:.0f} dB of the mixture)"
    text += f", target {target:.3f}"
    if target < ABSENT_SIMILARITY:
        text += f", below {ABSENT_SIMILARITY:g}: the sound may not be in the recording"
    return text


def is_summary(path: str | Path) -> bool:
    """Whether a file is what `write_summary` wrote, so that a new one may replace it."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"done", "skipped", "failed", "files"} <= found.keys()


def write_summary(path: Path, went: list[Outcome]) -> None:
    from sep.filenames import temporary_of

    counts = {s: sum(o.status == s for o in went) for s in ("done", "skipped", "failed")}
    text = json.dumps({**counts, "files": [outcome.summary() for outcome in went]}, indent=1)
    temporary = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SepError(f"--summary {path}: cannot be written ({error.strerror})") from None


def progress(source: Path, rate: int) -> Callable[[int, int], None]:
    """Show how far a recording of several segments is: a line that moves, or one every 5 s."""
    live, shown = sys.stderr.isatty(), [time.monotonic()]

    def show(done: int, total: int) -> None:
        now = time.monotonic()
        if total < 30 * rate or (not live and now - shown[0] < 5):
            return
        shown[0] = now
        end = "\r" if live and done < total else "\n"
        text = f"{source}: {done / rate:.0f} of {total / rate:.0f} s"
        print(text, end=end, file=sys.stderr, flush=True)

    return show
