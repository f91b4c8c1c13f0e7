"""BSS Eval in batched torch: museval's numbers, several estimates of one target at once.

The references' Gram matrix and its factor, which are most of the work, are made once for all
estimates of a mixture, in both definitions. The distortion filters are applied as products of
spectra, and energies are taken there too (Parseval), so nothing is transformed back. Agrees with
museval to 1e-3 dB, except above 100 dB and where a source has no energy at all in some band: the
filters are not determined there, and museval's own numbers are uncertain by tenths of a dB.

Measured by recipes/bench.py (cases=[bss]) on two quiet cores of an Intel Xeon, against two
processes of museval, mixtures of 4 s: 11 to 12 times as fast with one output a mixture, 25 to 28
times with three, the least that recipes/score.py has (mixture, ideal mask, a system), 36 to 40
with five.

Definitions: Vincent, Gribonval and Fevotte, IEEE TASLP 14(4), 2006; museval v4 (see
`sep.metrics.bss` for the names and the window settings).
"""

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from scipy.fft import next_fast_len
from scipy.linalg import cython_lapack
from threadpoolctl import threadpool_limits
from torch import Tensor

from sep.metrics.bss import NAMES, TAPS, Windows


def _toeplitz(correlation: Tensor, taps: int) -> Tensor:
    """Gram matrix of delayed signals from their circular cross-correlations.

    Args:
        correlation: (B, K, K, L) with [b, i, j, l] = sum_n x_i[n] x_j[n + l], lags modulo L.
        taps: number of delays, 0 to taps - 1.

    Returns:
        (B, K * taps, K * taps) with [(i, a), (j, b)] = sum_n x_i[n - a] x_j[n - b].
    """
    batch, count = correlation.shape[:2]
    near = torch.cat([correlation[..., 1 - taps :], correlation[..., :taps]], -1)  # |l| < taps
    if not near.is_cuda:
        return torch.from_numpy(_rows(near.numpy()))
    rows = near.flip(-1).unfold(-1, taps, 1).flip(-2)  # (B, K, K, taps, taps): a, b is l = a - b
    return rows.permute(0, 1, 3, 2, 4).reshape(batch, count * taps, count * taps)


def _rows(near: np.ndarray) -> np.ndarray:
    """`_toeplitz` of (B, K, K, 2 * taps - 1), the lags from 1 - taps on, in one copy."""
    batch, count, _, lags = near.shape
    taps, step = (lags + 1) // 2, near.strides[-1]
    view = as_strided(
        near[..., taps - 1 :],
        (batch, count, taps, count, taps),
        (*near.strides[:2], step, near.strides[2], -step),
        writeable=False,
    )
    return np.ascontiguousarray(view).reshape(batch, count * taps, count * taps)


@functools.cache
def _lapack(name: str, arguments: int) -> Callable[..., None]:
    """A LAPACK routine as a C function: scipy's own wrappers keep all other threads waiting.

    Its arguments are addresses, as in Fortran; matrices are read by columns, so that the lower
    triangle of a numpy matrix is the upper one.

    Raises:
        ImportError: a scipy whose LAPACK has other integers, which this would overrun.
    """
    capsule, api = cython_lapack.__pyx_capi__[name], ctypes.pythonapi
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    address_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    signature = name_of(capsule)  # as C declares it, such as "void (char *, int *, ..."
    if not signature.startswith(b"void (char *, int *"):
        raise ImportError(f"scipy's {name} does not take C's int ({signature.decode()})")
    routine = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)
    return routine(address_of(capsule, signature))


def _factor(matrix: np.ndarray) -> int:
    """Cholesky in place: (P, P) float64, symmetric and contiguous, to its lower triangle.

    The other triangle keeps what it held. Returns LAPACK's `info`, 0 where there is a factor.
    """
    order, info = ctypes.byref(ctypes.c_int(len(matrix))), ctypes.c_int(0)
    _lapack("dpotrf", 5)(b"U", order, matrix.ctypes.data, order, ctypes.byref(info))
    return info.value


