"""BSS Eval in batched torch: museval's numbers, several estimates of one target at once.

The references' Gram matrix and its factor, which are most of the work, are made once for all
estimates of a mixture. The distortion filters are applied as products of spectra, and energies are
taken there too (Parseval), so nothing is transformed back. Agrees with museval to 1e-3 dB, except
above 100 dB and where a source has no energy at all in some band: the filters are not determined
there, and museval's own numbers are uncertain by tenths of a dB.

Definitions: Vincent, Gribonval and Fevotte, IEEE TASLP 14(4), 2006; museval v4 (see
`sep.metrics.bss` for the names).
"""

from concurrent.futures import ThreadPoolExecutor

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from sep.metrics.bss import NAMES

TAPS = 512  # length of the allowed distortion filter, in samples


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
    gram = near.unfold(-1, taps, 1).flip(-1)  # (B, K, K, taps, taps): row a, column b is l = a - b
    return gram.permute(0, 1, 3, 2, 4).reshape(batch, count * taps, count * taps)


def _solve(gram: Tensor, right: Tensor) -> Tensor:
    """Least-squares filters: gram^-1 right, by Cholesky, by LU where rounding spoils that.

    Args:
        gram: (B, P, P) symmetric.
        right: (B, P, R).

    Returns:
        (B, P, R).
    """
    gram = gram.clone()
    gram.diagonal(dim1=-2, dim2=-1).add_(torch.finfo(gram.dtype).eps)
    factor, info = torch.linalg.cholesky_ex(gram)
    filters = torch.cholesky_solve(right, factor)
    for index in info.nonzero()[:, 0].tolist():
        filters[index] = torch.linalg.solve_ex(gram[index], right[index]).result
    return filters


def _ratio_db(numerator: Tensor, denominator: Tensor) -> Tensor:
    """10 log10(numerator / denominator), +inf where the denominator is 0."""
    return 10 * torch.log10(numerator / denominator)


def bss_eval(references: Tensor, estimates: Tensor, taps: int = TAPS) -> dict[str, Tensor]:
    """Scores of E estimates of the first of S sources, for B mixtures.

    Args:
        references: (B, S, C, N) true sources, the target first.
        estimates: (B, E, C, N) estimates of the target.
        taps: length of the distortion filters in samples; museval's default is 512.

    Returns:
        The five names of `sep.metrics.bss.NAMES`, each (B, E) float64 in dB; NaN where a source
        or the estimate is silent.
    """
    references, estimates = references.double(), estimates.double()
    sources, channels, length = references.shape[1:]
    count = estimates.shape[1]
    n_fft = next_fast_len(length + taps - 1, real=True)

    def spectrum(x: Tensor) -> Tensor:
        return torch.fft.rfft(x, n=n_fft)

    reference = references.flatten(1, 2)  # (B, K, N), K = S * C, the target's channels first
    estimate = estimates.flatten(1, 2)  # (B, E * C, N)
    reference_f, estimate_f = spectrum(reference), spectrum(estimate)

    silent = (references == 0).all(-1).all(-1).any(-1, keepdim=True)  # (B, 1)
    silent = silent | (estimates == 0).all(-1).all(-1)  # (B, E)

    correlation = torch.fft.irfft(
        reference_f.unsqueeze(2).conj() * reference_f.unsqueeze(1), n=n_fft
    )
    gram = _toeplitz(correlation, taps)
    # cross[b, (k, a), r] = sum_n x_k[n - a] e_r[n]
    cross = torch.fft.irfft(reference_f.unsqueeze(2).conj() * estimate_f.unsqueeze(1), n=n_fft)
    cross = cross[..., :taps].permute(0, 1, 3, 2).flatten(1, 2)

    def project(regressors: int) -> Tensor:
        """Estimates' projections on the delayed first `regressors` channels: (B, E * C, bins)."""
        size = regressors * taps
        filters = _solve(gram[:, :size, :size], cross[:, :size])
        filters_f = spectrum(filters.unflatten(1, (regressors, taps)).transpose(2, 3))
        return (reference_f[:, :regressors, None] * filters_f).sum(1)

    weight = reference.new_full((reference_f.shape[-1],), 2.0)  # both halves of the spectrum
    weight[0] = 1.0
    if n_fft % 2 == 0:
        weight[-1] = 1.0

    def energy(x: Tensor) -> Tensor:
        """(B, E * C, bins) -> (B, E): energy over the channels."""
        power = (torch.view_as_real(x).square().sum(-1) * weight).sum(-1) / n_fft
        return power.unflatten(1, (count, channels)).sum(-1)

    true = reference_f[:, :channels].repeat(1, count, 1)  # (B, E * C, bins)
    filtered = project(channels)  # target with its distortion filter
    explained = project(sources * channels)  # what all sources together account for
    interference, artifact = energy(explained - filtered), energy(estimate_f - explained)
    filtered_energy = energy(filtered)
    scores = {
        "sdr_images": _ratio_db(energy(true), energy(estimate_f - true)),
        "isr_images": _ratio_db(energy(true), energy(filtered - true)),
        "sdr_sources": _ratio_db(filtered_energy, energy(estimate_f - filtered)),
        "sir": _ratio_db(filtered_energy, interference),
        "sar": _ratio_db(energy(explained), artifact),
    }
    return {name: scores[name].masked_fill(silent, float("nan")) for name in NAMES}


def bss_eval_many(references: Tensor, estimates: Tensor, jobs: int = 1) -> dict[str, Tensor]:
    """`bss_eval` over any number of mixtures, one at a time on each of `jobs` threads.

    A mixture's arithmetic is the same whatever `jobs` is, and so are its scores.

    Args:
        references: (B, S, C, N).
        estimates: (B, E, C, N).
        jobs: threads; each uses one core.

    Returns:
        As `bss_eval`, on the CPU.
    """
    threads = torch.get_num_threads()

    def one(index: int) -> dict[str, Tensor]:
        torch.set_num_threads(1)  # OpenMP keeps this setting per thread
        scores = bss_eval(references[index : index + 1], estimates[index : index + 1])
        return {name: value.cpu() for name, value in scores.items()}

    try:
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            parts = list(pool.map(one, range(len(references))))
    finally:
        torch.set_num_threads(threads)
    return {name: torch.cat([part[name] for part in parts]) for name in NAMES}
