"""Stage 6: separate the test mixtures with every trained system.

Writes `separated/<system>/<mixture>.wav` for the text queries, `separated/<system>-<kind>/` for the
others, `separated/<baseline>/`, and `separated/examples/` with sounds and pictures of the first
mixtures. With `inputs`, `separated/inputs/` holds what another system needs to do the same: the
mixtures and `queries.tsv`. A folder appears only when it is complete. With `launcher=ray` workers
share the mixtures, by batches; a run that was stopped goes on behind the files that it wrote.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import functools
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

import encoders
from encoders.base import Encoder
from sep import audio, cluster, feedback, hub
from sep.device import resolve
from sep.errors import ModelError
from sep.metrics import baselines
from sep.metrics.evaluation import EvaluationSet, ideal_ratio_mask
from sep.metrics.system import best, estimates, is_refined
from sep.model import QueryNet
from sep.program import guarded, say
from sep.train.picture import draw_separation


def write(path: Path, wave: Tensor, sample_rate: int) -> None:
    """Write a mono waveform (N,): 16 bit, or float where it would clip; once there it is left."""
    if path.exists():
        return
    subtype = "PCM_16" if wave.abs().max() < 1 else "FLOAT"
    audio.write(path, wave, sample_rate, subtype=subtype)


def available(exp: Path, systems: list[str]) -> list[str]:
    """The systems that have a trained model; the others are named."""
    found = [s for s in systems if (best(exp, s) / "config.json").exists()]
    for system in systems:
        if system not in found:
            say(f"{system}: not trained ({best(exp, system)} is missing), left out")
    if not found:
        raise ModelError(f"{exp}: none of {', '.join(systems)} is trained; run stage 4 first")
    return found


def separate_system(
    separate: Callable[[Tensor, Tensor], Tensor],
    rate: int,
    clips: EvaluationSet,
    queries: dict[str, tuple[Tensor, Tensor]],
    folders: dict[str, Path],
    batch: int,
    device: torch.device,
) -> None:
    """Separate every mixture with every kind of query; one network pass serves all kinds.

    `separate` maps mixtures (B, N) at `rate` Hz and queries (B, Q, D) to estimates (B, Q, N).
    """
    vectors = torch.stack([v for v, _ in queries.values()], dim=1)  # (n, Q, D)
    with torch.inference_mode(), ThreadPoolExecutor(max_workers=2) as writers:
        pending = []
        for rows, part in clips.parts(batch):
            estimate = separate(part.mixture.to(device), vectors[rows].to(device))
            estimate = estimate.cpu()  # (b, Q, N)
            for q, (kind, (_, has)) in enumerate(queries.items()):
                for i in has[rows].nonzero()[:, 0].tolist():
                    path = folders[kind] / f"{part.ids[i]}.wav"
                    job = writers.submit(write, path, estimate[i, q], rate)
                    pending.append(job)
        for job in pending:
            job.result()


def separate_baseline(
    name: str,
    model: QueryNet,
    encoder: Encoder,
    clips: EvaluationSet,
    query: Tensor,
    everything: Tensor,
    folder: Path,
    batch: int,
) -> None:
    """Write what a baseline makes of every mixture; `query` (n, D) are the text queries, and
    `everything` (Q, D) those of the whole set, once each."""
    device = model.spectrogram.window.device
    method, _ = baselines.BASELINES[name]
    everything = everything.to(device)
    for rows, part in clips.parts(batch):
        given = (part.mixture, part.sources, query[rows])
        case = baselines.Case(*(x.to(device) for x in given), everything, model, encoder)
        with torch.inference_mode():
            estimates = method(case).cpu()
        for id_, estimate in zip(part.ids, estimates, strict=True):
            write(folder / f"{id_}.wav", estimate, model.sample_rate)


def write_inputs(folder: Path, clips: EvaluationSet, sample_rate: int) -> None:
    """The mixtures, and their text queries and classes as tab-separated lines."""
    folder.mkdir(parents=True)
    lines = ["id\ttext\tlabel"]
    for i, mixture in enumerate(clips.mixtures):
        write(folder / f"{mixture.id}.wav", clips.part([i]).mixture[0], sample_rate)
        lines.append(f"{mixture.id}\t{' '.join(mixture.text.split())}\t{mixture.label}")
    (folder / "queries.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_examples(
    folder: Path,
    model: QueryNet,
    encoder: Encoder | None,
    clips: EvaluationSet,
    vectors: Tensor,
    count: int,
) -> None:
    """Sounds and a picture of the first `count` mixtures, separated by `model`, by queries that
    the `encoder` refines where there is one."""
    count = min(count, len(clips))
    sources, mixture = clips.sources[:count], clips.mixture[:count]
    grid = model.spectrogram
    device = grid.window.device
    with torch.inference_mode():
        spectrum = grid.stft(mixture.to(device))
        query = vectors[:count].to(device)
        if encoder is None:
            mask = model.mask(spectrum.abs(), query)
        else:
            mask = feedback.masks(model, encoder, mixture.to(device), query[:, None])[:, 0]
        target = grid.istft(spectrum * mask, mixture.shape[-1]).cpu()
        spectra = {
            "mixture": spectrum.abs(),
            "ideal mask": ideal_ratio_mask(sources.to(device), grid),
            "mask": mask,
            "estimate": spectrum.abs() * mask,
            "reference": grid.stft(sources[:, 0].to(device)).abs(),
        }
        panels = {name: grid.warp(values).cpu() for name, values in spectra.items()}
    for i in range(count):
        home = folder / clips.ids[i]
        home.mkdir(parents=True)
        sounds = {
            "mixture": mixture[i],
            "target": target[i],
            "residual": mixture[i] - target[i],
            "reference": sources[i, 0],
        }
        for name, wave in sounds.items():
            write(home / f"{name}.wav", wave, model.sample_rate)
        title = f"{clips.ids[i]}: {clips.mixtures[i].text}"
        chosen = {name: values[i] for name, values in panels.items()}
        draw_separation(home / "picture.png", chosen, grid.sample_rate, grid.hop, title)


def asked(
    cfg: DictConfig, clips: EvaluationSet, unit: bool = True
) -> dict[str, tuple[Tensor, Tensor]]:
    """Vectors of the queries by kind, those of which there are any; `unit` of a network."""
    found = {kind: clips.queries(kind, dict(cfg.weights), unit) for kind in cfg.queries}
    return {kind: queries for kind, queries in found.items() if queries[1].any()}


def folder_of(system: str, kind: str) -> str:
    return system if kind == "text" else f"{system}-{kind}"


class Worker:
    """Separates a batch of mixtures with a system or a baseline; what Ray's workers do."""

    def __init__(self, cfg: DictConfig, systems: list[str], staging: Path, device: str):
        self.cfg, self.systems, self.staging = cfg, systems, staging
        self.exp, self.device = Path(cfg.exp), torch.device(device)
        self.clips = EvaluationSet(cfg.data, cfg.split, self.exp / "queries", samples=cfg.samples)
        self.queries = functools.cache(partial(asked, cfg, self.clips))
        self.text = self.clips.queries("text")[0]
        self.model = functools.cache(lambda folder: hub.from_pretrained(folder, self.device))

    @functools.cached_property
    def encoder(self) -> Encoder:
        return encoders.load(self.exp / "encoder", device=self.device)

    def __call__(self, part: cluster.Part) -> None:
        rows, batch = slice(part.start, part.start + self.cfg.batch), self.cfg.batch
        clips, system = self.clips.part(rows), part.name
        if system in self.systems:
            model = self.model(best(self.exp, system))
            queries = self.queries(model.unit_queries)
            queries = {kind: (v[rows], has[rows]) for kind, (v, has) in queries.items()}
            folders = {kind: self.staging / folder_of(system, kind) for kind in queries}
            encoder = self.encoder if is_refined(system) else None
            way = partial(estimates, model, encoder)
            separate_system(way, model.sample_rate, clips, queries, folders, batch, self.device)
            return
        first, query = self.model(best(self.exp, self.systems[0])), self.text[rows]
        everything, folder = torch.unique(self.text, dim=0), self.staging / system
        separate_baseline(system, first, self.encoder, clips, query, everything, folder, batch)


