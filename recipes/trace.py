"""What separators say of their own work: traces of decisions, and whether confidence is earned.

For every system, how well its masks and its confidence are calibrated on the test mixtures with
text queries, and how loud it is while a target that sounds for 20 to 60 % of the clip does not
(`exp/<tag>/trace/<system>/summary.json`); for one that looks again, how many looks it took and how
well they fit the target. For one with a trace, when, where, what and which looks for the first
mixtures, as JSON and as a picture.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import json
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

from sep import hub
from sep.device import resolve
from sep.metrics.activity import active_part, outside_db
from sep.metrics.evaluation import EvaluationSet
from sep.metrics.reliability import Reliability
from sep.metrics.sisdr import si_sdr
from sep.model import QueryNet
from sep.networks.trace import TraceNet
from sep.networks.turns import TurnNet
from sep.program import guarded, say
from sep.rl.episodes import interval_iou
from sep.rl.shaping import active_frames
from sep.trace import draw_trace, explain, save_trace


@torch.inference_mode()
def measure(model: QueryNet, clips: EvaluationSet, query: Tensor) -> dict[str, float]:
    """`Reliability.summary` over the mixtures that `query` (n, D) has rows for, and activity."""
    measured, grid, rows = Reliability(), model.spectrogram, []
    device = grid.window.device
    for sources, vector in zip(clips.sources[: len(query)], query.to(device), strict=True):
        spectra = grid.stft(sources.to(device))
        mixture, target = spectra.sum(0), spectra[0].abs()
        mask = model.mask(mixture.abs()[None], vector[None])[0]
        estimate = grid.istft(mixture * mask, sources.shape[-1])
        quality = float(si_sdr(estimate, sources[0].to(device)))
        measured.add(mask, mixture.abs(), target, quality)
        first, last, part = active_part(target)
        if 0.2 <= part <= 0.6:
            row = {"outside_db": outside_db(mixture.abs() * mask, first, last)}
            if isinstance(model, TurnNet):
                episode = model.play(model.maps(mixture.abs()[None]), vector[None, None])
                active = active_frames(target[None])
                fit = interval_iou(episode.interval, active, model.cells)
                taken = episode.turns.float() - 1
                row |= {"looks": 1 + float(taken), "interval_iou": float(fit.sum() / taken)}
            rows.append(row)
    columns = {name: torch.tensor([row[name] for row in rows]) for name in (rows or [{}])[0]}
    activity = {name: float(c[c.isfinite()].mean()) for name, c in columns.items()}
    return measured.summary() | {"partly_active": len(rows)} | activity


def write_traces(
    folder: Path, model: TraceNet, clips: EvaluationSet, query: Tensor, count: int
) -> None:
    """JSON and picture of the first `count` mixtures."""
    grid = model.spectrogram
    device = grid.window.device
    for i in range(min(count, len(clips))):
        wave, vector = clips.mixture[i].to(device), query[i].to(device)
        mixture = clips.mixtures[i]
        record = {"id": mixture.id, "query": mixture.text, "label": mixture.label}
        record |= explain(model, wave, vector)
        save_trace(folder / f"{mixture.id}.json", record)
        with torch.inference_mode():
            magnitude = grid.stft(wave[None]).abs()
            mask = torch.sigmoid(model.logits(magnitude, vector[None]))[0]
        title = f"{mixture.id}: {mixture.text}"
        draw_trace(folder / f"{mixture.id}.png", record, grid.warp(magnitude)[0], mask, title)


def run(cfg: DictConfig) -> None:
    """Measure every system, and write the traces of those that have one."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    exp, device = Path(cfg.exp), resolve(cfg.device)
    clips = EvaluationSet(cfg.data, cfg.split, exp / "queries")
    query, _ = clips.queries("text")
    for system in cfg.systems:
        model = hub.from_pretrained(exp / system / "best", device)
        folder = exp / "trace" / system
        folder.mkdir(parents=True, exist_ok=True)
        values = measure(model, clips, query[: cfg.mixtures])
        (folder / "summary.json").write_text(json.dumps(values) + "\n")
        shown = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        say(f"{system}: {shown} -> {folder / 'summary.json'}")
        if isinstance(model, TraceNet):
            write_traces(folder, model, clips, query, cfg.examples)
            say(f"{system}: {min(cfg.examples, len(clips))} traces -> {folder}")
        else:
            say(f"{system}: a network without a trace; train one with rl=videoseg")


@hydra.main(version_base=None, config_path="conf", config_name="trace")
def main(cfg: DictConfig) -> None:
    guarded(run, cfg)


if __name__ == "__main__":
    main()
