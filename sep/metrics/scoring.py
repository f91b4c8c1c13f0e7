"""Every score of every system's outputs for the fixed mixtures, a few mixtures at a time."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sep import audio
from sep.errors import DataError
from sep.filenames import temporary_of
from sep.metrics import bss, bss_torch
from sep.metrics.evaluation import STEP, EvaluationSet, apply_mask, ideal_ratio_mask
from sep.metrics.listening import Panel
from sep.metrics.report import UNBOUNDED_DB
from sep.metrics.sisdr import sdr, si_sdr, si_sdr_improvement
from sep.spectrogram import Spectrogram


@dataclass(eq=False)
class Outputs:
    """What one system makes of the mixtures when asked by one kind of query.

    Attributes:
        system: its name; query: the kind.
        has: (n,) bool, the mixtures that have such a query.
        read: gives (B, N) for B mixtures of `has` by number.
        signal: compare with the true target; not for the true targets themselves.
        scores: (m,) by name for the m mixtures of `has`, filled by `score`; embedding: (m, D).
    """

    system: str
    query: str
    has: Tensor
    read: Callable[[list[int]], Tensor]
    signal: bool = True
    scores: dict[str, Tensor] = field(default_factory=dict)
    embedding: Tensor | None = None

    def waves(self, rows: list[int], samples: int) -> Tensor:
        """(B, N) for mixtures by number, silence where there is no such query."""
        wave = torch.zeros(len(rows), samples)
        given = [k for k, i in enumerate(rows) if self.has[i]]
        if given:
            wave[given] = self.read([rows[k] for k in given])
        return wave

    def rows(self, clips: EvaluationSet) -> list[dict[str, Any]]:
        """One flat row a clip that has such a query."""
        return [
            {"id": clips.ids[i], "system": self.system, "query": self.query}
            | {"label": clips.labels[i], "recording": clips.recordings[i]}
            | {name: float(values[k]) for name, values in self.scores.items()}
            for k, i in enumerate(self.has.nonzero()[:, 0].tolist())
        ]


def of_folder(
    system: str, query: str, folder: Path, clips: EvaluationSet, sample_rate: int
) -> Outputs:
    """A folder of `<mixture id>.wav`; reading raises DataError for files that do not fit."""
    wanted = (1, clips.samples, sample_rate)

    def read(rows: list[int]) -> Tensor:
        waves = []
        for i in rows:
            wave, rate = audio.read(folder / f"{clips.ids[i]}.wav")
            if (*wave.shape, rate) != wanted:
                raise DataError(
                    f"{folder}/{clips.ids[i]}.wav: {len(wave)} channels of {wave.shape[-1]} "
                    f"samples at {rate} Hz, not 1 of {wanted[1]} at {wanted[2]}; make it again "
                    "from the mixture"
                )
            waves.append(wave[0])
        return torch.stack(waves)

    return Outputs(system, query, clips.queries(query)[1], read)


def given(clips: EvaluationSet, grid: Spectrogram) -> list[Outputs]:
    """The mixture, the ideal mask's output and the true target, as of systems asked by text."""
    has = torch.ones(len(clips), dtype=torch.bool)

    def ideal(rows: list[int]) -> Tensor:
        part = clips.part(rows)
        return apply_mask(part.mixture, ideal_ratio_mask(part.sources, grid), grid)

    return [
        Outputs("mixture", "text", has, lambda rows: clips.part(rows).mixture),
        Outputs("ideal", "text", has, ideal),
        Outputs("reference", "text", has, lambda rows: clips.part(rows).sources[:, 0], False),
    ]


def signal_scores(
    sources: Tensor,
    estimates: Tensor,
    jobs: int = 1,
    device: torch.device | str = "cpu",
    windows: bss.Windows | None = None,
) -> dict[str, Tensor]:
    """SI-SDR, SDR, their improvements and BSS Eval in both definitions.

    Args:
        sources: (B, S, N), the target first.
        estimates: (B, E, N) estimates of the target.
        jobs: threads, which change no score.
        device: where BSS Eval runs.
        windows: BSS Eval of these stretches; a clip's score is their median.

    Returns:
        (B, E) by name, in dB.
    """
    reference, mixture = sources[:, :1], sources.sum(1, keepdim=True)
    found = {
        "si_sdr": si_sdr(estimates, reference),
        "si_sdri": si_sdr_improvement(estimates, reference, mixture),
        "sdri": sdr(estimates, reference) - sdr(mixture, reference),
    }
    stacked = (x[:, :, None] for x in (sources, estimates))
    if torch.device(device).type == "cuda":
        stacked = (x.to(device) for x in stacked)
    scores = bss_torch.bss_eval_many(*stacked, jobs, windows=windows)
    return found | {
        name: values if windows is None else torch.from_numpy(bss.median(values.numpy()))
        for name, values in scores.items()
    }


