"""What a separator knows to be asked for, and how a query is drawn towards it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Recall(nn.Module):
    """A memory of known queries K, read by attention, beside the query itself.

    The network is asked by normalise(q + normalise(softmax(beta q K^T) K)): what is added is one
    step of a modern Hopfield network (arXiv 2008.02217) whose patterns are the classes of training.
    A text, a sound or a picture that is not quite like those of training comes half of the way to
    the classes it is near to, which is what the network has learned to hear. In training mode
    queries pass as they are: they are nearer to the memory than any later one, and training with it
    in place was no better on validation mixtures.

    Args:
        count: L, known queries.
        dim: D of a query.
        beta: how sharply the nearest are preferred; 0 adds the mean of all.

    Attributes:
        known: (L, D), zeros until they are set.
    """

    def __init__(self, count: int, dim: int, beta: float):
        super().__init__()
        self.beta = beta
        self.register_buffer("known", torch.zeros(count, dim))

    def forward(self, query: Tensor) -> Tensor:
        """Queries (..., D) of norm 1 to what the network is asked, of norm 1 too."""
        if self.training:
            return query
        known = normalize(self.known, dim=-1)
        share = torch.softmax(self.beta * query @ known.mT, -1)
        return normalize(query + normalize(share @ known, dim=-1), dim=-1)
