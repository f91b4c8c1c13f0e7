"""BSS Eval v4 of all sources of a song at once, over windows and over the whole, in torch.

museval's `bss_eval` with its defaults: the distortion filters are those of the whole song, and a
window is scored as if it were all there is. It works in blocks, so that memory beside the sounds
themselves does not grow with their length. Agrees with museval to 1e-3 dB, except where the filters
are hardly determined, as for pure tones: SIR and SAR are then those of the projection, which
museval's solution has been seen to miss by decibels.

Definitions: Stoter, Liutkus and Ito, The 2018 Signal Separation Evaluation Campaign, LVA/ICA 2018.
"""

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from sep.metrics.bss_torch import TAPS, _ratio_db, _toeplitz

NAMES = ("sdr_images", "isr_images", "sir", "sar")
RIDGES = (1e-14, 1e-12, 1e-10)  # of the mean power, where channels are alike and filters undefined


class SongScorer:
    """Scores estimates of the sources of one song.

    Args:
        references: (S, C, N) true sources.
        window: samples of a window; from one to the next it is as many. A rest is left out.
        taps: length of the distortion filters in samples.
    """

    def __init__(self, references: Tensor, window: int, taps: int = TAPS):
        self.references, self.taps = references, taps
        self.window = min(window, references.shape[-1])
        self.n_fft = next_fast_len(self.window + taps - 1, real=True)
        self.channels = references.shape[1]
        rows = references.flatten(0, 1)
        ahead = self._correlate(rows, rows)  # (K, K, taps), K = S * C
        behind = ahead.transpose(0, 1)[..., 1:].flip(-1)
        gram = _toeplitz(torch.cat([ahead, behind], -1)[None], taps)[0]
        size = self.channels * taps
        own = [slice(s * size, (s + 1) * size) for s in range(len(references))]
        self.all_of = _Solver(gram)
        self.own_of = [_Solver(gram[part, part]) for part in own]

    def score(self, estimates: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Score one estimate a source.

        Args:
            estimates: (S, C, N), in the order of the references.

        Returns:
            By the four `NAMES`, in dB: (S, W) of the windows, and (S,) of the whole song. NaN
            for all sources where any reference or estimate is silent.
        """
        sources, channels, length = self.references.shape
        references, rows = self.references.flatten(0, 1), estimates.flatten(0, 1)
        cross = self._correlate(references, rows)  # (K, R, taps), R = S * C
        right = cross.transpose(1, 2).flatten(0, 1)  # (K * taps, R)
        filters = self.all_of.solve(right).unflatten(0, (-1, self.taps)).permute(2, 0, 1)
        own = torch.zeros_like(filters)  # (R, K, taps)
        size = channels * self.taps
        for s, solver in enumerate(self.own_of):
            part = slice(s * channels, (s + 1) * channels)
            found = solver.solve(right[s * size : (s + 1) * size, part])
            own[part, part] = found.unflatten(0, (-1, self.taps)).permute(2, 0, 1)
        spectra = [torch.fft.rfft(f, n=self.n_fft) for f in (filters, own)]

        windows, total = [], torch.zeros(7, sources, dtype=torch.float64)
        for start in range(0, length + self.taps - 1, self.window):
            stop = start + self.window
            if stop <= length:
                energies = self._energies(references, rows, spectra, start, start, stop)
                silent = [_silent(x[..., start:stop]) for x in (self.references, estimates)]
                windows.append(energies * (float("nan") if any(silent) else 1.0))
            first = max(0, start - self.taps + 1)  # what still rings in these samples
            total += self._energies(references, rows, spectra, first, start, stop, whole=True)
        if _silent(self.references) or _silent(estimates):
            total *= float("nan")
        return _scores(torch.stack(windows, -1)), _scores(total)

    def _correlate(self, first: Tensor, second: Tensor) -> Tensor:
        """Sums over n of x[n] y[n + l], l from 0: (P, N) and (R, N) to (P, R, taps)."""
        total = 0
        for start in range(0, first.shape[-1], self.window):
            x = first[:, start : start + self.window].double()
            y = second[:, start : start + self.window + self.taps - 1].double()
            x, y = (torch.fft.rfft(wave, n=self.n_fft) for wave in (x, y))
            total = total + x.conj()[:, None] * y
        return torch.fft.irfft(total, n=self.n_fft)[..., : self.taps]

    def _energies(
        self,
        references: Tensor,
        rows: Tensor,
        spectra: list[Tensor],
        first: int,
        start: int,
        stop: int,
        whole: bool = False,
    ) -> Tensor:
        """Energies (7, S) of what the scores are made of.

        Of the references from `first` to `stop`, and then nothing, filtered; counted from `start`
        to `stop`, or unless `whole` until the filters have rung out.
        """
        heard = torch.fft.rfft(references[:, first:stop].double(), n=self.n_fft)
        skip, count = start - first, stop - start + (0 if whole else self.taps - 1)
        everything, own = (
            torch.fft.irfft(torch.einsum("kf,rkf->rf", heard, f), n=self.n_fft)[
                :, skip : skip + count
            ]
            for f in spectra
        )
        true, estimate = (
            torch.nn.functional.pad(x, (0, count - x.shape[-1]))
            for x in (x[:, start:stop].double() for x in (references, rows))
        )
        parts = (
            true,
            estimate - true,
            own - true,
            own,
            everything - own,
            everything,
            estimate - everything,
        )
        energies = torch.stack([part.square().sum(-1) for part in parts])  # (7, R)
        return energies.unflatten(1, (-1, self.channels)).sum(-1)


class _Solver:
    """Least-squares filters from a Gram matrix (P, P), which is factored once."""

    def __init__(self, gram: Tensor):
        gram, power = gram.clone(), gram.diagonal().mean()
        for ridge in (torch.finfo(gram.dtype).eps, *(power * x for x in RIDGES)):
            gram.diagonal().add_(ridge)
            self.factor, failed = torch.linalg.cholesky_ex(gram)
            if not failed:
                break

    def solve(self, right: Tensor) -> Tensor:
        """(P, R) to (P, R)."""
        return torch.cholesky_solve(right, self.factor)


def _silent(waves: Tensor) -> bool:
    """Whether the channels of any of the waveforms (S, C, n) add up to nothing, as in museval."""
    return bool((waves.sum(1) == 0).all(-1).any())


def _scores(energies: Tensor) -> dict[str, Tensor]:
    """Energies (7, S, ...) to the four ratios (S, ...) in dB."""
    true, error, spatial, own, interference, explained, artifacts = energies
    pairs = ((true, error), (true, spatial), (own, interference), (explained, artifacts))
    return {name: _ratio_db(*pair) for name, pair in zip(NAMES, pairs, strict=True)}
