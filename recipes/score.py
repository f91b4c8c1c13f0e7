"""Stage 7: score what stage 6 separated, beside the untouched mixture and the ideal mask.

Writes `scores/` (per_clip.csv, summary.json, table.md, figures) and prints the tables. With
`launcher=ray` workers share the mixtures; a run that was stopped goes on behind their scores.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import math
import os
import shutil
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import encoders
from encoders.judge import Judge
from sep import cluster, hub
from sep.data.kaldi import SAMPLE_RATE
from sep.device import resolve
from sep.errors import DataError, OptionError
from sep.metrics import baselines, figures, frechet, literature, report, results, scoring
from sep.metrics.bss import Windows
from sep.metrics.evaluation import EvaluationSet
from sep.metrics.listening import Panel
from sep.metrics.scoring import Outputs
from sep.metrics.system import best, estimates, is_refined
from sep.program import guarded, say
from sep.spectrogram import Spectrogram

GUESTS = ("clap", "imagebind", "yamnet")  # options that name the weights of further encoders
PART = 2 * scoring.STEP  # mixtures that a worker of Ray scores at once, in whole batches


def outputs_of(
    kinds: list[str],
    clips: EvaluationSet,
    folders: dict[str, Path],
    systems: list[str],
    grid: Spectrogram,
) -> list[Outputs]:
    """What is given, then what is in each system's folder, by text and by the other `kinds`.

    Those of another kind are in a folder beside that of the text queries, `<folder>-<kind>`; it is
    said where one of `systems` has none.
    """
    mixture, ideal, reference = scoring.given(clips, grid)
    rate = grid.sample_rate
    texts = [scoring.of_folder(s, "text", folder, clips, rate) for s, folder in folders.items()]
    found = [mixture, ideal, *texts, reference]
    for kind in kinds:
        if kind == "text" or not clips.queries(kind)[1].any():
            continue
        for system, folder in folders.items():
            beside = folder.with_name(f"{folder.name}-{kind}")
            if beside.is_dir():
                found.append(scoring.of_folder(system, kind, beside, clips, rate))
            elif system in systems:
                say(f"{system} by {kind}: not separated ({beside} is missing), left out")
    return found


def notes(
    clips: EvaluationSet,
    grid: Spectrogram,
    windows: Windows | None,
    checked: str,
    summaries: dict,
    added: dict[str, str],
) -> str:
    """What the columns and lines of the tables are; `added` says it of columns by name."""
    more = "".join(f"- {name}: {what}.\n" for name, what in added.items())
    stretch = "One window over the clip"
    if windows is not None:
        size, hop = windows.size / SAMPLE_RATE, windows.hop / SAMPLE_RATE
        filters = "each window (v3)" if windows.framewise else "the whole clip (v4)"
        stretch = f"Medians of windows of {size:g} s every {hop:g} s, with the filters of {filters}"
    return f"""\
{len(clips)} fixed mixtures of the {clips.split} split; text queries are the targets' captions.
Mean over mixtures ± standard error; intervals are 95 % bootstrap intervals of the mean. Both allow
for mixtures whose target is of one recording: recordings are drawn, not mixtures.

- mixture: the unprocessed recording. ideal: ideal ratio mask |S| / sum |S| on the separator's
  STFT (n_fft {grid.n_fft}, hop {grid.hop}) with the mixture's phase. control: the supervised model
  trained on, supervised, for the wall-clock time that rl had. reference: the true target.
{more}\
- SDR and ISR (images): museval v4's default; this SDR of a mono signal is
  10 log10(|s|²/|s-e|²). SDR (sources): `bsseval_sources_version=True`, after a 512-tap filter.
  {stretch}; SIR and SAR are the same in both definitions. {checked}
- Similarity and class hits: by the encoder that queries and rewards come from (hits: nearest class
  name), and by a held-out judge that no training signal touched.
