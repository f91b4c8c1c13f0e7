"""What is asked for, in the light of what the recording sounds like."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sep.presence import likeness

# Chosen on validation mixtures with the model that ships.
SHARPNESS = 10.0  # of the nearness of a query to the classes
LIKENESS = 0.5  # how much a class counts for each standard deviation that the recording is like it


def in_context(query: Tensor, heard: Tensor, known: Tensor) -> Tensor:
    """Queries half of the way to what they may mean in a recording: (..., D) of norm 1.

    The result is normalise(q + normalise(sum_c p_c k_c)), where p is the softmax over the known
    classes k_c of SHARPNESS q . k_c + LIKENESS z_c and z the standard scores of h . k_c, h the
    embedding of the recording. Read as Bayes' rule, the query says what is meant, and the recording
    what is likely. Unusual words or a picture, which could mean several classes, so come to mean
    what can be heard; where the query is plain, the recording has little to say. What it is worth
    is in egs/open_sounds/RESULTS.md.

    Args:
        query: (..., D) of norm 1.
        heard: (..., D) that broadcasts with it, of norm 1, or zeros for silence, where only the
            query speaks.
        known: (L, D) of norm 1, the classes.
    """
    mean, spread = likeness(heard, known)
    score = (heard @ known.T - mean) / spread
    share = torch.softmax(SHARPNESS * (query @ known.T) + LIKENESS * score, -1)
    return normalize(query + normalize(share @ known, dim=-1), dim=-1)
