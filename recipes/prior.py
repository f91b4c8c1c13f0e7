"""Does the mask follow the prior? The correlation figure of CoPRS for a trained `PriorNet`.

For every fixed mixture of a split: J(sigmoid H, Mbar) of the heat map and J(P, M) of the mask, with
the heat map as it is and in its place, for the same mixture and mask query, the one that the
interferer's query gives (`wrong query`) or the mean of all heat maps' values (`constant`). Writes
`exp/<tag>/<out>/`: per_clip.csv, summary.json, table.md and scatter.png.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import csv
import json
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sep import hub
from sep.data.bank import QueryBank
from sep.device import resolve
from sep.errors import ModelError
from sep.metrics import figures, statistics
from sep.metrics.evaluation import EvaluationSet
from sep.metrics.overlap import soft_iou
from sep.metrics.sisdr import si_sdr_improvement
from sep.networks.prior import PriorNet
from sep.program import guarded, say
from sep.train.heatmap import cell_target
from sep.train.losses import bin_weight, target_masks

PRIORS = ("own", "wrong query", "constant")
Columns = dict[str, Tensor]  # (n,) values by name


@torch.no_grad()
def level_of(model: PriorNet, clips: EvaluationSet, query: Tensor, batch: int) -> float:
    """Mean logit of all heat maps, that of the constant prior."""
    total, device = [], query.device
    for k in range(0, len(clips), batch):
        magnitude = model.spectrogram.stft(clips.mixture[k : k + batch].to(device)).abs()
        total.append(model.heatmap(magnitude, query[k : k + batch]).mean((1, 2)))
    return float(torch.cat(total).mean())


@torch.no_grad()
def measure(
    model: PriorNet, sources: Tensor, query: Tensor, other: Tensor, level: float
) -> dict[str, Columns]:
    """Values of some mixtures with each prior.

    Args:
        model: in eval mode.
        sources: (B, S, N), the target first; query: (B, D) its query; other: the interferer's.
        level: logit of the constant prior.

    Returns:
        By prior: `prior` and `mask`, their J; `si_sdri` in dB; `pointing`, the share of the heat
        map's mass in cells that are mostly the target's, and `chance`, the share of those cells.
        With the own prior also `apart`, 1 - J of the two queries' heat maps.
    """
    grid, mixture = model.spectrogram, sources.sum(1)
    spectra = grid.stft(sources)
    spectrum = spectra.sum(1)
    warped, total = grid.warp(spectra.abs()), grid.warp(spectrum.abs())
    ideal, weight = target_masks(warped, total, "ratio")[:, :1], bin_weight(total)[:, None]
    wanted = cell_target(ideal, total, model.stride)
    cells = avg_pool2d(weight, model.stride, ceil_mode=True)
    scene = model.maps(spectrum.abs())
    heat = model.locate(scene, torch.stack([query, other], 1))
    own, wrong = heat[:, :1], heat[:, 1:]
    inside = cells * (wanted > 0.5)
    values = {}
    for name, given in zip(PRIORS, (own, wrong, torch.full_like(own, level)), strict=True):
        found = torch.sigmoid(given)
        mask = torch.sigmoid(model.decode(scene, query[:, None], given))
        estimate = grid.istft(spectrum * grid.unwarp(mask[:, 0]), mixture.shape[-1])
        values[name] = {
            "prior": soft_iou(found, wanted, cells)[:, 0],
            "mask": soft_iou(mask, ideal, weight)[:, 0],
            "si_sdri": si_sdr_improvement(estimate, sources[:, 0], mixture),
            "pointing": (inside * found).sum((1, 2, 3)) / (cells * found).sum((1, 2, 3)),
            "chance": inside.sum((1, 2, 3)) / cells.sum((1, 2, 3)),
        }
    apart = 1 - soft_iou(torch.sigmoid(own), torch.sigmoid(wrong), cells)[:, 0]
    values["own"]["apart"] = apart
    return values


def examine(cfg: DictConfig) -> None:
    """Measure every mixture with every prior; write values, table and figure."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    device, exp = resolve(cfg.device), Path(cfg.exp)
    folder = exp / cfg.system
    model = hub.from_pretrained(folder, device)
    if not isinstance(model, PriorNet):
        raise ModelError(f"{folder}: has no heat map; train one with network={{kind: prior}}")
    clips = EvaluationSet(cfg.data, cfg.split, exp / "queries")
    bank = QueryBank(exp / "queries" / f"{cfg.split}.safetensors")
    query = clips.queries("text")[0].to(device)
    rows = [bank.row[mixture.interferers[0]] for mixture in clips.mixtures]
    other = bank.text[rows, 0].to(device)
    level = level_of(model, clips, query, cfg.batch)
    parts: dict[str, dict[str, list[Tensor]]] = {name: {} for name in PRIORS}
    for k in range(0, len(clips), cfg.batch):
        part = slice(k, k + cfg.batch)
        found = measure(model, clips.sources[part].to(device), query[part], other[part], level)
        for name, columns in found.items():
            for key, column in columns.items():
                parts[name].setdefault(key, []).append(column.float().cpu())
    values = {
        name: {key: torch.cat(found).numpy() for key, found in columns.items()}
        for name, columns in parts.items()
    }
    summary = {name: summarise(columns) for name, columns in values.items()}
    folder = exp / cfg.out
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "per_clip.csv", clips.ids, values)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    table = markdown(summary, len(clips), cfg.split)
    (folder / "table.md").write_text(table, encoding="utf-8")
    draw(folder / "scatter.png", values["own"], summary["own"])
    print(table)
    say(f"prior: wrote {folder}/table.md, per_clip.csv, summary.json and scatter.png")


