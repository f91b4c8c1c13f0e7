"""Score a separator on AudioSep's own evaluation mixtures, by its own two scores.

    python recipes/audiosep.py set=esc50 folder=evaluation/data/esc50 \
      table=evaluation/metadata/esc50_eval.csv

The mixtures, the words and the averages are AudioSep's (`sep.data.audiosep`), so the means stand
beside its published ones: SDR improvement and SI-SDR, mono, at 32 kHz. What a separator of 16 kHz
leaves to the residual counts as missing. Mixtures that are not there are left out, and their number
is said. Writes `exp/<tag>/audiosep/<set>/`: table.md and per_clip.csv.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from sep import audio
from sep.data import audiosep
from sep.errors import DataError, OptionError
from sep.metrics import literature, report
from sep.metrics.statistics import summarise
from sep.program import guarded, say
from sep.separator import Separator

SAMPLE_RATE = 32_000  # of AudioSep
SCORES = {"sdri": "SDRi dB", "si_sdr": "SI-SDR dB", "si_sdri": "SI-SDRi dB"}
SPOKE_S = 5.0  # seconds between two lines of progress


def sdr(estimate: Tensor, reference: Tensor, floor: float = 1e-10) -> float:
    """10 log10 of the powers of reference and error (N,), neither below `floor`.

    This and the next are AudioSep's, floors included, by which silence has a score, too, where it
    has none in `sep.metrics.sisdr`.
    """
    signal, error = (x.double().square().mean().clamp(min=floor) for x in
                     (reference, estimate - reference))  # fmt: skip
    return float(10 * torch.log10(signal / error))


def si_sdr(estimate: Tensor, reference: Tensor) -> float:
    """The scale-invariant one of (N,), float32's rounding unit added to each term."""
    tiny = torch.finfo(torch.float32).eps
    estimate, reference = estimate.double(), reference.double()
    scale = (estimate @ reference + tiny) / (reference @ reference + tiny)
    target = scale * reference
    error = (estimate - target).square().sum()
    return float(10 * torch.log10((target.square().sum() + tiny) / (error + tiny)))


def mono(path: Path) -> Tensor:
    """A recording (N,) at 32 kHz."""
    wave, rate = audio.read(path)
    return audio.resample(wave.mean(0, keepdim=True), rate, SAMPLE_RATE)[0]


def score(separator: Separator, case: audiosep.Case, cfg: DictConfig) -> dict[str, Any]:
    """The scores of a mixture.

    Raises:
        DataError: mixture and target are not of one length.
    """
    mixture, target = mono(case.mixture), mono(case.target)
    if len(mixture) != len(target):
        raise DataError(f"{case.mixture}: {len(mixture)} samples, {case.target} {len(target)}")
    query = separator.query(text=case.text, templates=list(cfg.templates))
    how = {"refine": cfg.refine, "candidates": cfg.candidates}
    found = separator.separate(mixture, SAMPLE_RATE, query=query, **how).target
    before = {"sdr": sdr(mixture, target), "si_sdr": si_sdr(mixture, target)}
    after = {"sdr": sdr(found, target), "si_sdr": si_sdr(found, target)}
    row = {"id": case.id, "text": case.text, "sdr": after["sdr"], "si_sdr": after["si_sdr"]}
    return row | {f"{name}i": after[name] - before[name] for name in after}


def averaged(rows: Sequence[dict[str, Any]], score: str, over: str) -> dict[str, float]:
    """Mean of a score with its error, over clips, or over the means or medians of classes."""
    values = np.array([row[score] for row in rows])
    if over != "clips":
        classes = np.array([row["text"] for row in rows])
        middle = np.mean if over == "classes" else np.median
        values = np.array([middle(values[classes == name]) for name in np.unique(classes)])
    return summarise(values.tolist())


def table(cfg: DictConfig, rows: Sequence[dict[str, Any]], total: int) -> str:
    """Ours beside what AudioSep published, and what the averages are over."""
    over = audiosep.LAYOUTS[cfg.set].over
    means = {name: averaged(rows, name, over) for name in SCORES}
    theirs = dict(zip(SCORES, (*literature.AUDIOSEP[cfg.set], math.nan), strict=True))
    published = [f"{v:.2f}" if math.isfinite(v) else "-" for v in theirs.values()]
    body = [
        [cfg.separator or "shipped", *(report.cell(entry, 2) for entry in means.values())],
        ["AudioSep (published)", *published],
    ]
    lines = {
        "clips": "Means over mixtures",
        "classes": "Means over the means of the classes",
        "medians": "Means over the medians of the classes",
    }
    how = [f"{cfg.candidates} candidates"] * (cfg.candidates > 1) + ["refined queries"] * cfg.refine
    return "\n\n".join([
        report.markdown([f"{cfg.set}, {len(rows)} of {total} mixtures", *SCORES.values()], body),
        f"{lines[over]} ± standard error, mono, at {SAMPLE_RATE} Hz, by text"
        f"{', ' + ' and '.join(how) if how else ''}; SDR is 10 log10(|s|²/|s-e|²).",
    ])  # fmt: skip


def run(cfg: DictConfig) -> None:
    """Separate, score, average, write."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    for name in ("set", "table", "folder"):
        if not cfg[name]:
            raise OptionError(f"{name}=: say which; see recipes/conf/audiosep.yaml")
    cases = audiosep.read(cfg.set, cfg.table, cfg.folder)
    there = [case for case in cases if case.mixture.is_file() and case.target.is_file()]
    if not there:
        raise DataError(f"{cfg.folder}: holds none of the {len(cases)} mixtures of {cfg.set}")
    if len(there) < len(cases):
        say(f"{len(cases) - len(there)} of {len(cases)} mixtures are not there; left out")
    separator = Separator.from_pretrained(cfg.separator, cfg.device)
    if cfg.refine is None:
        cfg.refine = separator.refines
    rows, begun = [], time.monotonic()
    spoke = begun
    for case in there[: cfg.most]:
        rows.append(score(separator, case, cfg))
        if (now := time.monotonic()) - spoke > SPOKE_S:
            left = (now - begun) / len(rows) * (len(there[: cfg.most]) - len(rows))
            say(f"{len(rows)} of {len(there[: cfg.most])} mixtures, {left:.0f} s to go")
            spoke = now
    out = Path(cfg.exp) / "audiosep" / cfg.set
    out.mkdir(parents=True, exist_ok=True)
    text = table(cfg, rows, len(cases))
    report.write_csv(out / "per_clip.csv", rows)
    report.write_text(out / "table.md", text + "\n")
    print(text)
    say(f"{out}: written after {time.monotonic() - begun:.1f} s")


@hydra.main(version_base=None, config_path="conf", config_name="audiosep")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    main()
