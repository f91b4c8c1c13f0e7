"""Separators side by side: several trained ones become one."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sep.errors import ModelError

if TYPE_CHECKING:
    from sep.model import QueryNet


class Joined(nn.Module):
    """U-Nets that read the same input; the maps of all, one after another: (B, n K, H, T).

    It offers what `sep.unet.UNet` offers.

    Args:
        networks: n of them, all built alike.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.stem_channels = sum(net.stem_channels for net in networks)
        sizes = zip(*(net.site_channels for net in networks), strict=True)
        self.site_channels = [sum(channels) for channels in sizes]

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """As `UNet.forward`."""
        parts = [None] * len(self.networks) if added is None else added.chunk(len(self.networks), 1)
        return torch.cat([net(x, part) for net, part in zip(self.networks, parts, strict=True)], 1)

    def sites(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `UNet.sites`."""
        maps, kept = zip(*(net.sites(x) for net in self.networks), strict=True)
        return torch.cat(maps, 1), [torch.cat(site, 1) for site in zip(*kept, strict=True)]

    def weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        """As `UNet.weighted`."""
        shares = weight.chunk(len(self.networks))
        return sum(net.weighted(x, own) for net, own in zip(self.networks, shares, strict=True))

    def way_up(self, levels: int) -> list[nn.Module]:
        """As `UNet.way_up`, of all."""
        return list(chain.from_iterable(net.way_up(levels) for net in self.networks))

    @property
    def bn0(self) -> nn.BatchNorm2d:
        """What the first of them does to its input."""
        return self.networks[0].bn0


@torch.no_grad()
def mean_of(models: Sequence["QueryNet"]) -> "QueryNet":
    """One separator (`Joined`) whose logits are the mean of those of n alike.

    Raises:
        ModelError: networks of another kind, size or memory than the first.
    """
    first, count = models[0], len(models)
    for model in models:
        alike = model.kind == first.kind == "query" and model.config == first.config
        memories = zip(model.recall.buffers(), first.recall.buffers(), strict=False)
        if not alike or not all(torch.equal(own, other) for own, other in memories):
            raise ModelError(
                "separators of another kind, size or memory cannot be joined; "
                "train them by the same command with other seeds"
            )
    maps, networks = (first.config.get(name, 1) for name in ("mask_channels", "networks"))
    joined = type(first)(
        **first.config | {"mask_channels": count * maps, "networks": count * networks}
    )
    nets = [net for m in models for net in getattr(m.sound_net, "networks", [m.sound_net])]
    for own, net in zip(joined.sound_net.networks, nets, strict=True):
        own.load_state_dict(net.state_dict())
    joined.recall.load_state_dict(first.recall.state_dict())
    for name in ("weight", "bias"):
        parts = [getattr(model.frame_net, name) for model in models]
        getattr(joined.frame_net, name).copy_(torch.cat(parts))
    joined.synth_net.scale.copy_(torch.cat([model.synth_net.scale for model in models]) / count)
    joined.synth_net.bias.copy_(sum(model.synth_net.bias for model in models) / count)
    return joined.eval()
