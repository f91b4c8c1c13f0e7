"""Stage 7: score what stage 6 separated, beside the untouched mixture and the ideal mask.

Writes `scores/` (per_clip.csv, summary.json, table.md, figures) and prints the tables. With
`launcher=ray` workers share the mixtures; a run that was stopped goes on behind their scores.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor

import encoders
from encoders.judge import Judge
from sep import audio, cluster, hub
from sep.audio import temporary_of
from sep.data.kaldi import SAMPLE_RATE
from sep.device import resolve
from sep.errors import DataError, OptionError
from sep.metrics import baselines, bss, bss_torch, figures, report, results, semantic
from sep.metrics.evaluation import EvaluationSet, apply_mask, ideal_ratio_mask
from sep.metrics.sisdr import si_sdr, si_sdr_improvement
from sep.program import guarded, say
from sep.spectrogram import Spectrogram

CLASS_WORDING = "the sound of {}"
PART = 32  # mixtures that a worker of Ray scores at once; of the batches' sizes a multiple


def read_estimates(folder: Path, clips: EvaluationSet, rows: list[int]) -> Tensor:
    """Read a system's files for the mixtures `rows`: (len(rows), N)."""
    waves, wanted = [], (1, clips.mixture.shape[-1], SAMPLE_RATE)
    for i in rows:
        wave, rate = audio.read(folder / f"{clips.ids[i]}.wav")
        if (*wave.shape, rate) != wanted:
            raise DataError(
                f"{folder}/{clips.ids[i]}.wav: {len(wave)} channels of {wave.shape[-1]} samples at "
                f"{rate} Hz, not 1 of {wanted[1]} at {wanted[2]}; make it again from the mixture"
            )
        waves.append(wave[0])
    return torch.stack(waves)


def text_estimates(
    folders: dict[str, Path], clips: EvaluationSet, grid: Spectrogram
) -> dict[str, Tensor]:
    """The mixture, the ideal mask's output and every system's text-query outputs, (n, N) each."""
    batch = range(0, len(clips), 16)
    ideal = [
        apply_mask(
            clips.mixture[i : i + 16], ideal_ratio_mask(clips.sources[i : i + 16], grid), grid
        )
        for i in batch
    ]
    rows = list(range(len(clips)))
    return {"mixture": clips.mixture, "ideal": torch.cat(ideal)} | {
        system: read_estimates(folder, clips, rows) for system, folder in folders.items()
    }


def signal_scores(
    clips: EvaluationSet, estimates: dict[str, Tensor], jobs: int, device: torch.device
) -> dict[str, dict[str, Tensor]]:
    """`scores[system][metric]` (n,): SI-SDR, its improvement and BSS Eval in both definitions."""
    stacked = torch.stack(list(estimates.values()), dim=1)  # (n, E, N)
    reference = clips.sources[:, :1]
    found = {
        "si_sdr": si_sdr(stacked, reference),
        "si_sdri": si_sdr_improvement(stacked, reference, clips.mixture[:, None]),
    }
    parts, since, step = [], time.perf_counter(), 40
    for start in range(0, len(clips), step):
        part = slice(start, start + step)
        references, given = clips.sources[part, :, None], stacked[part, :, None]
        if device.type == "cuda":
            references, given = references.to(device), given.to(device)
        parts.append(bss_torch.bss_eval_many(references, given, jobs))
        if time.perf_counter() - since > 5:
            since = time.perf_counter()
            say(f"BSS Eval: {min(start + step, len(clips))} of {len(clips)}")
    found |= {name: torch.cat([part[name] for part in parts]) for name in bss.NAMES}
    return {
        system: {name: values[:, e] for name, values in found.items()}
        for e, system in enumerate(estimates)
    }


def check_against_museval(
    clips: EvaluationSet, estimates: dict[str, Tensor], scores: dict, chosen: list[int]
) -> float:
    """Largest difference in dB to museval on the chosen clips, all systems.

    Ratios above 100 dB are rounding noise in both and are not compared.
    """
    worst = 0.0
    for system, waves in estimates.items():
        for i in chosen:
            target, *others = clips.sources[i].numpy()
            residual = clips.mixture[i] - waves[i]
            expected = bss.bss_eval(target, sum(others), waves[i].numpy(), residual.numpy())
            for name, value in expected.items():
                if value < report.UNBOUNDED_DB:  # false for NaN too
                    worst = max(worst, abs(value - float(scores[system][name][i])))
    return worst


