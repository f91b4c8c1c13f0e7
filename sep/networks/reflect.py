"""A separator that hears its own first answer and corrects it in a second pass (AURORA)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from sep.device import autocast
from sep.model import QueryNet, _InnerProduct


class ReflectiveNet(QueryNet):
    """`QueryNet` with the reflective second pass of AURORA (arXiv 2508.02149), for masks.

    Pass 1 gives logits l1 and the mask P1 = sigmoid(l1). Pass 2 sends [log|X|, log(P1 |X|),
    log((1 - P1)|X|), P1] through the same U-Net, with weights of their own for the last three in
    its first convolution and a learned vector that says that this is the second look (the trigger);
    an inner product with the same query weights makes l2 = l1 + Delta of its maps. The new weights
    start at zero, so that l2 = l1. P1 goes in without gradient.

    A second pass depends on the query and costs one U-Net pass for each.

    Args:
        blind: pass 2 is not shown P1, as a control of what it is worth.
        config: arguments of `QueryNet`.

    Attributes:
        passes: 2, or 1 for the masks of pass 1.
    """

    kind = "reflect"

    def __init__(self, blind: bool = False, **config: Any):
        super().__init__(**config)
        self.config["blind"] = self.blind = blind
        self.passes = 2
        # log(P1 |X|), log((1 - P1)|X|) and P1; its bias is the trigger
        self.again_net = nn.Conv2d(3, self.sound_net.stem_channels, 4, stride=2, padding=1)
        self.delta_net = _InnerProduct(self.config["mask_channels"])
        for weight in (self.again_net.weight, self.again_net.bias, self.delta_net.scale):
            nn.init.zeros_(weight)
        self.again_net.to(memory_format=torch.channels_last)

    def logits(self, magnitude: Tensor, query: Tensor) -> Tensor:
        """Mask logits after `passes` passes; shapes as in `QueryNet.logits`."""
        if query.dim() > 1 or self.passes == 1:
            return super().logits(magnitude, query)
        first = super().logits(magnitude, query)
        seen = self._input(magnitude)[..., : magnitude.shape[-1]]
        return self.revised(first, seen, query.expand(len(first), -1))

    def maps(self, magnitude: Tensor) -> Tensor:
        """Maps of pass 1 and the log magnitudes that pass 2 sees again: (B, K + 1, H, T)."""
        seen = self._input(magnitude)[..., : magnitude.shape[-1]]
        return torch.cat([super().maps(magnitude), seen], 1)

    def combine(self, maps: Tensor, query: Tensor) -> Tensor:
        """Mask logits after `passes` passes."""
        return self.revised(self.first(maps, query), maps[:, -1:], query)

    def first(self, maps: Tensor, query: Tensor) -> Tensor:
        """Mask logits of pass 1."""
        return super().combine(self.base(maps), query)

    def revised(self, first: Tensor, seen: Tensor, query: Tensor) -> Tensor:
        """Pass 2: mask logits of pass 1 to better ones, or as they are with `passes` = 1.

        Args:
            first: (B, H, T) or (B, Q, H, T).
            seen: (B, 1, H, T) log magnitudes, the last of `maps`.
            query: (B, D) or (B, Q, D).
        """
        if self.passes == 1:
            return first
        frames = first.shape[-1]
        padding = (0, -frames % 2**self.levels)
        x = nn.functional.pad(seen, padding, value=math.log(self.floor))
        x = x.repeat_interleave(first[0, ..., 0, 0].numel(), 0)
        before = first.detach().reshape(-1, 1, *first.shape[-2:])
        before = nn.functional.pad(before, padding)
        seen = self._seen(x, before)
        with autocast(x.device, self.amp):
            maps = self.sound_net(x, self.again_net(seen)).float()[..., :frames]
        delta = self._product(maps, query.reshape(-1, query.shape[-1]), self.delta_net)
        return first + delta.reshape(first.shape)

    def _seen(self, x: Tensor, before: Tensor) -> Tensor:
        """What is added to log magnitudes (n, 1, H, T) for logits of the same shape: 3 channels."""
        if self.blind:
            return torch.zeros_like(x).expand(-1, 3, -1, -1)
        parts = torch.cat([x + logsigmoid(before), x + logsigmoid(-before)], 1)
        norm = self.sound_net.bn0
        parts = parts.clamp(min=math.log(self.floor)) - norm.running_mean
        parts = parts * (norm.running_var + norm.eps).rsqrt()
        return torch.cat([parts, torch.sigmoid(before)], 1)

    forward = logits