def summarise(columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Means of the columns and what the heat map's J says of the mask's."""
    means = {key: float(np.nanmean(column)) for key, column in columns.items()}
    return means | statistics.correlation(columns["prior"], columns["mask"])


def write_csv(path: Path, ids: list[str], values: dict[str, dict[str, np.ndarray]]) -> None:
    """One line a value: id, prior, name, value."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prior", "name", "value"])
        for name, columns in values.items():
            for key, column in columns.items():
                writer.writerows(
                    [i, name, key, f"{v:.6g}"] for i, v in zip(ids, column, strict=True)
                )


def markdown(summary: dict[str, dict[str, float]], count: int, split: str) -> str:
    """One row a prior."""
    lines = [
        "| heat map | J(H, Mbar) | J(P, M) | SI-SDRi dB | pointing | chance | R | slope |",
        "| --- |" + " ---: |" * 7,
    ]
    for name, row in summary.items():
        cells = [f"{row[key]:.3f}" for key in ("prior", "mask", "si_sdri", "pointing", "chance")]
        cells += [f"{row[k]:.2f} [{row[f'{k}_low']:.2f}, {row[f'{k}_high']:.2f}]"
                  for k in ("r", "slope")]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + (
        f"\n\n{count} mixtures of the {split} split, text queries; the heat maps of target and "
        f"interferer are {summary['own']['apart']:.2f} apart (1 - J). J: soft IoU weighted by bin. "
        "R, slope: Pearson correlation and least-squares slope of J(P, M) on J(H, Mbar) over "
        "mixtures, with 95 % intervals. pointing: share of the heat map's mass in cells that are "
        "mostly the target's; chance: the share of those cells.\n"
    )


def draw(path: Path, columns: dict[str, np.ndarray], row: dict[str, float]) -> None:
    """J of the mask against J of the heat map, a point a mixture, with the fitted line."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.scatter(columns["prior"], columns["mask"], s=12, alpha=0.6)
    ends = np.array([0.0, 1.0])
    axes.plot(ends, ends, color="grey", linewidth=0.8, label="y = x")
    axes.plot(ends, row["intercept"] + row["slope"] * ends, color="black", label="least squares")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="J(H, Mbar) of the heat map", ylabel="J(P, M)")
    axes.set_title(f"{row['n']} mixtures, R = {row['r']:.2f}")
    axes.legend()
    figures.save(figure, path)


@hydra.main(version_base=None, config_path="conf", config_name="prior")
def main(cfg: DictConfig) -> None:
    guarded(examine, cfg)


if __name__ == "__main__":
    main()
