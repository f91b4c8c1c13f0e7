"""Pictures of a separation: mixture, target, mask and estimate side by side."""

from pathlib import Path

import torch
from torch import Tensor


def draw_separation(
    path: str | Path, panels: dict[str, Tensor], sample_rate: int, hop: float, title: str = ""
) -> None:
    """Draw log-frequency panels (H, T) as one PNG.

    Args:
        path: of the PNG, whatever its suffix; its folder is made.
        panels: title to values; magnitudes are shown in dB down to 80 below the loudest of all,
            a panel whose title has "mask" before any colon in [0, 1].
        sample_rate: in Hz, for the axes.
        hop: samples between frames.
        title: over the whole picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    loudest = max(float(v.max()) for k, v in panels.items() if not _is_mask(k))
    for axis, (name, values) in zip(axes, panels.items(), strict=True):
        values = values.detach().float().cpu()
        if _is_mask(name):
            limits = {"vmin": 0, "vmax": 1}
        else:
            values = 20 * torch.log10(values / max(loudest, 1e-9) + 1e-9)
            limits = {"vmin": -80, "vmax": 0}
        seconds = values.shape[-1] * hop / sample_rate
        axis.imshow(
            values, origin="lower", aspect="auto", extent=(0, seconds, 0, 1), cmap="magma", **limits
        )
        axis.set(title=plain(name), xlabel="s", yticks=[])
    axes[0].set_ylabel(f"frequency (log), 0 to {sample_rate // 2000} kHz")
    figure.suptitle(plain(title), fontsize=9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, format="png")


def plain(text: str) -> str:
    """A text that Matplotlib shows as it is: no formula between dollars, no undecodable bytes."""
    return text.encode(errors="replace").decode().replace("$", r"\$")


def _is_mask(title: str) -> bool:
    return "mask" in title.partition(":")[0]
