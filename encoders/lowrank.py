"""Low-rank adapters of pointwise convolutions (LoRA, arXiv 2106.09685), weights of their own.

Unlike those of `encoders.tuning`, which the peft package puts in and which end in the weights that
they adapt, these are saved beside a backbone that is not, and whoever loads them needs no peft.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """What is added to a pointwise convolution's weights: nothing at first.

    Args:
        into: channels that come in.
        out: channels that go out.
        rank: of the matrix that is added.
    """

    def __init__(self, into: int, out: int, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, into))
        self.up = nn.Parameter(torch.zeros(out, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Add to weights (out, into, 1, 1)."""
        return weight + (self.up @ self.down)[:, :, None, None]


def adapters(net: nn.Module, prefixes: tuple[str, ...], rank: int) -> nn.ModuleDict:
    """An adapter for each pointwise convolution of `net` whose name starts with one of `prefixes`.

    Keys are the layers' names with slashes in place of dots, which a module's name cannot hold.
    """
    found = {}
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
            if name.startswith(prefixes):
                channels = layer.in_channels, layer.out_channels
                found[name.replace(".", "/")] = LowRank(*channels, rank)
    return nn.ModuleDict(found)


def attach(net: nn.Module, adapted: nn.ModuleDict) -> None:
    """Have the layers of `net` run with their adapters, which then train with it."""
    for key, adapter in adapted.items():
        layer = net.get_submodule(key.replace("/", "."))
        parametrize.register_parametrization(layer, "weight", adapter)


@torch.no_grad()
def fold(net: nn.Module, adapted: nn.ModuleDict) -> None:
    """Add the adapters' matrices to the weights of `net` for good."""
    for key, adapter in adapted.items():
        weight = net.get_submodule(key.replace("/", ".")).weight
        weight.copy_(adapter(weight))
