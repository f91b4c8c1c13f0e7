"""What a mechanism adds to the loss of an update: a plain callable of that update."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sep.model import QueryNet
from sep.rl.reward import Rollout
from sep.train.batch import Batch


@dataclass
class Update:
    """What a term sees of one update; tensors carry gradients.

    Attributes:
        model: the policy's network.
        batch: its mixtures; the first source is the policy's target.
        maps: what `combine` takes of the network: (B, K, H, T) (`QueryNet.maps`), or more, such as
            a `sep.networks.prior.Scene`.
        logits: (B, S, H, T) mask logits of every source.
        weight: (B, H, T) importance of the bins.
        masks: (B, G, H, T) drawn in the rollout; advantage: theirs, (B, G) or (B, G, t). None where
            nothing was drawn, as in supervised training.
        listen: turns masks (B, G, H, T) into what a reward sees; None likewise.
    """

    model: QueryNet
    batch: Batch
    maps: Any
    logits: Tensor
    weight: Tensor
    masks: Tensor | None = None
    advantage: Tensor | None = None
    listen: Callable[[Tensor], Rollout] | None = None


class Term(Protocol):
    """A part of the loss.

    One with an attribute `scored` that is true gets masks and advantages even where the clipped
    surrogate has no weight.
    """

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted part to add, and detached values for the log."""
        ...
