"""Spectrograms of recordings of any length at a bounded size, and the picture of a separation."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from sep import audio as recording
from sep.spectrogram import Spectrogram

COLUMNS = 800
FILE_BLOCK = 2**17  # samples a channel read at once
RANGE_DB = 80.0  # what is fainter than this below the loudest is drawn black
TICKS_KHZ = (0.25, 0.5, 1, 2, 4, 8, 16)


def levels(
    path: str | Path,
    grid: Spectrogram,
    columns: int = COLUMNS,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Tensor, float]:
    """Root mean square magnitudes of a file on the model's log-frequency rows.

    Args:
        path: recording of any rate, channels (their powers are averaged) and length.
        grid: of the model, on the CPU.
        columns: the most there may be; each stands for equally many frames.
        progress: called with the share that is done.

    Returns:
        (H, T), T <= columns, and how long a column lasts in seconds.

    Raises:
        AudioFileError: a recording that cannot be used.
    """
    head, done = recording.info(path), 0
    frames = math.ceil(head.duration_s * grid.sample_rate / grid.hop) + 1
    each = math.ceil(frames / columns)
    power = torch.zeros(grid.n_fft // 2 + 1, math.ceil(frames / each))
    counts = torch.zeros(power.shape[-1])
    waiting = torch.zeros(head.channels, 0)
    for wave in _resampled(path, head, grid):
        waiting = torch.cat([waiting, wave], -1)
        ready = (waiting.shape[-1] - grid.n_fft) // grid.hop + 1
        if ready < 1:
            continue
        spectra = torch.stft(
            waiting, grid.n_fft, grid.hop, window=grid.window, center=False, return_complex=True
        )
        column = (torch.arange(done, done + ready) // each).clamp_(max=power.shape[-1] - 1)
        power.index_add_(1, column, spectra.abs().square().mean(0))
        counts.index_add_(0, column, torch.ones(ready))
        waiting, done = waiting[:, ready * grid.hop :], done + ready
        progress(min(done / frames, 1.0))
    progress(1.0)
    return grid.warp((power / counts.clamp_min(1)).sqrt()), each * grid.hop / grid.sample_rate


def _resampled(path: str | Path, head: recording.AudioInfo, grid: Spectrogram) -> Iterator[Tensor]:
    """Blocks (C, n) at the grid's rate, half a window of silence before and after them."""
    silence = torch.zeros(head.channels, grid.n_fft // 2)
    down = recording.Resampler(head.channels, head.sample_rate, grid.sample_rate)
    yield silence
    for block in recording.blocks(path, size=FILE_BLOCK):
        yield down.push(block)
    yield down.push(silence[:, :0], last=True)
    yield silence


def kept(mixture: Tensor, target: Tensor) -> Tensor:
    """The mask that `target` shows, |target| / |mixture| in [0, 1]; 0 where hardly anything is.

    Args:
        mixture, target: (H, T) from `levels`.
    """
    floor = mixture.max() * 10 ** (-RANGE_DB / 20)
    share = (target / mixture.clamp_min(1e-20)).clamp(0, 1)
    return torch.where(mixture > floor, share, torch.zeros_like(share))


def draw(
    path: Path,
    mixture_file: Path,
    target_file: Path,
    grid: Spectrogram,
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Draw the spectrogram of a recording, the mask and what was taken out as one PNG.

    Args:
        path: of the PNG.
        mixture_file, target_file: the recording and what was taken out of it.
        grid, progress: as in `levels`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mixture, column_s = levels(mixture_file, grid, progress=lambda share: progress(share / 2))
    target, _ = levels(target_file, grid, progress=lambda share: progress(0.5 + share / 2))
    loudest = float(mixture.max().clamp_min(1e-20))
    decibels = {"cmap": "magma", "vmin": -RANGE_DB, "vmax": 0}
    panels = {
        "recording": (20 * torch.log10(mixture / loudest + 1e-9), decibels),
        "mask: the share that was taken": (
            kept(mixture, target),
            {"cmap": "viridis", "vmin": 0, "vmax": 1},
        ),
        "target": (20 * torch.log10(target / loudest + 1e-9), decibels),
    }
    nyquist_khz = grid.sample_rate / 2000
    ticks = [tick for tick in TICKS_KHZ if tick <= nyquist_khz]
    rows = [math.log(20 * tick / nyquist_khz + 1) / math.log(21) for tick in ticks]
    figure = Figure(figsize=(7.5, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True)
    extent = (0, mixture.shape[-1] * column_s, 0, 1)
    for axis, (title, (values, look)) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(values, origin="lower", aspect="auto", extent=extent, **look)
        figure.colorbar(image, ax=axis, pad=0.01, label="dB" if look is decibels else "share")
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_yticks(rows, [f"{tick:g}" for tick in ticks])
        axis.set_ylabel("kHz")
    axes[-1].set_xlabel("s")
    figure.savefig(path, dpi=140)
