"""How loud a recording is: peak, RMS, clipped samples and loudness, block by block."""

import math

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

SURROUND = (1.0, 1.0, 1.0, 0.0, 1.41, 1.41)  # weights of 5.1: left, right, centre, LFE, back
GATE_LUFS, GATE_LU = -70.0, -10.0


class Level:
    """Measures samples that arrive in blocks; memory grows by 10 numbers a second.

    Loudness is that of ITU-R BS.1770-4: energy after the K filter in blocks of 400 ms every
    100 ms, those below -70 LUFS left out, then those 10 LU below the mean of the rest.

    Args:
        channels: C; six are taken as 5.1.
        rate: in Hz.
        full: magnitude from which a sample counts as clipped.
    """

    def __init__(self, channels: int, rate: int, full: float = 1.0):
        self.full, self.hop = full, round(0.1 * rate)
        self.filters = [(b, a, np.zeros((channels, 2))) for b, a in k_filter(rate)]
        self.weights = np.array(SURROUND if channels == 6 else [1.0] * channels)
        self.frames = self.clipped = 0
        self.peak, self.power = 0.0, 0.0
        self.waiting = np.zeros((channels, 0))
        self.energies: list[np.ndarray] = []  # weighted sum over channels of each 100 ms

    def push(self, block: Tensor) -> None:
        """Take samples (C, n)."""
        magnitude = block.abs()
        self.frames += block.shape[-1]
        self.clipped += int((magnitude >= self.full).sum())
        self.peak = max(self.peak, float(magnitude.max()) if block.numel() else 0.0)
        self.power += float(block.double().square().mean(0).sum())
        wave = block.to(torch.float64).numpy()
        for i, (b, a, state) in enumerate(self.filters):
            wave, state = lfilter(b, a, wave, zi=state)
            self.filters[i] = (b, a, state)
        wave = np.concatenate([self.waiting, wave], -1)
        count = wave.shape[-1] // self.hop
        whole = wave[:, : count * self.hop].reshape(len(wave), count, self.hop)
        self.energies.append(self.weights @ np.square(whole).mean(-1))
        self.waiting = wave[:, count * self.hop :]

    @property
    def peak_db(self) -> float:
        """Largest sample in dBFS, -inf for silence."""
        return _db(self.peak**2)

    @property
    def rms_db(self) -> float:
        """Root mean square over samples and channels in dBFS, -inf for silence."""
        return _db(self.power / max(self.frames, 1))

    @property
    def loudness(self) -> float:
        """Integrated loudness in LUFS; -inf for silence, NaN below 400 ms."""
        hops = np.concatenate([np.zeros(0), *self.energies])
        if len(hops) < 4:
            return math.nan
        blocks = np.convolve(hops, np.full(4, 0.25), "valid")
        blocks = blocks[blocks > 10 ** ((GATE_LUFS + 0.691) / 10)]
        if not len(blocks):
            return -math.inf
        blocks = blocks[blocks > blocks.mean() * 10 ** (GATE_LU / 10)]
        return -0.691 + _db(float(blocks.mean()))


def k_filter(rate: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two sections (b, a) of the K filter of BS.1770 at any rate in Hz.

    A shelf of 4 dB above 1.7 kHz and a high-pass at 38 Hz, by the bilinear transform; at 48 kHz
    the coefficients of the standard's tables.
    """
    sections = []
    for kind, centre, quality, gain_db in (
        ("shelf", 1681.974450955533, 0.7071752369554196, 3.999843853973347),
        ("high", 38.13547087602444, 0.5003270373238773, 0.0),
    ):
        k = math.tan(math.pi * min(centre, 0.49 * rate) / rate)
        bottom = 1 + k / quality + k * k
        if kind == "shelf":
            top = 10 ** (gain_db / 20)
            middle = top**0.4996667741545416
            b = [top + middle * k / quality + k * k, 2 * (k * k - top)]
            b.append(top - middle * k / quality + k * k)
            b = np.array(b) / bottom
        else:
            b = np.array([1.0, -2.0, 1.0])
        a = np.array([1.0, 2 * (k * k - 1) / bottom, (1 - k / quality + k * k) / bottom])
        sections.append((b, a))
    return sections


def _db(power: float) -> float:
    return 10 * math.log10(power) if power > 0 else -math.inf
