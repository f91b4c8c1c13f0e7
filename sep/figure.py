"""The picture of a separation, gathered while it runs in memory that does not grow."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from sep.errors import SepError
from sep.filenames import temporary_of
from sep.model import QueryNet
from sep.networks.prior import PriorNet
from sep.spectrogram import Spectrogram
from sep.stream import Both, Ear

COLUMNS = 1200  # of the picture at most; longer recordings are averaged to so many
STRETCH = 1024  # frames whose heat map is made at once


class Pool:
    """An ear that keeps a picture of the mean magnitude of what it hears.

    Args:
        grid: the spectrogram.
        samples: how many will come, at the spectrogram's rate.
    """

    def __init__(self, grid: Spectrogram, samples: int):
        self.grid, self.frames = grid, max(1, 1 + (samples - grid.n_fft) // grid.hop)
        self.columns = min(COLUMNS, self.frames)
        self.total = torch.zeros(grid.n_fft // 2 + 1, self.columns)
        self.count = torch.zeros(self.columns)
        self.waiting, self.done = torch.zeros(0), 0

    def push(self, wave: Tensor) -> None:
        """Take samples (n,)."""
        self.waiting = torch.cat([self.waiting, wave.cpu()])
        if len(self.waiting) >= self.grid.n_fft:
            frames = self.waiting.unfold(0, self.grid.n_fft, self.grid.hop)
            self._take(frames)
            self.waiting = self.waiting[len(frames) * self.grid.hop :]

    def picture(self) -> Tensor:
        """Mean magnitudes (H, columns) on the log-frequency grid."""
        if not self.done:  # shorter than a window
            short = self.grid.n_fft - len(self.waiting)
            self._take(torch.nn.functional.pad(self.waiting, (0, short))[None])
        mean = self.total / self.count.clamp(min=1)
        return self.grid.warp(mean.to(self.grid.window.device)).cpu()

    def _take(self, frames: Tensor) -> None:
        """Add windows (T, n_fft) to the columns that they belong to."""
        window = self.grid.window.cpu()
        magnitude = torch.fft.rfft(frames * window).abs().T
        place = torch.arange(self.done, self.done + len(frames)).clamp(max=self.frames - 1)
        column = place * self.columns // self.frames
        self.total.index_add_(1, column, magnitude)
        self.count.index_add_(0, column, torch.ones(len(frames)))
        self.done += len(frames)


class Prior:
    """An ear that keeps a picture of a network's heat maps of the mixture that it hears.

    Args:
        model: the network.
        queries: (Q, D).
        samples: how many will come, at the model's rate.
        columns: of the picture.
    """

    def __init__(self, model: PriorNet, queries: Tensor, samples: int, columns: int):
        self.model, self.queries, self.grid = model, queries, model.spectrogram
        self.frames, self.columns = 1 + samples // self.grid.hop, columns
        rows = -(-self.grid.log_bins // model.stride)
        self.total = torch.zeros(len(queries), rows, self.columns)
        self.count = torch.zeros(self.columns)
        self.waiting, self.done = torch.zeros(0), 0

    def push(self, wave: Tensor) -> None:
        """Take samples (n,)."""
        self.waiting = torch.cat([self.waiting, wave.cpu()])
        size = STRETCH * self.grid.hop
        while len(self.waiting) > size:
            self._take(self.waiting[:size], STRETCH)
            self.waiting = self.waiting[size:]

    def picture(self) -> Tensor:
        """Mean of the heat maps' cells in [0, 1], (Q, h, columns)."""
        self._take(self.waiting, max(0, self.frames - self.done))
        self.waiting = self.waiting[:0]
        return self.total / self.count.clamp(min=1)

    @torch.no_grad()
    def _take(self, wave: Tensor, frames: int) -> None:
        """Add the heat maps of a stretch (n,) to the columns of its first frames."""
        magnitude = self.grid.stft(wave.to(self.grid.window.device)[None]).abs()
        queries = self.queries.to(magnitude.device)[None]
        cells = torch.sigmoid(self.model.heatmap(magnitude, queries))[0].cpu()  # (Q, h, w)
        heat = cells.repeat_interleave(self.model.stride, -1)[..., :frames]
        place = torch.arange(self.done, self.done + heat.shape[-1]).clamp(max=self.frames - 1)
        column = place * self.columns // self.frames
        self.total.index_add_(2, column, heat)
        self.count.index_add_(0, column, torch.ones(len(column)))
        self.done += len(column)


class Picture:
    """Mixture, masks and targets of one recording, and the prior where the network has one.

    Args:
        model: the network.
        names: of the sounds.
        queries: their embeddings (Q, D).
        refine: whether the targets are those of refined queries, each of a moment of its own; the
            prior is that of the queries as they were asked, of no mask that was used.
    """

    def __init__(
        self, model: QueryNet, names: Sequence[str], queries: Tensor, refine: bool = False
    ):
        self.model, self.names, self.queries = model, names, queries
        self.masked = "the mask as asked" if refine else "the mask"  # which has the prior
        self.grid = model.spectrogram
        self.pools: list[Pool] = []
        self.prior: Prior | None = None

    def ears(self, samples: int) -> list[Ear]:
        """Listeners to the mixture and each target of `samples` samples at the model's rate."""
        self.pools = [Pool(self.grid, samples) for _ in range(1 + len(self.names))]
        if not isinstance(self.model, PriorNet):
            return list(self.pools)
        self.prior = Prior(self.model, self.queries, samples, self.pools[0].columns)
        return [Both(self.pools[0], self.prior), *self.pools[1:]]

    def write(self, path: str | Path, title: str = "") -> None:
        """Draw what was heard as a PNG; a mask is shown as target over mixture.

        Raises:
            SepError: the file cannot be written.
        """
        from sep.train.picture import draw_separation

        mixture, *targets = (pool.picture() for pool in self.pools)
        panels, priors = {"mixture": mixture}, self.prior and self.prior.picture()
        for k, (name, target) in enumerate(zip(self.names, targets, strict=True)):
            which = f": {name[:18]}" if len(self.names) > 1 else ""
            if priors is not None:
                panels[f"prior of {self.masked}{which}"] = priors[k]
            panels[f"mask{which}"] = (target / mixture.clamp(min=1e-9)).clamp(max=1)
            panels[f"target{which}"] = target
        pool, path = self.pools[0], Path(path)
        drawn = temporary_of(path)
        hop = self.grid.hop * pool.frames / pool.columns
        try:
            draw_separation(drawn, panels, self.grid.sample_rate, hop, title)
            os.replace(drawn, path)
        except OSError as error:
            raise SepError(f"{path}: cannot be written ({error.strerror})") from None
        finally:
            with suppress(OSError):
                drawn.unlink()
