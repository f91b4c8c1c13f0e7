"""The trace of a decision as plain data, JSON and a picture: when, where, what, which looks."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sep.networks.trace import TraceNet
from sep.networks.turns import TurnNet


@torch.no_grad()
def explain(model: TraceNet, wave: Tensor, query: Tensor, classes: int = 5) -> dict[str, Any]:
    """What a network says of one recording and one query.

    Args:
        model: a network with a trace, in eval mode.
        wave: (N,) at the model's rate; query: (D,).
        classes: how many of the likeliest to keep.

    Returns:
        Plain data. `seconds` of the recording and `frame_s` between frames; `when`, probability of
        the target in each frame, and `active_s`, the stretches above 1/2; `where`, that of each row
        around `row_hz`; `what`, probability by label; `confidence`, the expected IoU of the mask;
        `gain`, the weights of when, where and what in the mask; `looks`, one entry a look:
        `interval_s` (None for the first, which sees all) and `stop`, the probability of stopping
        after it (None for the last one allowed). Without looking again there is one look.
    """
    grid = model.spectrogram
    frame_s = grid.hop / grid.sample_rate
    maps, several = model.maps(grid.stft(wave[None]).abs()), query[None, None]
    trace = model.trace(maps, several)
    logits = model.combine(maps, several)
    when, where = torch.sigmoid(trace.when[0, 0]), torch.sigmoid(trace.where[0, 0])
    likely = trace.what[0, 0].topk(min(classes, trace.what.shape[-1]))
    row_hz = (grid.warp_row + grid.warp_weight[:, 0]) * grid.sample_rate / grid.n_fft
    return {
        "seconds": len(wave) / grid.sample_rate,
        "frame_s": frame_s,
        "when": _rounded(when),
        "active_s": [[a * frame_s, b * frame_s] for a, b in _stretches(when > 0.5)],
        "where": _rounded(where),
        "row_hz": _rounded(row_hz, 1),
        "what": {
            model.config["labels"][k]: round(p, 4)
            for p, k in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
        },
        "confidence": round(model.confidence(maps, several, logits).item(), 4),
        "gain": dict(zip(("when", "where", "what"), _rounded(model.trace_gain), strict=True)),
        "looks": _looks(model, maps, several, frame_s),
    }


def _looks(model: TraceNet, maps: Tensor, query: Tensor, frame_s: float) -> list[dict[str, Any]]:
    if not isinstance(model, TurnNet):
        return [{"interval_s": None, "stop": None}]
    episode = model.play(maps, query)
    cell_s = maps.shape[-1] * frame_s / model.cells
    stops = [*_rounded(episode.stop[0, 0]), None]
    taken = [None, *episode.interval[0, 0].tolist()]
    return [
        {"interval_s": pair and [pair[0] * cell_s, pair[1] * cell_s], "stop": stop}
        for pair, stop in list(zip(taken, stops, strict=True))[: int(episode.turns)]
    ]


def _rounded(values: Tensor, digits: int = 4) -> list[float]:
    return [round(value, digits) for value in values.tolist()]


def _stretches(active: Tensor) -> list[tuple[int, int]]:
    """First frame and the one after the last of every run of True in (T,)."""
    edges = torch.nn.functional.pad(active.int(), (1, 1)).diff()
    starts, ends = (edges == 1).nonzero()[:, 0], (edges == -1).nonzero()[:, 0]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def save_trace(path: str | Path, record: dict[str, Any]) -> None:
    """Write a trace as JSON, by way of a temporary name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def draw_trace(
    path: str | Path, record: dict[str, Any], magnitude: Tensor, mask: Tensor, title: str = ""
) -> None:
    """Draw a trace on the spectrogram as one PNG.

    Mixture and mask (H, T) stand over one another, when below and where at the right; chosen
    intervals are framed on the mask and numbered by look.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        3, 2, sharex="col", width_ratios=(5, 1), height_ratios=(3, 3, 1), squeeze=False
    )
    frames, rows = len(record["when"]), len(record["where"])
    extent = (0, frames * record["frame_s"], 0, rows)
    loud = 20 * torch.log10(magnitude.cpu() / magnitude.max().clamp(min=1e-9).cpu() + 1e-9)
    panels = ((loud, -80, 0, "mixture (dB)"), (mask.cpu(), 0, 1, "mask"))
    for (image, low, high, name), (axis, side) in zip(panels, axes[:2], strict=True):
        axis.imshow(
            image, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=high
        )
        hertz = [record["row_hz"][h] for h in range(0, rows, rows // 4)]
        axis.set_yticks(range(0, rows, rows // 4), [f"{f:.0f} Hz" for f in hertz])
        axis.set_title(name, fontsize=9)
        side.plot(record["where"], range(rows))
        side.set(xlim=(0, 1), ylim=(0, rows), yticks=[])
    axes[0, 1].set_title("where", fontsize=9)
    for number, look in enumerate(record["looks"], 1):
        if look["interval_s"]:
            begin, end = look["interval_s"]
            axes[1, 0].axvspan(begin, end, fill=False, edgecolor="cyan", linewidth=1.5)
            axes[1, 0].text(begin, rows, f" look {number}", color="cyan", va="top", fontsize=8)
    time = [(t + 0.5) * record["frame_s"] for t in range(frames)]
    axes[2, 0].plot(time, record["when"])
    axes[2, 0].set(ylim=(0, 1), xlabel="s", ylabel="when")
    axes[2, 1].axis("off")
    what = "  ".join(f"{label} {p:.2f}" for label, p in record["what"].items())
    sure = f"confidence {record['confidence']:.2f}"
    figure.suptitle("\n".join(line for line in (title, what, sure) if line), fontsize=9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
