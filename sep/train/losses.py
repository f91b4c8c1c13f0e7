"""Supervised mask targets and losses; pure functions returning (loss, detached diagnostics)."""

import torch
from torch import Tensor, nn

from sep.spectrogram import Spectrogram
from sep.train.batch import Batch


def bin_weight(mixture: Tensor) -> Tensor:
    """OmniSep's loss weight of time-frequency bins, clamp(log(1 + |X|), 0.001, 10); any shape."""
    return torch.log1p(mixture).clamp(1e-3, 10.0)


def target_masks(sources: Tensor, mixture: Tensor, kind: str) -> Tensor:
    """Ideal masks of each source.

    Args:
        sources: (B, S, H, T) source magnitudes.
        mixture: (B, H, T) mixture magnitude.
        kind: `binary`, 1 where |S_n| > 0.5 |X| (CLIPSep, OmniSep), or `ratio`,
            |S_n| / sum_n |S_n|.

    Returns:
        (B, S, H, T) in [0, 1].
    """
    if kind == "binary":
        return (sources > 0.5 * mixture[:, None]).to(sources.dtype)
    if kind == "ratio":
        return sources / sources.sum(1, keepdim=True).clamp(min=1e-8)
    raise ValueError(f"target '{kind}' is unknown; use binary or ratio")


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


def si_sdr_loss(estimate: Tensor, reference: Tensor, limit_db: float = 30.0) -> Tensor:
    """Negative scale-invariant SDR in units of 10 dB, flattening towards `limit_db`.

    The limit is that of mixture invariant training (arXiv 2006.12701): a share of the signal,
    10^(-limit/10), is added to the noise, so that what is already clean gives no more gradient.

    Args:
        estimate, reference: (..., N).

    Returns:
        Scalar mean over the references that are not silent; 0 where all are.
    """
    energy = reference.square().sum(-1)
    heard = energy > 1e-6
    signal = (estimate * reference).sum(-1).square() / energy.clamp(min=1e-6)
    noise = (estimate.square().sum(-1) - signal).clamp(min=0)
    ratio = (signal + 1e-6) / (noise + 10 ** (-limit_db / 10) * signal + 1e-6)
    return -(torch.log10(ratio) * heard).sum() / heard.sum().clamp(min=1)


def separation_loss(
    logits: Tensor, batch: Batch, grid: Spectrogram, target: str = "ratio", si_sdr: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """What supervised training minimises: weighted BCE of the masks + si_sdr x `si_sdr_loss`.

    Args:
        logits: (B, S, H, T) mask logits of every source of `batch`.
        grid: the spectrogram that the masks belong to.
        target: `ratio` or `binary` masks.
        si_sdr: weight of the waveform term; 0, as in OmniSep, makes no audio.
    """
    masks = target_masks(batch.warped, batch.mixture, target)
    loss, values = weighted_bce(logits, masks, bin_weight(batch.mixture))
    if si_sdr:
        spectrum = batch.spectrum[:, None] * grid.unwarp(torch.sigmoid(logits))
        waveform = si_sdr_loss(grid.istft(spectrum, batch.sources.shape[-1]), batch.sources)
        values["si_sdr_loss"] = waveform.detach()
        loss = loss + si_sdr * waveform
    return loss, values