- {clips.query_note()}
- {report.undefined_note(summaries)}
"""


# What is said of columns and lines where they are there.
EXPLAINED = {
    "omni": "text, sound and picture together, the weighted mean of their embeddings",
    "ensemble": "the mean of several wordings of the text",
    "negative": "the text, turned away from the captions of what else is in the mixture",
    "CLAP, ImageBind, YAMNet": "cosine of the output with the target's caption and with the true "
    "target, by networks that nothing here was trained on unless the encoder is one of them; to "
    "YAMNet a caption is the classes of AudioSet that it may mean",
    "Frechet distance": "of the encoder's embeddings of all outputs from those of the true "
    "targets, less is better; it shrinks with the number of clips, so compare within one line only",
}


def explained(guests: bool, dim: int, summaries: dict) -> dict[str, str]:
    """Those of `EXPLAINED` that these tables need; `dim` of the encoder's embeddings."""
    needed = [kind for kind in summaries if kind in EXPLAINED]
    needed += ["CLAP, ImageBind, YAMNet"] if guests else []
    found = {name: EXPLAINED[name] for name in needed}
    distances = [e.get("frechet") for entries in summaries.values() for e in entries.values()]
    if any(distances):
        found["Frechet distance"] = EXPLAINED["Frechet distance"]
    else:
        found["Frechet distance"] = (
            f"takes {frechet.needed(dim)} clips or more, as the covariance of fewer "
            f"embeddings of {dim} dimensions is not full"
        )
    return found


def present(separated: Path, systems: list[str]) -> list[str]:
    """The systems that stage 6 separated; the others are named."""
    found = [s for s in systems if (separated / s).is_dir()]
    for system in systems:
        if system not in found:
            say(f"{system}: not separated ({separated / system} is missing), left out")
    return found


def elsewhere(systems: list[Any], taken: list[str]) -> dict[str, Path]:
    """Folders of other systems' outputs by name, from the mappings among `systems`."""
    found: dict[str, Path] = {}
    for entry in systems:
        for name, folder in entry.items() if isinstance(entry, dict) else ():
            if name in (*taken, *found, "mixture", "ideal", "reference"):
                raise OptionError(f"systems: two columns would be called '{name}'; rename one")
            if not Path(str(folder)).is_dir():
                raise DataError(f"{folder}: not a folder; name that of the outputs of {name}")
            found[str(name)] = Path(folder)
    return found


def draw(folder: Path, rows: report.Rows, systems: list[str], pairs: list[tuple[str, str]]) -> None:
    """Write the figures."""
    shown = [s for s in systems if s not in ("mixture", "reference")]
    figures.save(figures.spread(rows, shown), folder / "si_sdri.png")
    figures.save(
        figures.by_class(rows, [s for s in shown if s != "ideal"]), folder / "si_sdri_by_class.png"
    )
    for first, second in pairs:
        shared = [m for m in ("si_sdri", "judge_similarity") if any(m in row for row in rows)]
        for metric in shared:
            name = f"{second}_against_{first}_{metric}.png"
            figures.save(figures.scatter(rows, second, first, metric), folder / name)


def summarise(outputs: list[Outputs], rows: report.Rows, seed: int) -> dict:
    """`report.summary` of the rows, with the Frechet distance to the true targets if it has one."""
    summaries = report.summary(rows, seed)
    reference = next(o for o in outputs if o.system == "reference")
    for o in outputs:
        if o is not reference:
            entry = frechet.distance(o.embedding, reference.embedding[o.has])
            if not math.isnan(entry["mean"]):
                summaries[o.query][o.system]["frechet"] = entry
    return summaries


def compare(
    rows: report.Rows, summaries: dict, pairs: list[list[str]], seed: int
) -> dict[str, dict[tuple[str, str], dict[str, dict[str, float]]]]:
    """`report.compare` by kind of query and by pair."""
    return {
        query: {
            (a, b): report.compare(rows, a, b, query, seed)
            for a, b in pairs
            if {a, b} <= found.keys()
        }
        for query, found in summaries.items()
    }


def tables(
    summaries: dict, paired: dict, systems: list[str], lines: Sequence[literature.Published]
) -> list[str]:
    """All tables of the page; those without content are left out."""
    trained = {
        query: {s: found[s] for s in systems if s in found} for query, found in summaries.items()
    }
    found = [report.score_table(summaries["text"])]
    found += [report.kinds_table(trained), report.kinds_table(trained, "frechet")]
    if lines or len(summaries) > 1:
        found.append(literature.layout(summaries, lines))
    found += [report.paired_table(v, *pair) for pair, v in paired["text"].items()]
    return [table for table in found if table]


