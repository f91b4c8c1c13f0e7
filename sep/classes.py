"""Which of some classes are heard in a recording, and when."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from encoders.base import Encoder
from sep.audio import Resampler
from sep.feedback import SILENCE
from sep.query import embed_query, loud_mono

STRETCHES = 24  # of a recording at most; a longer one has longer stretches


class Stretch(NamedTuple):
    """What is heard from `start_s` to `stop_s`: labels with their similarity, the best first."""

    start_s: float
    stop_s: float
    classes: list[tuple[str, float]]


def embed_labels(encoder: Encoder, labels: Sequence[str]) -> Tensor:
    """Text embeddings (L, D) of labels such as `dog` or `water-flowing`."""
    words = [label.replace("-", " ").replace("_", " ") for label in labels]
    return torch.stack([embed_query(encoder, text=word) for word in words])


@torch.no_grad()
def heard(
    blocks: Iterable[Tensor],
    rate: int,
    frames: int,
    encoder: Encoder,
    labels: Sequence[str],
    top: int = 3,
) -> list[Stretch]:
    """The classes most similar to each stretch of a recording, silent ones left out.

    A stretch is one window of the encoder or, so that there are at most `STRETCHES`, several: then
    its embedding is their mean, weighted by their level.

    Args:
        blocks: of the recording, (C, n).
        rate: of the recording in Hz; frames: its length in samples.
        encoder: whose audio tower hears and whose text tower reads the labels.
        labels: L of them.
        top: classes named for each stretch.
    """
    own, vectors = encoder.sample_rate, embed_labels(encoder, labels)
    window = encoder.window
    windows = max(1, -(-round(frames * own / rate) // window))
    each = -(-windows // STRETCHES)
    totals = torch.zeros(-(-windows // each), encoder.dim)
    down, waiting, done = None, torch.zeros(0), 0

    def take(rows: Tensor) -> None:
        nonlocal done
        for row in rows:
            if row.abs().max() > SILENCE:
                vector = encoder.embed_audio(row[None], own)[0].float().cpu()
                totals[min(done // each, len(totals) - 1)] += vector * row.square().mean().sqrt()
            done += 1

    arrived = 0
    for block in blocks:
        arrived += block.shape[-1]
        down = down or Resampler(1, rate, own)
        waiting = torch.cat([waiting, down.push(loud_mono(block)[None], arrived >= frames)[0]])
        whole = len(waiting) // window * window
        take(waiting[:whole].view(-1, window))
        waiting = waiting[whole:]
    if len(waiting):
        take(waiting[None])
    found, seconds = [], each * window / own
    for k, total in enumerate(totals):
        if total.norm() == 0:
            continue
        scores = vectors @ torch.nn.functional.normalize(total, dim=0)
        best = scores.topk(min(top, len(labels)))
        named = [(labels[i], v) for v, i in zip(*map(Tensor.tolist, best), strict=True)]
        found.append(Stretch(k * seconds, min((k + 1) * seconds, frames / rate), named))
    return found
