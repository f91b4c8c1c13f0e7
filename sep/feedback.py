"""A query that hears what it has found, and asks again."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from encoders.base import Encoder
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
def separate(model: QueryNet, encoder: Encoder, wave: Tensor, query: Tensor) -> Tensor:
    """As `QueryNet.separate`, each clip by the query that its first estimate refined.

    The network reads the mixture once.

    Args:
        model: the separator; encoder: of the queries, on the same device.
        wave: (B, N) at the model's rate; query: (B, Q, D) of norm 1.

    Returns:
        Estimates (B, Q, N).
    """
    grid = model.spectrogram
    spectrum = grid.stft(wave)
    maps = model.maps(spectrum.abs())

    def estimates(asked: Tensor) -> Tensor:
        mask = grid.unwarp(torch.sigmoid(model.combine(maps, asked)))
        return grid.istft(spectrum[:, None] * mask, wave.shape[-1])

    first = estimates(query)
    heard = torch.stack([first, wave[:, None] - first])  # (2, B, Q, N)
    found, rest = embedded(encoder, heard.flatten(0, -2), model.sample_rate).view(2, *query.shape)
    return estimates(refined(query, found, rest))


def embedded(encoder: Encoder, waves: Tensor, sample_rate: int, batch: int = 8) -> Tensor:
    """Sounds (B, N) to (B, D) of norm 1, zeros for silent ones, which encoders refuse."""
    vectors = torch.zeros(len(waves), encoder.dim, device=waves.device)
    heard = (waves.abs().amax(-1) > SILENCE).nonzero()[:, 0]
    for rows in heard.split(batch):
        vectors[rows] = encoder.embed_audio(waves[rows], sample_rate).float()
    return vectors
