"""Stage 6: separate the test mixtures with every trained system.

Writes `separated/<system>/<mixture>.wav` for the text queries, `separated/<system>-<kind>/` for the
others, `separated/<baseline>/`, and `separated/examples/` with sounds and pictures of the first
mixtures. With `inputs`, `separated/inputs/` holds what another system needs to do the same: the
mixtures and `queries.tsv`. A folder appears only when it is complete.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

import encoders
from encoders.base import Encoder
from sep import audio, hub
from sep.device import resolve
from sep.errors import ModelError
from sep.metrics import baselines
from sep.metrics.evaluation import EvaluationSet, ideal_ratio_mask
from sep.model import QueryNet
from sep.program import guarded, say
from sep.train.picture import draw_separation


def write(path: Path, wave: Tensor, sample_rate: int) -> None:
    """Write a mono waveform (N,): 16 bit, or float where it would clip."""
    subtype = "PCM_16" if wave.abs().max() < 1 else "FLOAT"
    audio.write(path, wave, sample_rate, subtype=subtype)


def available(exp: Path, systems: list[str]) -> list[str]:
    """The systems that have a trained model; the others are named."""
    found = [s for s in systems if (exp / s / "best" / "config.json").exists()]
    for system in systems:
        if system not in found:
            say(f"{system}: not trained ({exp / system}/best is missing), left out")
    if not found:
        raise ModelError(f"{exp}: none of {', '.join(systems)} is trained; run stage 4 first")
    return found


def separate_system(
    model: QueryNet,
    clips: EvaluationSet,
    queries: dict[str, tuple[Tensor, Tensor]],
    folders: dict[str, Path],
    batch: int,
    device: torch.device,
) -> None:
    """Separate every mixture with every kind of query; one network pass serves all kinds."""
    vectors = torch.stack([v for v, _ in queries.values()], dim=1)  # (n, Q, D)
    with torch.inference_mode(), ThreadPoolExecutor(max_workers=2) as writers:
        pending = []
        for start in range(0, len(clips), batch):
            part = slice(start, start + batch)
            estimate = model.separate(clips.mixture[part].to(device), vectors[part].to(device))
            estimate = estimate.cpu()  # (b, Q, N)
            for q, (kind, (_, has)) in enumerate(queries.items()):
                for i in has[part].nonzero()[:, 0].tolist():
                    path = folders[kind] / f"{clips.ids[start + i]}.wav"
                    job = writers.submit(write, path, estimate[i, q], model.sample_rate)
                    pending.append(job)
        for job in pending:
            job.result()


def separate_baseline(
    name: str,
    model: QueryNet,
    encoder: Encoder,
    clips: EvaluationSet,
    query: Tensor,
    folder: Path,
    batch: int,
) -> None:
    """Write what a baseline makes of every mixture; `query` (n, D) are the text queries."""
    device = model.spectrogram.window.device
    method, _ = baselines.BASELINES[name]
    everything = torch.unique(query, dim=0).to(device)
    for start in range(0, len(clips), batch):
        part = slice(start, start + batch)
        rows = (clips.mixture[part], clips.sources[part], query[part])
        case = baselines.Case(*(row.to(device) for row in rows), everything, model, encoder)
        with torch.inference_mode():
            estimates = method(case).cpu()
        for id_, estimate in zip(clips.ids[part], estimates, strict=True):
            write(folder / f"{id_}.wav", estimate, model.sample_rate)


def write_inputs(folder: Path, clips: EvaluationSet, sample_rate: int) -> None:
    """The mixtures, and their text queries and classes as tab-separated lines."""
    folder.mkdir(parents=True)
    lines = ["id\ttext\tlabel"]
    for mixture, wave in zip(clips.mixtures, clips.mixture, strict=True):
        write(folder / f"{mixture.id}.wav", wave, sample_rate)
        lines.append(f"{mixture.id}\t{' '.join(mixture.text.split())}\t{mixture.label}")
    (folder / "queries.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_examples(
    folder: Path, model: QueryNet, clips: EvaluationSet, vectors: Tensor, count: int
) -> None:
    """Sounds and a picture of the first `count` mixtures, separated by `model`."""
    count = min(count, len(clips))
    sources, mixture = clips.sources[:count], clips.mixture[:count]
    grid = model.spectrogram
    device = grid.window.device
    with torch.inference_mode():
        spectrum = grid.stft(mixture.to(device))
        mask = model.mask(spectrum.abs(), vectors[:count].to(device))
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


def run(cfg: DictConfig) -> None:
    """Separate with each system and baseline, then write the examples with the last system."""
    baselines.check(wanted := list(cfg.baselines or []))
    exp, device, begun = Path(cfg.exp), resolve(cfg.device), time.perf_counter()
    systems = available(exp, list(cfg.systems))
    clips = EvaluationSet(cfg.data, cfg.split, exp / "queries", samples=cfg.samples)
    queries = {kind: clips.queries(kind, dict(cfg.weights)) for kind in cfg.queries}
    queries = {kind: found for kind, found in queries.items() if found[1].any()}
    out = exp / "separated"
    staging = exp / ".separated.part"
    shutil.rmtree(staging, ignore_errors=True)
    say(f"{len(clips)} mixtures read in {time.perf_counter() - begun:.1f} s")

    try:
        for system in systems:
            since = time.perf_counter()
            model = hub.from_pretrained(exp / system / "best", device)
            names = {k: system if k == "text" else f"{system}-{k}" for k in queries}
            folders = {kind: staging / name for kind, name in names.items()}
            for folder in folders.values():
                folder.mkdir(parents=True)
            separate_system(model, clips, queries, folders, cfg.batch, device)
            out.mkdir(exist_ok=True)
            for folder in folders.values():
                hub.replace_folder(folder, out / folder.name)
            counts = ", ".join(f"{int(has.sum())} by {kind}" for kind, (_, has) in queries.items())
            say(f"{system}: {counts} in {time.perf_counter() - since:.1f} s -> {out / system}")
        if wanted:
            first = hub.from_pretrained(exp / systems[0] / "best", device)
            encoder, query = encoders.load(exp / "encoder", device=device), clips.queries("text")[0]
        for name in wanted:
            since, folder = time.perf_counter(), staging / name
            folder.mkdir(parents=True)
            separate_baseline(name, first, encoder, clips, query, folder, cfg.batch)
            hub.replace_folder(folder, out / name)
            say(f"{name}: {len(clips)} by text in {time.perf_counter() - since:.1f} s")
        if cfg.inputs:
            write_inputs(staging / "inputs", clips, model.sample_rate)
            hub.replace_folder(staging / "inputs", out / "inputs")
            say(f"mixtures and their queries -> {out / 'inputs'}")
        if cfg.examples and "text" in queries:
            since, folder = time.perf_counter(), staging / "examples"
            write_examples(folder, model, clips, queries["text"][0], cfg.examples)
            hub.replace_folder(folder, out / "examples")
            say(
                f"examples by {system} in {time.perf_counter() - since:.1f} s -> {out / 'examples'}"
            )
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@hydra.main(version_base=None, config_path="conf", config_name="separate")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    main()
