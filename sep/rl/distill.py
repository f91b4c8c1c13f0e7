"""Distillation from the frozen supervised separator while RL moves the policy (AURORA)."""

import torch
from torch import Tensor

from sep.errors import OptionError
from sep.model import QueryNet
from sep.train.batch import Batch
from sep.train.term import Update


class Distillation:
    """Keeps the prompt and the maps near those of the teacher; a `Term`.

    L = ||v - v_T||^2 / K + eta mean_hw u ||phi - phi_T||^2 / K, after the feature distillation of
    AURORA (arXiv 2508.02149), where v = scale * sigmoid(W q) is what a query asks of the K maps phi
    and u the bin weight, normalised to mean 1. Of a network with two passes it sees the first.

    Args:
        teacher: the separator to stay near; frozen here.
        weight: of L in the loss.
        eta: of the maps in L.
    """

    stride = 8  # every eighth frame is enough for the CKA

    def __init__(self, teacher: QueryNet, weight: float = 1.0, eta: float = 1.0):
        self.teacher, self.weight, self.eta = teacher.eval().requires_grad_(False), weight, eta
        self._known: tuple[Batch, Tensor] | None = None

    def __call__(self, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted L; logs both parts and the CKA of the maps with the teacher's."""
        query, taught = update.batch.query, self._maps(update.batch)
        learnt = update.model.base(update.maps)
        v, v_taught = (
            net.synth_net.scale * net.prompt(query) for net in (update.model, self.teacher)
        )
        prompt = (v - v_taught).square().mean()
        u = update.weight / update.weight.mean()
        maps = (u * (learnt - taught).square().mean(1)).mean()
        values = {
            "distill/prompt": prompt.detach(),
            "distill/maps": maps.detach(),
            "distill/cka": cka(learnt.detach()[..., :: self.stride], taught[..., :: self.stride]),
        }
        return self.weight * (prompt + self.eta * maps), values

    @torch.no_grad()
    def _maps(self, batch: Batch) -> Tensor:
        """The teacher's maps, computed once for all updates with a batch."""
        if self._known is None or self._known[0] is not batch:
            self._known = batch, self.teacher.base(self.teacher.maps(batch.magnitude))
        return self._known[1]


def cka(first: Tensor, second: Tensor) -> Tensor:
    """Linear CKA (arXiv 1905.00414) of two sets of maps (B, K, H, T) over all bins.

    1 where one is a rotated and scaled copy of the other; both must vary.
    """
    x, y = (maps.transpose(0, 1).flatten(1) for maps in (first, second))  # (K, n)
    x, y = (maps - maps.mean(1, keepdim=True) for maps in (x, y))
    return (x @ y.T).square().sum() / ((x @ x.T).norm() * (y @ y.T).norm())


def freeze_head(model: QueryNet, teacher: QueryNet, levels: int) -> None:
    """Take scale and bias of the inner product and the last `levels` levels up from the teacher.

    They take no gradient any more; build the optimiser afterwards.

    Raises:
        OptionError: the U-Net has fewer levels.
    """
    if not 1 <= levels <= model.levels:
        raise OptionError(f"freeze_head {levels}: the U-Net has {model.levels} levels")
    pairs = zip(*(_head(net, levels) for net in (model, teacher)), strict=True)
    for part, taught in pairs:
        part.load_state_dict(taught.state_dict())
        part.requires_grad_(False)


def _head(net: QueryNet, levels: int) -> list[torch.nn.Module]:
    return [net.synth_net, *net.sound_net.way_up(levels)]