def score(
    clips: EvaluationSet,
    outputs: Sequence[Outputs],
    panel: Panel,
    *,
    jobs: int = 1,
    device: torch.device | str = "cpu",
    windows: bss.Windows | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Fill in the scores and embeddings of all outputs; `say` takes a line every 10 s."""
    compared = [o for o in outputs if o.signal]
    found: dict[Outputs, list[dict[str, Tensor]]] = {o: [] for o in outputs}
    embeddings: dict[Outputs, list[Tensor]] = {o: [] for o in outputs}
    since = time.perf_counter()
    for start in range(0, len(clips), STEP):
        rows = list(range(start, min(start + STEP, len(clips))))
        waves = {o: o.waves(rows, clips.samples) for o in outputs}
        stacked = torch.stack([waves[o] for o in compared], 1)
        signal = signal_scores(clips.part(rows).sources, stacked, jobs, device, windows)
        for o in outputs:
            given = [k for k, i in enumerate(rows) if o.has[i]]
            if given:
                meaning, embedding = panel.hear(waves[o][given], [rows[k] for k in given])
                if o.signal:
                    at = compared.index(o)
                    meaning = {k: v[given, at] for k, v in signal.items()} | meaning
                found[o].append(meaning)
                embeddings[o].append(embedding)
        if time.perf_counter() - since > 10:
            since = time.perf_counter()
            say(f"scored: {rows[-1] + 1} of {len(clips)} mixtures")
    for o in outputs:
        parts = found[o]
        o.scores = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        o.embedding = torch.cat(embeddings[o])


def save(path: Path, outputs: Sequence[Outputs], worst: float) -> None:
    """Write the scores and embeddings of a part of a set, and its difference to museval."""
    found = {json.dumps(["", "", "museval"]): np.array([worst])}
    for o in outputs:
        for name, values in (o.scores | {"embedding": o.embedding}).items():
            found[json.dumps([o.system, o.query, name])] = values.numpy()
    temporary = temporary_of(path)
    with open(temporary, "wb") as file:
        np.savez(file, **found)
    os.replace(temporary, path)


def load(paths: Sequence[Path], outputs: Sequence[Outputs]) -> float:
    """Fill the outputs of a whole set from all its parts in order; their largest difference."""
    found: dict[tuple[str, str], dict[str, list[Tensor]]] = defaultdict(dict)
    for path in paths:
        with np.load(path) as part:
            for key in part.files:
                system, query, name = json.loads(key)
                values = torch.from_numpy(part[key])
                found[system, query].setdefault(name, []).append(values)
    for o in outputs:
        o.scores = {name: torch.cat(parts) for name, parts in found[o.system, o.query].items()}
        o.embedding = o.scores.pop("embedding")
    return float(torch.cat(found["", ""]["museval"]).max())


def spread(total: int, count: int) -> list[int]:
    """`count` numbers at most, evenly from 0 to total - 1."""
    return torch.linspace(0, total - 1, count).round().long().unique().tolist()


def check_against_museval(
    clips: EvaluationSet,
    outputs: Sequence[Outputs],
    chosen: Sequence[int],
    windows: bss.Windows | None = None,
) -> float:
    """Largest difference in dB to museval on the chosen clips, all outputs.

    Ratios above 100 dB are rounding noise in both and are not compared.
    """
    worst = 0.0
    for output in outputs:
        for i in chosen if output.signal else ():
            if not output.has[i]:
                continue
            place = int(output.has[:i].sum())
            target, *others = clips.part([i]).sources[0].numpy()
            estimate = output.waves([i], clips.samples)[0].numpy()
            expected = bss.bss_eval(target, sum(others) if others else None, estimate, windows)
            for name, value in expected.items():
                value = float(bss.median(np.atleast_1d(value)))
                if value < UNBOUNDED_DB:  # false for NaN too
                    worst = max(worst, abs(value - float(output.scores[name][place])))
    return worst