def separate_by_ray(
    cfg: DictConfig, systems: list[str], clips: EvaluationSet, staging: Path, device: torch.device
) -> None:
    """Fill the folders of all systems and baselines, or what is missing of them."""
    exp, wanted = Path(cfg.exp), list(cfg.baselines or [])
    sources = [best(exp, system) / "model.safetensors" for system in systems]
    for folder in (exp / "queries", exp / "encoder", Path(cfg.data) / cfg.split):
        sources += folder.iterdir()
    settings = {name: cfg[name] for name in ("samples", "batch", "queries", "weights")}
    cluster.stage(staging, sources, f"{settings} {systems} {wanted} {device}")
    index = {kind: has.nonzero()[:, 0].tolist() for kind, (_, has) in asked(cfg, clips).items()}
    everyone, parts = {"text": list(range(len(clips)))}, []
    for name in (*systems, *wanted):
        files: dict[int, list[Path]] = {start: [] for start in range(0, len(clips), cfg.batch)}
        for kind, rows in (index if name in systems else everyone).items():
            folder = staging / folder_of(name, kind)
            folder.mkdir(exist_ok=True)
            for i in rows:
                files[i - i % cfg.batch].append(folder / f"{clips.ids[i]}.wav")
        parts += [cluster.Part(name, start, tuple(paths)) for start, paths in files.items()]
    prepare = cluster.by_program(__file__, "Worker", cfg, systems, staging, device.type)
    cluster.finish(parts, prepare, cfg.workers, device.type == "cuda", say)


