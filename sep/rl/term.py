"""What a mechanism adds to the loss of an update: a plain callable of that update."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sep.model import QueryNet
from sep.train.batch import Batch


@dataclass
class Update:
    """What a term sees of one update; tensors carry gradients.

    Attributes:
        model: the policy's network.
        batch: its mixtures; the first source is the policy's target.
        maps: what `combine` takes of the network: (B, K, H, T) (`QueryNet.maps`), or more, such as
            a `sep.prior.Scene`.
        logits: (B, S, H, T) mask logits of every source.
        weight: (B, H, T) importance of the bins.
    """

    model: QueryNet
    batch: Batch
    maps: Any
    logits: Tensor
    weight: Tensor


class Term(Protocol):
    """A part of the loss."""

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted part to add, and detached values for the log."""
        ...
