"""More words for an aligned encoder, without moving anything that it has learned to hear."""

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from encoders.base import EncoderError
from encoders.small import SmallEncoder

KNOWN = 10.0  # weight of a wording that was there before


@torch.no_grad()
def learn_words(
    encoder: SmallEncoder,
    known: Sequence[Sequence[str]],
    further: Sequence[Sequence[str]],
    decay: float = 0.1,
) -> None:
    """Refit the text head: further wordings of a class come to where its known ones are and stay.

    Ridge regression of a change D of the head W on sentence vectors x, with targets t: for a known
    wording its own embedding, for the others the mean embedding of their class's known ones.
    D = argmin sum_i w_i |(W + D) x_i - t_i|^2 + decay |D|^2, w = 10 for known wordings, else 1.
    Sounds and pictures keep their embeddings.

    Args:
        encoder: changed in place.
        known: for each class the texts that it was aligned to.
        further: for each class other texts, or none.
        decay: of the change; the larger, the less a single wording counts.

    Raises:
        EncoderError: no class, or one without a known text.
    """
    if not known or not all(known):
        raise EncoderError("words are learned from those known before; give each class one")
    rows, targets, weights = [], [], []
    for before, more in zip(known, further, strict=True):
        features = encoder.text_features([*before, *more])
        own = encoder.project_text(features[: len(before)])
        rows.append(normalize(features, dim=-1) - encoder.text_mean)
        targets += [own, normalize(own.mean(0), dim=0).expand(len(more), -1)]
        weights += [KNOWN] * len(before) + [1.0] * len(more)
    x, target, head = torch.cat(rows).double(), torch.cat(targets).double(), encoder.text_head
    weighted = x * torch.tensor(weights, dtype=x.dtype, device=x.device)[:, None]
    normal = weighted.T @ x + decay * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    missing = target - x @ head.weight.double().T
    head.weight.add_(torch.linalg.solve(normal, weighted.T @ missing).T)
