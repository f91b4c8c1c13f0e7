"""Short-time Fourier transform and the log-frequency warp, batched in torch on any device."""

import math

import torch
from torch import Tensor, nn


class Spectrogram(nn.Module):
    """STFT, inverse STFT and the warp between linear and log-frequency bins.

    Output row y in [-1, 1] of the warp reads input row (21^((y + 1) / 2) - 11) / 10, linearly
    interpolated between the two nearest bins; the way back reads ln(10 y + 11) / ln(21) * 2 - 1
    (the warp of CLIPSep and OmniSep, arXiv 2212.07065). Positions are computed in float64.

    Args:
        sample_rate: rate of the waveforms in Hz.
        n_fft: window and transform length in samples (Hann window).
        hop: samples between frames.
        log_bins: rows H of the warped spectrogram.
    """

    def __init__(
        self, sample_rate: int = 16_000, n_fft: int = 1024, hop: int = 256, log_bins: int = 256
    ):
        super().__init__()
        self.sample_rate, self.n_fft, self.hop, self.log_bins = sample_rate, n_fft, hop, log_bins
        bins = n_fft // 2 + 1
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        y = torch.linspace(-1, 1, log_bins, dtype=torch.float64)
        self._register_rows("warp", (21 ** ((y + 1) / 2) - 11) / 10, bins)
        y = torch.linspace(-1, 1, bins, dtype=torch.float64)
        self._register_rows("unwarp", torch.log(10 * y + 11) / math.log(21) * 2 - 1, log_bins)

    def _register_rows(self, name: str, position: Tensor, rows: int) -> None:
        row = ((position + 1) / 2 * (rows - 1)).clamp(0, rows - 1)
        lower = row.floor().clamp(max=rows - 2)
        self.register_buffer(f"{name}_row", lower.long(), persistent=False)
        self.register_buffer(f"{name}_weight", (row - lower).float()[:, None], persistent=False)

    @property
    def config(self) -> dict[str, int]:
        """Constructor arguments."""
        return {
            "sample_rate": self.sample_rate,
            "n_fft": self.n_fft,
            "hop": self.hop,
            "log_bins": self.log_bins,
        }

    def stft(self, wave: Tensor) -> Tensor:
        """Transform waveforms (..., N) to complex spectrograms (..., F, T), T = N // hop + 1.

        Frames are centred; a waveform shorter than half a window is padded with zeros first.
        """
        shape, wave = wave.shape[:-1], wave.reshape(-1, wave.shape[-1])
        if wave.shape[-1] <= self.n_fft // 2:
            wave = nn.functional.pad(wave, (0, self.n_fft // 2 + 1 - wave.shape[-1]))
        spectrum = torch.stft(
            wave, self.n_fft, self.hop, window=self.window, return_complex=True, pad_mode="reflect"
        )
        return spectrum.reshape(*shape, *spectrum.shape[-2:])

    def istft(self, spectrum: Tensor, length: int) -> Tensor:
        """Transform complex spectrograms (..., F, T) to waveforms (..., N) of N = length."""
        shape, spectrum = spectrum.shape[:-2], spectrum.reshape(-1, *spectrum.shape[-2:])
        frames = torch.fft.irfft(spectrum.mT, self.n_fft) * self.window  # (n, T, n_fft)
        weight = self.window.square().expand(1, frames.shape[1], -1)
        begin = self.n_fft // 2  # frames are centred
        wave, weight = (self._overlap(x)[:, begin : begin + length] for x in (frames, weight))
        wave = nn.functional.pad(wave / weight.clamp(min=1e-8), (0, length - wave.shape[-1]))
        return wave.reshape(*shape, length)

    def _overlap(self, frames: Tensor) -> Tensor:
        """Sum of frames (n, T, n_fft), each `hop` samples after the one before: (n, samples)."""
        parts = nn.functional.pad(frames, (0, -self.n_fft % self.hop)).split(self.hop, -1)
        count = frames.shape[1]
        wave = frames.new_zeros(len(frames), count + len(parts) - 1, self.hop)
        for k, part in enumerate(parts):
            wave[:, k : k + count] += part
        return wave.flatten(1)

    def warp(self, magnitude: Tensor) -> Tensor:
        """Resample the frequency axis: (..., F, T) to (..., H, T)."""
        return _read_rows(magnitude, self.warp_row, self.warp_weight)

    def unwarp(self, mask: Tensor) -> Tensor:
        """Resample the frequency axis back: (..., H, T) to (..., F, T)."""
        return _read_rows(mask, self.unwarp_row, self.unwarp_weight)


def _read_rows(values: Tensor, row: Tensor, weight: Tensor) -> Tensor:
    lower = values.index_select(-2, row)
    upper = values.index_select(-2, row + 1)
    return torch.lerp(lower, upper, weight.to(values.dtype).expand_as(lower))
