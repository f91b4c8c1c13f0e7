"""A query that hears what it has found, and asks again."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.base import Encoder
from encoders.precision import exact
from sep.model import QueryNet

# Chosen on 200 validation mixtures with the model that ships.
GAIN = 3.0  # how much what was found counts, times how similar to the query it is
AWAY = 0.8  # the rest, as a share of that
SILENCE = 1e-6  # peak below which nothing can be said about a sound


def refined(query: Tensor, found: Tensor, rest: Tensor) -> Tensor:
    """The query, drawn to what it found and away from what it left: (..., D) of norm 1.

    normalise(q + w (a - AWAY r)) with w = GAIN max(0, cos(a, q)) is Rocchio's relevance feedback
    ("Relevance feedback in information retrieval", 1971), where what was found is the relevant
    document. A text becomes the text of this recording's dog. What does not resemble the query
    hardly moves it, so that a sound that is not there is not made up.

    Args:
        query, found, rest: (..., D) of norm 1, in one space; silence is zeros.
    """
    weight = GAIN * (found * query).sum(-1, keepdim=True).clamp(min=0)
    return normalize(query + weight * (found - AWAY * rest), dim=-1)


@torch.no_grad()
def logits(
    model: QueryNet, encoder: Encoder, wave: Tensor, query: Tensor, window: float | None = None
) -> Tensor:
    """Mask logits of queries that are refined by what they find around each moment.

    The network reads the mixture once. Its first estimates are heard window by window, each of
    which refines the queries for itself; from the middle of one to that of the next the logits go
    over linearly. Where the network has a memory, the queries are first seen in the light of what
    each window sounds like (`sep.context`), what the network knows is set against them at the end
    (`sep.rivals`), and they are raised or lowered by how far what was found speaks for the query
    (`sep.presence`).

    Args:
        model: the separator; encoder: of the queries, on the same device.
        wave: (B, N) at the model's rate; query: (B, Q, D) of norm 1.
        window: samples; by default what the encoder takes at once.

    Returns:
        (B, Q, H, T).
    """
    grid = model.spectrogram
    spectrum = grid.stft(wave)
    maps = model.maps(spectrum.abs())
    edges = _edges(wave.shape[-1], window or window_of(model, encoder))
    shares = _shares(edges, spectrum.shape[-1], grid.hop).to(wave.device)
    windows = list(pairwise(edges))
    if model.remembers:
        sounds = _embedded_by_window(encoder, wave[:, None], windows, model.sample_rate)
        asked = [model.in_context(query, sound) for sound in sounds]
        first = _by_window(model, maps, asked, shares)
    else:
        asked, first = [query] * len(windows), model.combine(maps, query)
    mask = grid.unwarp(torch.sigmoid(first))
    estimate = grid.istft(spectrum[:, None] * mask, wave.shape[-1])  # (B, Q, N)
    heard = torch.stack([estimate, wave[:, None] - estimate])  # (2, B, Q, N)
    shift = torch.zeros_like(first[:, :, 0])
    vectors = _embedded_by_window(encoder, heard, windows, model.sample_rate)
    for k, (found, rest) in enumerate(vectors):
        shift += shares[k] * model.evidence(found, query)[..., None]
        asked[k] = refined(asked[k], found, rest)
    again = _by_window(model, maps, asked, shares)
    return model.against_rivals(again, maps) + shift[:, :, None]


def _embedded_by_window(
    encoder: Encoder, waves: Tensor, windows: Sequence[tuple[int, int]], sample_rate: int
) -> list[Tensor]:
    """What `embedded` makes of windows of sounds (..., N), those of a length at once: (..., D)."""
    found: dict[int, Tensor] = {}
    for length in {end - begin for begin, end in windows}:
        alike = [k for k, (begin, end) in enumerate(windows) if end - begin == length]
        parts = torch.stack([waves[..., slice(*windows[k])] for k in alike])
        vectors = embedded(encoder, parts.flatten(0, -2), sample_rate)
        found |= zip(alike, vectors.view(*parts.shape[:-1], -1), strict=True)
    return [found[k] for k in range(len(windows))]


def _by_window(model: QueryNet, maps: Any, queries: Sequence[Tensor], shares: Tensor) -> Tensor:
    """Logits (B, Q, H, T) of queries (B, Q, D) of each window, by their shares (windows, T)."""
    total, whole = None, model.kind != "query"
    for query, share in zip(queries, shares, strict=True):
        near = share.nonzero()[:, 0]
        frames = slice(None) if whole else slice(int(near[0]), int(near[-1]) + 1)
        # where `kind` is query, the logits of a frame are of the maps of that frame alone
        part = share[frames] * model.combine(maps if whole else maps[..., frames], query)
        if total is None:
            total = part.new_zeros(*part.shape[:-1], len(share))
        total[..., frames] += part
    return total


def window_of(model: QueryNet, encoder: Encoder) -> float:
    """What the encoder takes at once, in samples at the model's rate."""
    return encoder.window / encoder.sample_rate * model.sample_rate


def masks(model: QueryNet, encoder: Encoder, wave: Tensor, query: Tensor) -> Tensor:
    """Masks (B, Q, F, T) of `logits`, in [0, 1] on the linear grid, for the same arguments."""
    return model.spectrogram.unwarp(torch.sigmoid(logits(model, encoder, wave, query)))


def separate(model: QueryNet, encoder: Encoder, wave: Tensor, query: Tensor) -> Tensor:
    """As `QueryNet.separate` for waveforms (B, N) and queries (B, Q, D), by `masks`: (B, Q, N)."""
    grid = model.spectrogram
    mask = masks(model, encoder, wave, query)
    return grid.istft(grid.stft(wave)[:, None] * mask, wave.shape[-1])


def embedded(encoder: Encoder, waves: Tensor, sample_rate: int, batch: int = 4) -> Tensor:
    """Sounds (B, N) to (B, D) of norm 1, zeros for silent ones, which encoders refuse.

    In float32: where segments overlap, their sounds differ by little, and so must the queries. More
    than `batch` at once take memory and little less time.
    """
    vectors = torch.zeros(len(waves), encoder.dim, device=waves.device)
    heard = (waves.abs().amax(-1) > SILENCE).nonzero()[:, 0]
    with exact():
        for rows in heard.split(batch) if len(heard) else ():
            vectors[rows] = encoder.embed_audio(waves[rows], sample_rate).float()
    return vectors


def _edges(length: int, window: float) -> list[int]:
    """Where windows begin and end; the last one has from half to one and a half of the others."""
    count = max(1, round(length / window))
    return [*(round(k * window) for k in range(count)), length]


def _shares(edges: list[int], frames: int, hop: int) -> Tensor:
    """Weights (windows, frames): 1 at the middle of each and beyond the outer ones, together 1."""
    bounds = torch.tensor(edges, dtype=torch.float64)
    middle = (bounds[:-1] + bounds[1:]) / 2
    if len(middle) == 1:
        return torch.ones(1, frames)
    time = torch.arange(frames, dtype=torch.float64) * hop
    right = torch.searchsorted(middle, time).clamp(1, len(middle) - 1)
    left = right - 1
    over = ((time - middle[left]) / (middle[right] - middle[left])).clamp(0, 1)
    shares = torch.zeros(len(middle), frames, dtype=torch.float64)
    at = torch.arange(frames)
    shares[left, at], shares[right, at] = 1 - over, over
    return shares.float()