class Scorer:
    """Scores any rows of the test set; what Ray's workers do.

    Args:
        cfg: the configuration.
        systems: trained ones; folders: of these and all others, for the text queries.
        device: where networks and BSS Eval run; jobs: threads for BSS Eval.
    """

    def __init__(
        self, cfg: DictConfig, systems: list[str], folders: dict[str, Path], device: str, jobs: int
    ):
        self.cfg, self.systems, self.folders = cfg, systems, folders
        self.exp, self.device, self.jobs = Path(cfg.exp), torch.device(device), jobs
        window_s, hop_s = cfg.bss.window_s, cfg.bss.hop_s
        self.windows = Windows.of_seconds(window_s, hop_s, SAMPLE_RATE, cfg.bss.framewise)
        self.clips = EvaluationSet(cfg.data, cfg.split, self.exp / "queries", samples=cfg.samples)
        self.grid = Spectrogram()
        if systems:
            self.grid = hub.from_pretrained(best(self.exp, systems[0])).spectrogram

    @cached_property
    def listeners(self) -> dict[str, Any]:
        """Encoder, judge, guests and, where one was trained, referee."""
        guests = {}
        for name in GUESTS:
            if weights := self.cfg[name]:
                weights = None if weights == "published" else weights
                guests[name] = encoders.get(name, weights, device=self.device)
        encoder = encoders.load(self.exp / "encoder", device=self.device)
        known = {"encoder": encoder, "guests": guests}
        for name in ("judge", "referee"):
            if name == "judge" or (self.exp / name).is_dir():
                known[name] = Judge.load(self.exp / name).to(self.device)
        return known

    def outputs(self, clips: EvaluationSet) -> list[Outputs]:
        """What there is for some of the mixtures, to be scored."""
        return outputs_of(list(self.cfg.queries), clips, self.folders, self.systems, self.grid)

    def score(self, rows: slice) -> tuple[list[Outputs], float]:
        """All outputs of the rows with their scores, and the largest difference to museval, dB."""
        cfg, clips = self.cfg, self.clips.part(rows)
        outputs, rate = self.outputs(clips), self.grid.sample_rate
        heard = {"sample_rate": rate, "device": self.device, "labels": self.clips.labels}
        panel = Panel(clips, **self.listeners, **heard)
        if panel.unknown:
            more = f" and {len(panel.unknown) - 5} more classes" if len(panel.unknown) > 5 else ""
            names = ", ".join(panel.unknown[:5])
            say(f"judge: never heard {names}{more}: its scores are left out")
        how = {"jobs": self.jobs, "device": self.device, "windows": self.windows}
        scoring.score(clips, outputs, panel, **how, say=say)
        for o in outputs:
            if cfg.absent and o.system in self.systems and o.query == "text":
                o.scores["absent_db"] = self.absent_levels(o.system, rows, clips)
        chosen = scoring.spread(len(self.clips), cfg.check)
        here = [k for k, i in enumerate(range(len(self.clips))[rows]) if i in chosen]
        return outputs, scoring.check_against_museval(clips, outputs, here, self.windows)

    @torch.inference_mode()
    def absent_levels(self, system: str, rows: slice, part: EvaluationSet) -> Tensor:
        """(n,): level of what is found, in dB of the mixture, when a mixture is asked for the next
        mixture's target whose class it does not hold; for the n `rows`, which are `part`."""
        labels, count = self.clips.labels, len(self.clips)
        held = [{m.label, *m.interferer_labels} for m in self.clips.mixtures]
        other = [
            next((k % count for k in range(i, i + count) if labels[k % count] not in held[i]), i)
            for i in range(count)
        ]
        query = self.clips.queries("text")[0][other][rows]
        model = hub.from_pretrained(best(self.exp, system), self.device)
        encoder = self.listeners["encoder"] if is_refined(system) else None
        levels = []
        for here, some in part.parts():
            pair = some.mixture.to(self.device), query[here, None].to(self.device)
            found = estimates(model, encoder, *pair)[:, 0].cpu()
            power = found.square().sum(-1) / some.mixture.square().sum(-1).clamp(min=1e-12)
            levels.append(10 * torch.log10(power.clamp(min=1e-12)))
        return torch.cat(levels)

    def __call__(self, part: cluster.Part) -> None:
        """Write the scores and embeddings of a part."""
        scoring.save(part.outputs[0], *self.score(slice(part.start, part.start + PART)))

    def score_by_ray(self) -> tuple[list[Outputs], float]:
        """As `score` of all rows, in parts that stay in `.scores.part` until the end."""
        cfg, exp, outputs = self.cfg, self.exp, self.outputs(self.clips)
        beside = [f.with_name(f"{f.name}-{k}") for f in self.folders.values() for k in cfg.queries]
        read = [*self.folders.values(), *filter(Path.is_dir, beside), Path(cfg.data) / cfg.split]
        read += [exp / name for name in ("queries", "judge", "encoder")]
        read += filter(Path.is_dir, [exp / "referee"])
        sources = [best(exp, system) / "model.safetensors" for system in self.systems]
        sources += [path for folder in read for path in folder.iterdir()]
        settings = [cfg[k] for k in ("samples", "queries", *GUESTS, "bss", "absent", "check")]
        staging = exp / ".scores.part"
        cluster.stage(staging, sources, f"{settings} {self.systems} {self.folders} {self.device}")
        files = {i: staging / f"{i:08d}.npz" for i in range(0, len(self.clips), PART)}
        parts = [cluster.Part("scores", i, (file,)) for i, file in files.items()]
        device = self.device.type
        prepare = cluster.by_program(__file__, "Scorer", cfg, self.systems, self.folders, device, 1)
        cluster.finish(parts, prepare, cfg.workers, device == "cuda", say)
        return outputs, scoring.load([*files.values()], outputs)


