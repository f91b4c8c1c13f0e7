"""Validation on fixed mixtures: loss, SI-SDR improvement, meaning and pictures."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sep.data import mixtures
from sep.data.bank import QueryBank
from sep.data.kaldi import DataDir
from sep.metrics.sisdr import si_sdr
from sep.model import QueryNet
from sep.train.losses import bin_weight, target_masks, weighted_bce
from sep.train.picture import draw_separation

# waveforms (B, N), queries (B, D) and labels to similarities (B,)
Judge = Callable[[Tensor, Tensor, list[str]], Tensor]


class Validation:
    """Fixed validation mixtures with text queries, rendered once.

    Args:
        data: the split's data directory with `mixtures.jsonl`.
        queries: the split's embeddings.
        count: use the first so many mixtures.
        device: where to validate.
        judges: name to similarity function; each adds a value `<name>` (mean over mixtures).
        batch: mixtures at once.
        segment: samples of a mixture.
    """

    def __init__(
        self,
        data: DataDir,
        queries: QueryBank,
        count: int,
        device: str | torch.device,
        judges: dict[str, Judge] | None = None,
        batch: int = 16,
        segment: int = mixtures.SEGMENT,
    ):
        chosen = mixtures.load(Path(data.path) / "mixtures.jsonl")[:count]
        self.sources = torch.stack([mixtures.render(m, data, segment) for m in chosen]).to(device)
        rows = torch.tensor([queries.row[m.target] for m in chosen], device=queries.text.device)
        self.query = queries.text[rows, 0].to(device)  # (V, D)
        self.labels = [m.label for m in chosen]
        self.titles = [f"{m.text}  (with {', '.join(m.interferer_labels)})" for m in chosen]
        self.judges, self.batch = judges or {}, batch

    @torch.no_grad()
    def __call__(self, model: QueryNet) -> dict[str, float]:
        """Means: loss (nats a bin), SI-SDR improvement and output level (dB), mask, judges."""
        training = model.training
        model.eval()
        parts: dict[str, list[Tensor]] = {}
        for begin in range(0, len(self.sources), self.batch):
            sources = self.sources[begin : begin + self.batch]
            query = self.query[begin : begin + self.batch]
            labels = self.labels[begin : begin + self.batch]
            mixture = sources.sum(1)
            spectra = model.spectrogram.stft(sources)
            spectrum = spectra.sum(1)
            warped = model.spectrogram.warp(spectra.abs())
            total = model.spectrogram.warp(spectrum.abs())
            logits = model.logits(spectrum.abs(), query)
            target = target_masks(warped, total, "ratio")[:, :1]
            loss, _ = weighted_bce(logits[:, None], target, bin_weight(total))
            mask = model.spectrogram.unwarp(torch.sigmoid(logits))
            estimate = model.spectrogram.istft(spectrum * mask, mixture.shape[-1])
            gain = si_sdr(estimate, sources[:, 0]) - si_sdr(mixture, sources[:, 0])
            energy = [wave.square().sum(-1).clamp(min=1e-12) for wave in (estimate, mixture)]
            values = {
                "si_sdri": gain,
                "loss": loss.expand(len(gain)),
                "level_db": 10 * torch.log10(energy[0] / energy[1]),
                "mask_mean": mask.mean((-2, -1)),
            }
            for name, judge in self.judges.items():
                values[name] = judge(estimate, query, labels)
            for name, value in values.items():
                parts.setdefault(name, []).append(value.float().cpu())
        model.train(training)
        return {name: torch.cat(value).nanmean().item() for name, value in parts.items()}

    @torch.no_grad()
    def picture(self, model: QueryNet, path: Path, index: int = 0) -> None:
        """Draw mixture, target, ideal mask, mask and estimate of one mixture."""
        training = model.training
        model.eval()
        spectra = model.spectrogram.stft(self.sources[index])
        spectrum = spectra.sum(0)
        total = model.spectrogram.warp(spectrum.abs())
        warped = model.spectrogram.warp(spectra.abs())
        mask = torch.sigmoid(model.logits(spectrum.abs()[None], self.query[index]))[0]
        panels = {
            "mixture": total,
            "target": warped[0],
            "ideal mask": target_masks(warped[None], total[None], "ratio")[0, 0],
            "mask": mask,
            "estimate": mask * total,
        }
        grid = model.spectrogram
        draw_separation(path, panels, grid.sample_rate, grid.hop, self.titles[index])
        model.train(training)