@functools.cache
def listeners(exp: Path, device: torch.device) -> tuple[encoders.Encoder, Judge]:
    """The encoder and the judge of an experiment."""
    encoder = encoders.load(exp / "encoder", device=device)
    return encoder, Judge.load(exp / "judge").to(device)


def semantic_scores(
    exp: Path,
    clips: EvaluationSet,
    sounds: dict[str, Tensor],
    rate: int,
    device: torch.device,
    labels: set[str],
) -> dict[str, dict[str, Tensor]]:
    """`scores[system][metric]` (n,): similarity and class hits by the encoder and the judge.

    The judge is left out where it does not know all `labels`, those of the whole test set.
    """
    encoder, judge = listeners(exp, device)
    unknown = sorted(labels - set(judge.labels))
    if unknown:
        say(f"judge: never heard {', '.join(unknown)}: its scores are left out")
    names = sorted({*labels, *judge.labels})
    label = torch.tensor([names.index(name) for name in clips.labels])
    with torch.no_grad():
        classes = encoder.embed_text([CLASS_WORDING.format(name) for name in names]).cpu()
    query, _ = clips.queries("text")
    scores = {}
    for system, waves in sounds.items():
        since = time.perf_counter()
        waves = waves.to(device)
        embedding = semantic.embed(encoder, waves, rate).cpu()
        found = semantic.encoder_scores(embedding, query, classes, label)
        if not unknown:
            found |= semantic.judge_scores(judge, waves, rate, clips.labels)
        scores[system] = {name: values.cpu() for name, values in found.items()}
        say(f"meaning of {system}: {time.perf_counter() - since:.1f} s")
    return scores


@torch.inference_mode()
def absent_levels(
    exp: Path,
    clips: EvaluationSet,
    part: EvaluationSet,
    rows: slice,
    systems: list[str],
    device: torch.device,
    batch: int = 16,
) -> dict[str, dict[str, Tensor]]:
    """`scores[system]["absent_db"]` (n,): level of what is found, in dB of the mixture, when a
    mixture is asked for the next mixture's target whose class it does not hold; for the `rows` of
    `clips`, which are `part`."""
    held = [{m.label, *m.interferer_labels} for m in clips.mixtures]
    count = len(clips)
    other = [
        next((k % count for k in range(i, i + count) if clips.labels[k % count] not in held[i]), i)
        for i in range(count)
    ]
    query, _ = clips.queries("text")
    scores = {}
    for system in systems:
        model = hub.from_pretrained(exp / system / "best", device)
        levels = []
        for mixture, asked in zip(
            part.mixture.split(batch), query[other][rows].split(batch), strict=True
        ):
            found = model.separate(mixture.to(device), asked.to(device)).cpu()
            power = found.square().sum(-1) / mixture.square().sum(-1).clamp(min=1e-12)
            levels.append(10 * torch.log10(power.clamp(min=1e-12)))
        scores[system] = {"absent_db": torch.cat(levels)}
    return scores