def run(cfg: DictConfig) -> None:
    """Read, score, summarise, write."""
    cluster.check(cfg.launcher)
    exp, device, begun = Path(cfg.exp), resolve(cfg.device), time.perf_counter()
    title, lines = literature.published(cfg.published)
    separated = exp / "separated"
    asked = OmegaConf.to_container(cfg.systems)
    systems = present(separated, [s for s in asked if isinstance(s, str)])
    baselines.check(simple := list(cfg.baselines or []), run=False)
    simple = present(separated, simple)
    others = elsewhere(asked, [*systems, *simple])
    if not (systems or others):
        raise DataError(f"{separated}: holds no results; run stage 6 first")

    folders = {name: separated / name for name in (*simple, *systems)} | others
    jobs = cfg.jobs or len(os.sched_getaffinity(0))
    scorer = Scorer(cfg, systems, folders, device.type, jobs)
    clips, local = scorer.clips, cfg.launcher == "local"
    say(f"{len(clips)} mixtures, {len(folders)} systems beside what is given")
    outputs, worst = scorer.score(slice(None)) if local else scorer.score_by_ray()
    checked = ""
    if cfg.check:
        checked = (
            f"Computed in batches and checked against museval in this run on {cfg.check} clips x "
            f"{sum(o.signal for o in outputs)} outputs: largest difference {worst:.1g} dB."
        )
        say(checked)
    added = {name: baselines.BASELINES[name][1] for name in simple}
    added |= {name: f"outputs of another system, from {folder}" for name, folder in others.items()}
    if cfg.absent:
        added["level when absent"] = (
            "of what is found, under the mixture, when asked by text for another mixture's target"
        )
    if not any("judge_similarity" in o.scores for o in outputs):
        added["judge"] = "was not trained on every class of these mixtures, so it has no lines here"

    if any("referee_similarity" in o.scores for o in outputs):
        added["referee"] = (
            "another judge, trained on the test recordings themselves, which nothing else has heard"
        )
    rows = [row for o in outputs for row in o.rows(clips)]
    summaries = summarise(outputs, rows, cfg.seed)
    paired = compare(rows, summaries, cfg.pairs, cfg.seed)
    guests = any(cfg[name] for name in GUESTS)
    added |= explained(guests, outputs[0].embedding.shape[-1], summaries)
    text = notes(clips, scorer.grid, scorer.windows, checked, summaries, added)
    text += literature.note(title) if lines else ""
    page = "\n\n".join([*tables(summaries, paired, systems, lines), text])

    out = exp / "scores"
    report.write_csv(out / "per_clip.csv", rows)
    report.write_csv(out / "per_class.csv", report.class_rows(rows, cfg.seed))
    named = {q: {f"{a} - {b}": v for (a, b), v in found.items()} for q, found in paired.items()}
    content = {"summary": summaries, "paired": named["text"], "paired_by_query": named}
    report.write_json(out / "summary.json", content)
    report.write_text(out / "table.md", page)
    draw(out, rows, [*summaries["text"]], [*paired["text"]])
    if cfg.results:
        report.write_text(Path(cfg.results), results.page(page, exp, cfg.command))
    shutil.rmtree(exp / ".scores.part", ignore_errors=True)
    say(f"\n{page}\n{out}: written after {time.perf_counter() - begun:.1f} s")


@hydra.main(version_base=None, config_path="conf", config_name="score")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    main()
