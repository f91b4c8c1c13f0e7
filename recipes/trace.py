"""What separators say of their own work: traces of decisions, and whether confidence is earned.

For every system, how well its masks and its confidence are calibrated on the test mixtures with
text queries (`exp/<tag>/trace/<system>/reliability.json`); for one with a trace, when, where, what
and which looks for the first mixtures, as JSON and as a picture.
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
from sep.metrics.evaluation import EvaluationSet
from sep.metrics.reliability import Reliability
from sep.metrics.sisdr import si_sdr
from sep.model import QueryNet
from sep.program import guarded, say
from sep.trace import draw_trace, explain, save_trace
from sep.tracenet import TraceNet


@torch.inference_mode()
def reliability(model: QueryNet, clips: EvaluationSet, query: Tensor) -> dict[str, float]:
    """`Reliability.summary` over the mixtures that `query` (n, D) has rows for."""
    measured, grid = Reliability(), model.spectrogram
    device = grid.window.device
    for sources, vector in zip(clips.sources[: len(query)], query, strict=True):
        spectra = grid.stft(sources.to(device))
        spectrum = spectra.sum(0)
        mask = model.mask(spectrum.abs()[None], vector[None].to(device))[0]
        estimate = grid.istft(spectrum * mask, sources.shape[-1])
        quality = float(si_sdr(estimate, sources[0].to(device)))
        measured.add(mask, spectrum.abs(), spectra[0].abs(), quality)
    return measured.summary()


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
        values = reliability(model, clips, query[: cfg.mixtures])
        (folder / "reliability.json").write_text(json.dumps(values) + "\n")
        shown = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        say(f"{system}: {shown} -> {folder / 'reliability.json'}")
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
