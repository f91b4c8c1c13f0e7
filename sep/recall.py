"""What a separator knows to be asked for, and how a query is drawn towards it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Recall(nn.Module):
    """A memory of known queries, read by attention: normalise(softmax(beta q K^T) K).

    One step of a modern Hopfield network (arXiv 2008.02217), whose patterns K are the classes of
    training. A text, a sound or a picture that is not quite like those of training, and most
    pictures are not, becomes the mean of the classes it is near to, which is what the network has
    learned to hear. A query that is near to none becomes one that asks for a little of all. In
    training mode queries pass as they are: they are nearer to the memory than any later one, and a
    network that has only seen what they recall is worse by pictures.

    Args:
        count: L, known queries.
        dim: D of a query.
        beta: how sharply the nearest are preferred; 0 gives the mean of all.

    Attributes:
        known: (L, D), zeros until they are set.
    """

    def __init__(self, count: int, dim: int, beta: float):
        super().__init__()
        self.beta = beta
        self.register_buffer("known", torch.zeros(count, dim))

    def forward(self, query: Tensor) -> Tensor:
        """Queries (..., D) of norm 1 to what they recall, of norm 1 too."""
        if self.training:
            return query
        known = normalize(self.known, dim=-1)
        share = torch.softmax(self.beta * query @ known.mT, -1)
        return normalize(share @ known, dim=-1)
