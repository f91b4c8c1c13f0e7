"""Several readings of the network's logits as masks, weighed by what the encoder hears in each.

With weights proportional to exp(similarity / TEMPERATURE) this is the policy over candidates that
gains the most similarity for how far it goes from trying them evenly: KL-regularised RL solved in
closed form at the time of inference. Taking the best alone follows the encoder's errors further.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor

from sep.errors import OptionError

TEMPERATURE = 0.03  # of cosines; chosen on validation mixtures with the small encoder


class Variant(NamedTuple):
    """A mask of logits: sigmoid(sharpness * logits + offset).

    Sharpness above 1 takes masks nearer to 0 or 1, an offset above 0 lets more through.
    """

    sharpness: float = 1.0
    offset: float = 0.0

    def mask(self, logits: Tensor) -> Tensor:
        """The mask, of the shape of the logits."""
        return torch.sigmoid(self.sharpness * logits + self.offset)


Reading = Sequence[tuple[float, Variant]]  # weighted mean of variants; weights add up to 1

# In the order in which they are tried.
VARIANTS = (
    Variant(),
    Variant(1.25),
    Variant(0.8, 0.5),
    Variant(1.0, 0.5),
    Variant(1.25, 0.5),
    Variant(0.8),
    Variant(1.0, -0.5),
    Variant(1.25, -0.5),
    Variant(0.8, -0.5),
)


def variants(candidates: int, sharpness: float = 1.0) -> list[Variant]:
    """The first of `VARIANTS`, each `sharpness` times as sharp.

    Raises:
        OptionError: a number of candidates that there is not, a sharpness that is none.
    """
    if not isinstance(candidates, Integral) or not 1 <= candidates <= len(VARIANTS):
        raise OptionError(f"candidates {candidates}: try 1 to {len(VARIANTS)} masks")
    if not isinstance(sharpness, Real) or not 0 < sharpness < math.inf:
        raise OptionError(f"sharpness {sharpness}: give a number above 0, such as 2")
    return [Variant(sharpness * v.sharpness, v.offset) for v in VARIANTS[:candidates]]


def alone(variant: Variant) -> Reading:
    """One variant as it is."""
    return [(1.0, variant)]


def weights(similarity: Tensor) -> Tensor:
    """Weights (..., K) of K results from their cosines with the query; silence, NaN, counts -1."""
    return (similarity.nan_to_num(-1.0) / TEMPERATURE).softmax(-1)


def blend(tried: Sequence[Variant], scores: Sequence[Sequence[float]]) -> Reading:
    """The reading of one or more sounds.

    Args:
        tried: K variants.
        scores: similarity of each sound, for each variant; silent ones, NaN, count as -1.
    """
    means = [sum(-1.0 if math.isnan(s) else s for s in row) / len(row) for row in scores]
    return list(zip(weights(torch.tensor(means)).tolist(), tried, strict=True))