def rows_of(
    clips: EvaluationSet, index: list[int], system: str, query: str, scores: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """One row a clip; `scores` are (len(index),) each."""
    return [
        {"id": clips.ids[i], "system": system, "query": query, "label": clips.labels[i]}
        | {name: float(values[k]) for name, values in scores.items()}
        for k, i in enumerate(index)
    ]


def kind_scores(
    separated: Path, systems: list[str], kind: str, clips: EvaluationSet
) -> dict[str, dict[str, Tensor]]:
    """SI-SDR and its improvement by system, of the mixtures that have this kind of query."""
    index, scores = clips.queries(kind)[1].nonzero()[:, 0].tolist(), {}
    for system in systems if index else []:
        estimate = read_estimates(separated / f"{system}-{kind}", clips, index)
        reference, mixture = clips.sources[index, 0], clips.mixture[index]
        scores[system] = {
            "si_sdr": si_sdr(estimate, reference),
            "si_sdri": si_sdr_improvement(estimate, reference, mixture),
        }
    return scores


def notes(
    clips: EvaluationSet,
    grid: Spectrogram,
    checked: str,
    summaries: dict,
    added: dict[str, str],
) -> str:
    """What the columns and lines of the tables are; `added` says it of columns by name."""
    more = "".join(f"- {name}: {what}.\n" for name, what in added.items())
    return f"""\
{len(clips)} fixed mixtures of the {clips.split} split; text queries are the targets' captions.
Mean ± standard error over mixtures; intervals are 95 % bootstrap intervals of the mean.

- mixture: the unprocessed recording. ideal: ideal ratio mask |S| / sum |S| on the separator's
  STFT (n_fft {grid.n_fft}, hop {grid.hop}) with the mixture's phase. control: the supervised model
  trained on, supervised, for the wall-clock time that rl had. reference: the true target.
{more}\
- SDR and ISR (images): museval v4's default; this SDR of a mono signal is
  10 log10(|s|²/|s-e|²). SDR (sources): `bsseval_sources_version=True`, after a 512-tap filter.
  One window over the clip; SIR and SAR are the same in both definitions. {checked}
- Similarity and class hits: by the encoder that queries and rewards come from (hits: nearest class
  name), and by a held-out judge that no training signal touched.
- {clips.query_note()}
- {report.undefined_note(summaries)}
"""


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


class Scorer:
    """Scores of any rows of the test set; what Ray's workers do.

    Args:
        cfg: the configuration.
        systems: trained ones; folders: of these and all others, for the text queries.
        jobs: threads for BSS Eval.
    """

    def __init__(
        self, cfg: DictConfig, systems: list[str], folders: dict[str, Path], device: str, jobs: int
    ):
        self.cfg, self.systems, self.folders = cfg, systems, folders
        self.exp, self.device, self.jobs = Path(cfg.exp), torch.device(device), jobs
        self.clips = EvaluationSet(cfg.data, cfg.split, self.exp / "queries", samples=cfg.samples)
        self.grid = Spectrogram()
        if systems:
            self.grid = hub.from_pretrained(self.exp / systems[0] / "best").spectrogram

    def scores(self, rows: slice) -> dict[str, dict[str, dict[str, Tensor]]]:
        """`scores[query][system][metric]`, a value for each row that has such a query."""
        cfg, grid, clips = self.cfg, self.grid, self.clips.part(rows)
        estimates = text_estimates(self.folders, clips, grid)
        say(f"{len(clips)} mixtures x {len(estimates)} systems read")
        since = time.perf_counter()
        scores = signal_scores(clips, estimates, self.jobs, self.device)
        say(f"signal ratios: {time.perf_counter() - since:.1f} s")
        found = {"text": scores}
        if cfg.check:
            places = torch.linspace(0, len(self.clips) - 1, cfg.check).round().long().unique()
            first, last, _ = rows.indices(len(self.clips))
            chosen = [i - first for i in places.tolist() if first <= i < last]
            worst = check_against_museval(clips, estimates, scores, chosen)
            found["check"] = {"all": {"worst_db": torch.tensor([worst], dtype=torch.float64)}}
        sounds = estimates | {"reference": clips.sources[:, 0]}
        labels, rate = set(self.clips.labels), grid.sample_rate
        heard = semantic_scores(self.exp, clips, sounds, rate, self.device, labels)
        for system, values in heard.items():
            scores.setdefault(system, {}).update(values)
        if cfg.absent:
            levels = absent_levels(self.exp, self.clips, clips, rows, self.systems, self.device)
            for system, values in levels.items():
                scores[system].update(values)
        for kind in cfg.queries:
            if kind != "text":
                found[kind] = kind_scores(self.exp / "separated", self.systems, kind, clips)
        return found

    def __call__(self, part: cluster.Part) -> None:
        """Write the scores of a part."""
        found = self.scores(slice(part.start, part.start + PART))
        flat = [
            ((query, system, metric), values.contiguous())
            for query, systems in found.items()
            for system, metrics in systems.items()
            for metric, values in metrics.items()
        ]
        temporary = temporary_of(part.outputs[0])
        save_file({json.dumps([k, *name]): v for k, (name, v) in enumerate(flat)}, temporary)
        os.replace(temporary, part.outputs[0])


def scores_by_ray(
    cfg: DictConfig, systems: list[str], folders: dict[str, Path], device: torch.device, count: int
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """As `Scorer.scores` of all `count` mixtures, in parts that are kept until all are done."""
    exp, staging = Path(cfg.exp), Path(cfg.exp) / ".scores.part"
    kinds = [exp / "separated" / f"{s}-{k}" for s in systems for k in cfg.queries if k != "text"]
    read = [*folders.values(), *filter(Path.is_dir, kinds), Path(cfg.data) / cfg.split]
    read += [exp / name for name in ("queries", "judge", "encoder")]
    sources = [exp / system / "best" / "model.safetensors" for system in systems]
    sources += [path for folder in read for path in folder.iterdir()]
    settings = {name: cfg[name] for name in ("samples", "queries", "absent", "check")}
    cluster.stage(staging, sources, f"{settings} {systems} {folders} {device}")
    files = {i: staging / f"{i:08d}.safetensors" for i in range(0, count, PART)}
    parts = [cluster.Part("scores", i, (file,)) for i, file in files.items()]
    prepare = cluster.by_program(__file__, "Scorer", cfg, systems, folders, device.type, 1)
    cluster.finish(parts, prepare, cfg.workers, device.type == "cuda", say)
    columns: dict[tuple[str, str, str], list[Tensor]] = {}
    for part in parts:
        flat = [(json.loads(name), v) for name, v in load_file(part.outputs[0]).items()]
        for (_, *name), values in sorted(flat, key=lambda entry: entry[0]):
            columns.setdefault(tuple(name), []).append(values)
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    for (query, system, metric), values in columns.items():
        found.setdefault(query, {}).setdefault(system, {})[metric] = torch.cat(values)
    return found


def run(cfg: DictConfig) -> None:
    """Read, score, summarise, write."""
    cluster.check(cfg.launcher)
    exp, device, begun = Path(cfg.exp), resolve(cfg.device), time.perf_counter()
    separated = exp / "separated"
    asked = OmegaConf.to_container(cfg.systems)
    systems = present(separated, [s for s in asked if isinstance(s, str)])
    baselines.check(simple := list(cfg.baselines or []), run=False)
    simple = present(separated, simple)
    others = elsewhere(asked, [*systems, *simple])
    if not (systems or others):
        raise DataError(f"{separated}: holds no results; run stage 6 first")
    jobs = cfg.jobs or len(os.sched_getaffinity(0))

    folders = {name: separated / name for name in (*simple, *systems)} | others
    scorer = Scorer(cfg, systems, folders, device, jobs)
    clips, grid = scorer.clips, scorer.grid
    if cfg.launcher == "local":
        found = scorer.scores(slice(None))
    else:
        found = scores_by_ray(cfg, systems, folders, device, len(clips))
    scores = {name: found["text"][name] for name in ("mixture", "ideal", *folders, "reference")}
    checked = ""
    if cfg.check:
        worst = float(found["check"]["all"]["worst_db"].max())
        checked = (
            f"Computed in batches and checked against museval in this run on {cfg.check} clips x "
            f"{len(scores) - 1} systems: largest difference {worst:.1g} dB."
        )
        say(checked)
    everyone = list(range(len(clips)))
    rows = [
        row for s, values in scores.items() for row in rows_of(clips, everyone, s, "text", values)
    ]
    for kind in [kind for kind in cfg.queries if kind != "text" and kind in found]:
        index = clips.queries(kind)[1].nonzero()[:, 0].tolist()
        for system in [s for s in systems if s in found[kind]]:
            rows += rows_of(clips, index, system, kind, found[kind][system])
    summaries = report.summary(rows, cfg.seed)
    pairs = [(a, b) for a, b in cfg.pairs if a in scores and b in scores]
    compared = {(a, b): report.compare(rows, a, b, seed=cfg.seed) for a, b in pairs}

    trained = {
        query: {s: found[s] for s in systems if s in found} for query, found in summaries.items()
    }
    tables = [report.score_table(summaries["text"])]
    tables += [report.kinds_table(trained)] if systems else []
    tables += [report.paired_table(found, a, b) for (a, b), found in compared.items()]
    added = {name: baselines.BASELINES[name][1] for name in simple}
    added |= {name: f"outputs of another system, from {folder}" for name, folder in others.items()}
    if cfg.absent:
        added["level when absent"] = (
            "of what is found, under the mixture, when asked by text for another mixture's target"
        )
    if not any("judge_hit" in row for row in rows):
        added["judge"] = "was not trained on every class of these mixtures, so it has no lines here"
    page = "\n\n".join([*tables, notes(clips, grid, checked, summaries, added)])

    out = exp / "scores"
    report.write_csv(out / "per_clip.csv", rows)
    paired = {f"{a} - {b}": found for (a, b), found in compared.items()}
    report.write_json(out / "summary.json", {"summary": summaries, "paired": paired})
    report.write_text(out / "table.md", page)
    draw(out, rows, [*scores], pairs)
    if cfg.results:
        report.write_text(Path(cfg.results), results.page(page, exp, cfg.command))
    shutil.rmtree(exp / ".scores.part", ignore_errors=True)
    say(f"\n{page}\n{out}: written after {time.perf_counter() - begun:.1f} s")


@hydra.main(version_base=None, config_path="conf", config_name="score")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    main()