def _substitute(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve by the first Q rows and columns of a `_factor`: (Q, R) to (Q, R)."""
    found = right.T.copy()  # (R, Q): LAPACK's columns, which it overwrites
    sizes = (len(factor), *right.shape, 0)
    stride, order, count, info = (ctypes.byref(ctypes.c_int(x)) for x in sizes)
    address = found.ctypes.data
    _lapack("dpotrs", 8)(b"U", order, count, factor.ctypes.data, stride, address, order, info)
    return found.T


def _solve(gram: Tensor, right: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Solve by one Cholesky factor: with the first `size` rows and columns, and with all.

    On the CPU, where scipy's LAPACK takes half the time of torch's, `gram` is overwritten.

    Args:
        gram: (B, P, P) float64, symmetric and contiguous.
        right: (B, P, R).

    Returns:
        (B, size, R), (B, P, R), and (B,) 0 where there is a factor.
    """
    if gram.is_cuda:
        factor, info = torch.linalg.cholesky_ex(gram)
        part = torch.cholesky_solve(right[:, :size], factor[:, :size, :size])
        return part, torch.cholesky_solve(right, factor), info
    parts, whole, info = [], [], []
    for matrix, columns in zip(gram.numpy(), right.numpy(), strict=True):
        info.append(_factor(matrix))
        parts.append(torch.from_numpy(_substitute(matrix, columns[:size])))
        whole.append(torch.from_numpy(_substitute(matrix, columns)))
    return torch.stack(parts), torch.stack(whole), torch.tensor(info)


def _filters(correlation: Tensor, cross: Tensor, own: int, taps: int) -> tuple[Tensor, Tensor]:
    """Least-squares filters of the target's channels, and of those of all sources.

    By Cholesky; by LU, as museval does, where rounding spoils that.

    Args:
        correlation: (B, K, K, L) of the references, as for `_toeplitz`.
        cross: (B, K * taps, R), with [(i, a), r] = sum_n x_i[n - a] e_r[n].
        own: C, how many of the K channels are the target's.

    Returns:
        (B, C * taps, R) and (B, K * taps, R).
    """
    size, ridge = own * taps, torch.finfo(correlation.dtype).eps
    gram = _toeplitz(correlation, taps)
    gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
    target, every, info = _solve(gram, cross, size)
    for i in info.nonzero()[:, 0].tolist():
        gram = _toeplitz(correlation[i : i + 1], taps)[0]
        gram.diagonal().add_(ridge)
        target[i] = torch.linalg.solve_ex(gram[:size, :size], cross[i, :size]).result
        every[i] = torch.linalg.solve_ex(gram, cross[i]).result
    return target, every


@dataclass(frozen=True)
class _Stretch:
    """Spectra of a stretch of time, long enough for the filters' tails.

    Attributes:
        reference: (B, K, bins), K = S * C, the target's channels first; estimate: (B, E * C, bins).
        channels: C; n_fft: of the spectra; silent: (B, E) bool, a source or the estimate.
    """

    reference: Tensor
    estimate: Tensor
    channels: int
    n_fft: int
    silent: Tensor

    @classmethod
    def of(cls, references: Tensor, estimates: Tensor, taps: int) -> Self:
        """Of references (B, S, C, n) and estimates (B, E, C, n)."""
        channels, length = references.shape[2:]
        n_fft = next_fast_len(length + taps - 1, real=True)
        silent = (references == 0).all(-1).all(-1).any(-1, keepdim=True)  # (B, 1)
        silent = silent | (estimates == 0).all(-1).all(-1)
        spectra = (torch.fft.rfft(x.flatten(1, 2), n=n_fft) for x in (references, estimates))
        return cls(*spectra, channels, n_fft, silent)

    def filters(self, taps: int) -> tuple[Tensor, Tensor]:
        """`_filters` of these signals, R = E * C."""
        reference, pairs = self.reference.unsqueeze(2).conj(), self.reference.unsqueeze(1)
        correlation = torch.fft.irfft(reference * pairs, n=self.n_fft)
        cross = torch.fft.irfft(reference * self.estimate.unsqueeze(1), n=self.n_fft)
        cross = cross[..., :taps].permute(0, 1, 3, 2).flatten(1, 2)
        return _filters(correlation, cross, self.channels, taps)

    def project(self, filters: Tensor, taps: int) -> Tensor:
        """The first channels through their filters, (B, channels * taps, E * C): as `estimate`."""
        filters = filters.unflatten(1, (-1, taps)).transpose(2, 3)  # (B, channels, E * C, taps)
        filters_f = torch.fft.rfft(filters, n=self.n_fft)
        return (self.reference[:, : filters.shape[1], None] * filters_f).sum(1)

    def energy(self, x: Tensor) -> Tensor:
        """(B, E * C, bins) -> (B, E): energy over the channels, by Parseval."""
        parts = torch.view_as_real(x)
        once = parts[..., :: x.shape[-1] - 1, :] if self.n_fft % 2 == 0 else parts[..., :1, :]
        # all other bins stand for two, their own and the mirrored one
        power = 2 * torch.linalg.vector_norm(parts, dim=(-2, -1)).square()
        power = (power - once.square().sum((-2, -1))) / self.n_fft
        return power.unflatten(1, (-1, self.channels)).sum(-1)


def _ratio_db(numerator: Tensor, denominator: Tensor) -> Tensor:
    """10 log10(numerator / denominator), +inf where the denominator is 0."""
    return 10 * torch.log10(numerator / denominator)


def _ratios(stretch: _Stretch, filters: tuple[Tensor, Tensor], taps: int) -> dict[str, Tensor]:
    """The scores (B, E) of a stretch of time by given filters."""
    energy, estimate = stretch.energy, stretch.estimate
    true = stretch.reference[:, : stretch.channels]
    true_energy = energy(true)  # (B, 1)
    true = true.repeat(1, estimate.shape[1] // stretch.channels, 1)
    filtered = stretch.project(filters[0], taps)  # target with its distortion filter
    # what all sources together account for; where there is one source, the same
    several = stretch.reference.shape[1] > stretch.channels
    explained = stretch.project(filters[1], taps) if several else filtered
    filtered_energy = energy(filtered)
    scores = {
        "sdr_images": _ratio_db(true_energy, energy(estimate - true)),
        "isr_images": _ratio_db(true_energy, energy(filtered - true)),
        "sdr_sources": _ratio_db(filtered_energy, energy(estimate - filtered)),
        "sir": _ratio_db(filtered_energy, energy(explained - filtered)),
        "sar": _ratio_db(energy(explained), energy(estimate - explained)),
    }
    return {name: scores[name].masked_fill(stretch.silent, float("nan")) for name in NAMES}


def bss_eval(
    references: Tensor, estimates: Tensor, taps: int = TAPS, windows: Windows | None = None
) -> dict[str, Tensor]:
    """Scores of E estimates of the first of S sources, for B mixtures.

    Args:
        references: (B, S, C, N) true sources, the target first. S may be 1: the SIR is then +inf.
        estimates: (B, E, C, N) estimates of the target.
        taps: length of the distortion filters in samples; museval's default is 512.
        windows: W stretches of time to score apart.

    Returns:
        The five names of `sep.metrics.bss.NAMES`, each (B, E), or (B, E, W) where there are
        `windows`, float64 in dB; NaN where a source or the estimate is silent.
    """
    references, estimates = references.double(), estimates.double()
    if windows is None or not windows.framewise:
        whole = _Stretch.of(references, estimates, taps)
        filters = whole.filters(taps)
        if windows is None:
            return _ratios(whole, filters, taps)
    found = []
    for part in windows.slices(references.shape[-1]):
        stretch = _Stretch.of(references[..., part], estimates[..., part], taps)
        own = stretch.filters(taps) if windows.framewise else filters
        found.append(_ratios(stretch, own, taps))
    return {name: torch.stack([scores[name] for scores in found], -1) for name in NAMES}


def bss_eval_many(
    references: Tensor, estimates: Tensor, jobs: int = 1, **options: Any
) -> dict[str, Tensor]:
    """`bss_eval` over any number of mixtures, one at a time on each of `jobs` threads.

    A mixture's arithmetic is the same whatever `jobs` is, and so are its scores.

    Args:
        references: (B, S, C, N).
        estimates: (B, E, C, N).
        jobs: threads; each uses one core.
        options: `taps` and `windows` of `bss_eval`.

    Returns:
        As `bss_eval`, on the CPU.
    """
    threads = torch.get_num_threads()

    def one(index: int) -> dict[str, Tensor]:
        torch.set_num_threads(1)  # OpenMP keeps this setting per thread
        part = slice(index, index + 1)
        scores = bss_eval(references[part], estimates[part], **options)
        return {name: value.cpu() for name, value in scores.items()}

    try:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(max_workers=jobs) as pool:
            parts = list(pool.map(one, range(len(references))))
    finally:
        torch.set_num_threads(threads)
    return {name: torch.cat([part[name] for part in parts]) for name in NAMES}
