"""Signal-to-distortion ratios without filters: SI-SDR, its improvement, and plain SDR.

All functions take waveforms with the samples last, work in float64 and broadcast over the leading
axes. A silent reference or a silent estimate has no defined ratio and gives NaN, so that it can be
counted instead of quietly bending a mean; an exact estimate gives +inf.

Reference: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019.
"""

import torch
from torch import Tensor


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (...) of broadcastable (..., N), without a product of their size in memory."""
    return torch.einsum("...n,...n->...", a, b)


def _ratio_db(signal: Tensor, noise: Tensor, defined: Tensor) -> Tensor:
    """10 log10(signal / noise) where `defined`, NaN elsewhere."""
    ratio = 10 * torch.log10(signal / noise)
    return torch.where(defined, ratio, torch.full_like(ratio, float("nan")))


def sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Plain SDR (also called SNR): 10 log10(|s|^2 / |s - e|^2).

    For a mono signal this is museval's default ("images") SDR.

    Args:
        estimate: (..., N).
        reference: (..., N), broadcastable with `estimate`.

    Returns:
        (...) float64 in dB; NaN where either signal is silent.
    """
    estimate, reference = estimate.double(), reference.double()
    signal, error = _dot(reference, reference), reference - estimate
    return _ratio_db(signal, _dot(error, error), (signal > 0) & (_dot(estimate, estimate) > 0))


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant SDR: 10 log10(|a s|^2 / |a s - e|^2) with a = <e, s> / |s|^2.

    The mean is not removed, as in the paper and in torchmetrics' default.

    Args:
        estimate: (..., N).
        reference: (..., N), broadcastable with `estimate`.

    Returns:
        (...) float64 in dB; NaN where either signal is silent.
    """
    estimate, reference = estimate.double(), reference.double()
    energy = _dot(reference, reference)
    scale = _dot(estimate, reference) / energy
    error = estimate - scale.unsqueeze(-1) * reference
    defined = (energy > 0) & (_dot(estimate, estimate) > 0)
    return _ratio_db(scale.square() * energy, _dot(error, error), defined)


def si_sdr_improvement(estimate: Tensor, reference: Tensor, mixture: Tensor) -> Tensor:
    """SI-SDRi: SI-SDR of the estimate minus that of the unprocessed mixture.

    Args:
        estimate: (..., N).
        reference: (..., N).
        mixture: (..., N).

    Returns:
        (...) float64 in dB; NaN where the reference, estimate or mixture is silent.
    """
    return si_sdr(estimate, reference) - si_sdr(mixture, reference)
