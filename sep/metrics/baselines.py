"""Baselines for the score table beside trained systems: ideal, simple and class-agnostic."""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from encoders.base import Encoder
from sep.candidates import VARIANTS, variants, weights
from sep.errors import OptionError
from sep.metrics.evaluation import apply_mask
from sep.metrics.semantic import embed
from sep.model import QueryNet
from sep.train.losses import target_masks

COMPONENTS = 8  # of the factorisation
QUERIES = 16  # whose masks are in memory at once


@dataclass(frozen=True)
class Case:
    """A few mixtures and what a baseline may use.

    Attributes:
        mixture: (B, N).
        sources: (B, S, N), the target first; for the ideal mask alone.
        query: (B, D), unit norm.
        everything: (Q, D), the queries of all mixtures of the set, once each.
        model: a trained separator; its spectrogram is what all baselines mask.
        encoder: hears which part is most similar to the query.
    """

    mixture: Tensor
    sources: Tensor
    query: Tensor
    everything: Tensor
    model: QueryNet
    encoder: Encoder


def ideal_binary(case: Case) -> Tensor:
    """1 where the target's magnitude is above half the mixture's, the target of OmniSep: (B, N)."""
    grid = case.model.spectrogram
    sources = grid.stft(case.sources).abs()
    mixture = grid.stft(case.mixture).abs()
    return apply_mask(case.mixture, target_masks(sources, mixture, "binary")[:, 0], grid)


def agnostic(case: Case) -> Tensor:
    """The mean of the separator's masks for all queries of the set, whatever is asked: (B, N)."""
    model, grid = case.model, case.model.spectrogram
    spectrum = grid.stft(case.mixture)
    maps, total = model.maps(spectrum.abs()), 0.0
    for queries in case.everything.split(QUERIES):
        logits = model.combine(maps, queries.expand(len(maps), -1, -1))
        total = total + torch.sigmoid(logits).sum(1)
    mask = grid.unwarp(total / len(case.everything))
    return grid.istft(spectrum * mask, case.mixture.shape[-1])


def blended(case: Case, count: int = len(VARIANTS)) -> Tensor:
    """The first `count` candidates of the separator's mask, weighed by the encoder: (B, N)."""
    grid = case.model.spectrogram
    spectrum = grid.stft(case.mixture)
    logits = case.model.logits(spectrum.abs(), case.query)
    masks = grid.unwarp(torch.stack([v.mask(logits) for v in variants(count)], 1))
    parts = grid.istft(spectrum[:, None] * masks, case.mixture.shape[-1])
    return torch.einsum("bk,bkn->bn", weights(_similarity(case, parts)), parts)


def hpss(case: Case) -> Tensor:
    """The harmonic or the percussive part, whichever is more similar to the query: (B, N).

    Median filtering of the spectrogram along time and frequency (Fitzgerald, DAFx 2010).
    """
    import librosa

    parts = _parts(case, partial(librosa.decompose.hpss, mask=True))
    best = _similarity(case, parts).argmax(1)
    return parts[torch.arange(len(parts), device=parts.device), best]


def nmf(case: Case) -> Tensor:
    """The components of a factorised spectrogram that are more similar to the query than most.

    Non-negative factorisation of the magnitude into `COMPONENTS`, each with its share of the
    mixture; those whose similarity is the components' mean or more are added up: (B, N).
    """
    parts = _parts(case, _component_masks)
    similarity = _similarity(case, parts)
    chosen = similarity >= similarity.mean(1, keepdim=True)
    return (parts * chosen[..., None]).sum(1)


# Each with what it is, for the notes below the table.
BASELINES: dict[str, tuple[Callable[[Case], Tensor], str]] = {
    "ideal_binary": (ideal_binary, "ideal binary mask |S| > |X| / 2 on the same STFT"),
    "hpss": (
        hpss,
        "harmonic or percussive part (librosa's median filtering), whichever the encoder finds "
        "more similar to the query",
    ),
    "nmf": (
        nmf,
        f"those of {COMPONENTS} non-negative components (librosa) that the encoder finds more "
        "similar to the query than their mean",
    ),
    "candidates": (
        blended,
        f"the first system's mask in {len(VARIANTS)} variants, weighed by the similarity that the "
        f"encoder finds (`sep separate --candidates {len(VARIANTS)}`)",
    ),
    "agnostic": (agnostic, "class-agnostic, the mean of the first system's masks for all queries"),
}
LIBROSA = ("hpss", "nmf")  # what needs it


def check(names: Sequence[str], run: bool = True) -> None:
    """Refuse baselines that are unknown or, where they are to `run`, cannot.

    Raises:
        OptionError: names the baseline and the fix.
    """
    for name in names:
        if name not in BASELINES:
            raise OptionError(f"baseline '{name}' is unknown; use {', '.join(BASELINES)}")
        if run and name in LIBROSA and importlib.util.find_spec("librosa") is None:
            raise OptionError(f"baseline '{name}' needs librosa; run: pip install librosa")


def _component_masks(magnitude):
    """Shares (K, F, T) of the components in a magnitude spectrogram (F, T), as arrays."""
    import librosa
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could have gone on
        bases, gains = librosa.decompose.decompose(
            magnitude, n_components=COMPONENTS, init="nndsvda", random_state=0, max_iter=100
        )
    power = bases.T[:, :, None] * gains[:, None]
    return power / np.maximum(power.sum(0), 1e-12)


def _parts(case: Case, masks: Callable) -> Tensor:
    """The parts (B, K, N) that `masks` makes of each magnitude (F, T): arrays (K, F, T)."""
    grid = case.model.spectrogram
    spectrum = grid.stft(case.mixture)
    found = [masks(magnitude.cpu().numpy()) for magnitude in spectrum.abs()]
    shares = torch.stack([torch.stack([torch.as_tensor(m) for m in each]) for each in found])
    return grid.istft(spectrum[:, None] * shares.to(spectrum.real), case.mixture.shape[-1])


def _similarity(case: Case, parts: Tensor) -> Tensor:
    """Cosine of parts (B, K, N) with the queries: (B, K), -1 for silence."""
    found = embed(case.encoder, parts.flatten(0, 1), case.model.sample_rate)
    similarity = (found.unflatten(0, parts.shape[:2]) * case.query[:, None]).sum(-1)
    return similarity.nan_to_num(-1.0)