def run(cfg: DictConfig) -> None:
    """Separate with each system and baseline, then write the examples with the last system."""
    baselines.check(wanted := list(cfg.baselines or []))
    cluster.check(cfg.launcher)
    alone = cfg.launcher == "local"
    exp, device = Path(cfg.exp), resolve(cfg.device)
    systems = available(exp, list(cfg.systems))
    clips = EvaluationSet(cfg.data, cfg.split, exp / "queries", samples=cfg.samples)
    out = exp / "separated"
    staging = exp / ".separated.part"
    if alone:
        shutil.rmtree(staging, ignore_errors=True)
    try:
        if not alone:
            separate_by_ray(cfg, systems, clips, staging, device)
        for system in systems:
            since = time.perf_counter()
            model = hub.from_pretrained(best(exp, system), device)
            encoder = encoders.load(exp / "encoder", device=device) if is_refined(system) else None
            queries = asked(cfg, clips, model.unit_queries)
            folders = {kind: staging / folder_of(system, kind) for kind in queries}
            if alone:
                for folder in folders.values():
                    folder.mkdir(parents=True)
                way = partial(estimates, model, encoder)
                separate_system(way, model.sample_rate, clips, queries, folders, cfg.batch, device)
            out.mkdir(exist_ok=True)
            for folder in folders.values():
                hub.replace_folder(folder, out / folder.name)
            counts = ", ".join(f"{int(has.sum())} by {kind}" for kind, (_, has) in queries.items())
            say(f"{system}: {counts} in {time.perf_counter() - since:.1f} s -> {out / system}")
        if wanted and alone:
            first = hub.from_pretrained(best(exp, systems[0]), device)
            encoder, query = encoders.load(exp / "encoder", device=device), clips.queries("text")[0]
            everything = torch.unique(query, dim=0)
        for name in wanted:
            since, folder = time.perf_counter(), staging / name
            if alone:
                folder.mkdir(parents=True)
                separate_baseline(name, first, encoder, clips, query, everything, folder, cfg.batch)
            hub.replace_folder(folder, out / name)
            say(f"{name}: {len(clips)} by text in {time.perf_counter() - since:.1f} s")
        if cfg.inputs:
            shutil.rmtree(staging / "inputs", ignore_errors=True)
            write_inputs(staging / "inputs", clips, model.sample_rate)
            hub.replace_folder(staging / "inputs", out / "inputs")
            say(f"mixtures and their queries -> {out / 'inputs'}")
        if cfg.examples and "text" in queries:
            since, folder = time.perf_counter(), staging / "examples"
            shutil.rmtree(folder, ignore_errors=True)
            shown = clips.part(slice(cfg.examples))
            write_examples(folder, model, encoder, shown, queries["text"][0], cfg.examples)
            hub.replace_folder(folder, out / "examples")
            say(
                f"examples by {system} in {time.perf_counter() - since:.1f} s -> {out / 'examples'}"
            )
    except BaseException:
        if alone:
            shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(staging, ignore_errors=True)


@hydra.main(version_base=None, config_path="conf", config_name="separate")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    main()
