"""Supervised mask targets and losses; pure functions returning (loss, detached diagnostics)."""

import torch
from torch import Tensor, nn

from sep.spectrogram import Spectrogram
from sep.train.batch import Batch


def bin_weight(mixture: Tensor) -> Tensor:
    """OmniSep's loss weight of time-frequency bins, clamp(log(1 + |X|), 0.001, 10); any shape."""
    return torch.log1p(mixture).clamp(1e-3, 10.0)


def target_masks(sources: Tensor, mixture: Tensor, kind: str, rest: Tensor | None = None) -> Tensor:
    """Ideal masks of each source.

    Args:
        sources: (B, S, H, T) source magnitudes.
        mixture: (B, H, T) mixture magnitude.
        kind: `binary`, 1 where |S_n| > 0.5 |X| (CLIPSep, OmniSep), or `ratio`,
            |S_n| / sum_n |S_n|.
        rest: (B, H, T) magnitude of what is in the mixture beside the sources; part of that sum.

    Returns:
        (B, S, H, T) in [0, 1].
    """
    if kind == "binary":
        return (sources > 0.5 * mixture[:, None]).to(sources.dtype)
    if kind == "ratio":
        total = sources.sum(1, keepdim=True)
        total = total if rest is None else total + rest[:, None]
        return sources / total.clamp(min=1e-8)
    raise ValueError(f"target '{kind}' is unknown; use binary or ratio")


def ideal_masks(batch: Batch, kind: str = "ratio") -> Tensor:
    """`target_masks` (B, S, H, T) of a batch."""
    return target_masks(batch.warped, batch.mixture, kind, batch.rest)


def weighted_bce(
    logits: Tensor, target: Tensor, weight: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Binary cross-entropy of mask logits, weighted by bin.

    Args:
        logits, target: (B, S, H, T).
        weight: (B, H, T), e.g. `bin_weight`; its mean over the batch is divided out, so that the
            loss is in nats a bin whatever the level.
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = (bce * weight[:, None]).mean() / weight.mean().clamp(min=1e-8)
    mask = torch.sigmoid(logits.detach())
    return loss, {"bce": loss.detach(), "mask_mean": mask.mean()}


def si_sdr_loss(
    mask: Tensor, spectrum: Tensor, sources: Tensor, limit_db: float = 30.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative SI-SDR of masked mixtures in units of 10 dB, from their spectrograms alone.

    The STFT with Hann windows a quarter of their length apart keeps inner products (Parseval), so
    no waveform has to be made. A masked spectrogram is not quite one of a waveform; the part that
    the inverse STFT would drop counts as noise here. The ratio flattens towards `limit_db`, as in
    mixture invariant training (arXiv 2006.12701): a share of the signal, 10^(-limit / 10), is added
    to the noise, so that what is already clean gives no more gradient.

    Args:
        mask: (B, S, F, T) on the linear frequency grid.
        spectrum: (B, F, T) complex mixtures.
        sources: (B, S, F, T) complex sources; silent ones are left out.
    """
    power = spectrum.real.square() + spectrum.imag.square()
    cross = (spectrum[:, None] * sources.conj()).real
    energy = (sources.real.square() + sources.imag.square()).sum((-2, -1))
    heard = energy > 1e-6
    signal = (mask * cross).sum((-2, -1)).square() / energy.clamp(min=1e-6)
    noise = ((mask.square() * power[:, None]).sum((-2, -1)) - signal).clamp(min=0)
    ratio = (signal + 1e-6) / (noise + 10 ** (-limit_db / 10) * signal + 1e-6)
    loss = -(torch.log10(ratio) * heard).sum() / heard.sum().clamp(min=1)
    return loss, {"si_sdr_loss": loss.detach()}


def separation_loss(
    logits: Tensor, batch: Batch, grid: Spectrogram, target: str = "ratio", si_sdr: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """What supervised training minimises: weighted BCE of the masks + si_sdr x `si_sdr_loss`.

    Args:
        logits: (B, S, H, T) mask logits of every source of `batch`.
        grid: the spectrogram that the masks belong to.
        target: `ratio` or `binary` masks.
        si_sdr: weight of the second term; 0 in OmniSep.
    """
    masks = ideal_masks(batch, target)
    loss, values = weighted_bce(logits, masks, bin_weight(batch.mixture))
    if si_sdr:
        mask = grid.unwarp(torch.sigmoid(logits))
        waveform, more = si_sdr_loss(mask, batch.spectrum, batch.spectra)
        loss, values = loss + si_sdr * waveform, values | more
    return loss, values
