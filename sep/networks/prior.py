"""The separator with a positional prior: a heat map of where the sound is, decoded into its mask.

CoPRS (arXiv 2510.11173) lets a learned concentration token look at the question and the picture,
compares it with the picture's features and decodes the dense map of their products into a mask.
Here the picture is the mixture's spectrogram.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sep.device import autocast
from sep.errors import ModelError
from sep.model import QueryNet

_BIAS = -1.8  # of the heat map at the start: slightly empty, as published


class Scene(NamedTuple):
    """What `PriorNet` makes of mixtures, whatever is asked.

    Attributes:
        maps: (B, K, H, T) of the U-Net.
        keys: (B, C, h, w) of the heat map's cells.
        tokens: (B, N, E) of the U-Net's bottleneck.
    """

    maps: Tensor
    keys: Tensor
    tokens: Tensor


class PriorNet(QueryNet):
    """`QueryNet` whose mask logits get an offset that is decoded from a supervised heat map.

    A learned token pools the query and the mixture: ``e = c + attention(c; [W q, W x_1, ...])``,
    x the positions of the U-Net's bottleneck. Heads compare it with keys of a decoder feature,
    ``S_i = <Q_i e, K_i> / sqrt(d)`` without softmax, and convolutions fuse them into the logits of
    the heat map. The mask logits are those of `QueryNet` + g(maps, heat map scaled up). The last
    layer of g starts at zero, so that the first masks are those of `QueryNet`.

    Args:
        stride: rows and frames of a cell of the heat map, a power of 2 below 2**levels.
        heads: products of token and keys; head_dim: d.
        token_dim: E, a multiple of the four heads of the pooling attention.
        hidden: channels inside g.
        options: as for `QueryNet`.

    Raises:
        ModelError: a stride that no decoder level has, or a token of another size.
    """

    kind = "prior"

    def __init__(
        self,
        *,
        stride: int = 8,
        heads: int = 4,
        head_dim: int = 32,
        token_dim: int = 256,
        hidden: int = 16,
        **options,
    ):
        super().__init__(**options)
        strides = [2**k for k in range(1, self.levels)]
        if stride not in strides:
            raise ModelError(f"stride {stride} of the prior is none of {strides}")
        if token_dim % 4:
            raise ModelError(f"token_dim {token_dim} of the prior is no multiple of 4")
        self.config |= {
            "stride": stride,
            "heads": heads,
            "head_dim": head_dim,
            "token_dim": token_dim,
            "hidden": hidden,
        }
        self.stride, self.heads = stride, heads
        self._site = self.levels - int(math.log2(stride))
        channels = self.sound_net.site_channels
        self.token = nn.Parameter(torch.randn(token_dim) / math.sqrt(token_dim))
        self.from_query = nn.Linear(self.config["embed_dim"], token_dim)
        self.from_mixture = nn.Linear(channels[0], token_dim)
        self.norm = nn.LayerNorm(token_dim)
        self.pool = nn.MultiheadAttention(token_dim, 4, batch_first=True)
        self.to_heads = nn.Linear(token_dim, heads * head_dim)
        self.to_keys = nn.Conv2d(channels[self._site], heads * head_dim, 1)
        self.fuse = nn.Sequential(
            nn.Conv2d(heads, heads, 3, padding=1), nn.SiLU(), nn.Conv2d(heads, 1, 3, padding=1)
        )
        nn.init.constant_(self.fuse[-1].bias, _BIAS)
        self.decoder = nn.Sequential(
            nn.Conv2d(self.config["mask_channels"] + 1, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, 1, 3, padding=1),
        )
        nn.init.zeros_(self.decoder[-1].weight)
        nn.init.zeros_(self.decoder[-1].bias)
        self.to(memory_format=torch.channels_last)

    def logits(self, magnitude: Tensor, query: Tensor) -> Tensor:
        """Mask logits; shapes as in `QueryNet.logits`."""
        each = query.expand(len(magnitude), -1) if query.dim() == 1 else query
        return self.combine(self.maps(magnitude), each)

    def maps(self, magnitude: Tensor) -> Scene:
        """Mixture magnitudes (B, F, T) to what is shared by all queries."""
        frames, x = magnitude.shape[-1], self._input(magnitude)
        with autocast(x.device, self.amp):
            maps, sites = self.sound_net.sites(x)
            keys = self.to_keys(sites[self._site])
            tokens = self.from_mixture(sites[0].flatten(2).mT)
        columns = -(-frames // self.stride)
        return Scene(maps.float()[..., :frames], keys.float()[..., :columns], tokens.float())

    def base(self, maps: Scene) -> Tensor:
        """As in `QueryNet.base`."""
        return maps.maps

    def combine(self, maps: Scene, query: Tensor) -> Tensor:
        """Mask logits (B, H, T) or (B, Q, H, T) from a scene and queries (B, D) or (B, Q, D)."""
        several = query if query.dim() == 3 else query[:, None]
        logits = self.decode(maps, several, self.locate(maps, several))
        return logits if query.dim() == 3 else logits[:, 0]

    def heatmap(self, magnitude: Tensor, query: Tensor) -> Tensor:
        """Logits of the heat map, h = H / stride rows and w = T / stride columns, rounded up.

        Args:
            magnitude: (B, F, T) mixture magnitudes, any T.
            query: (B, D), (B, Q, D) or (D,).

        Returns:
            (B, h, w), or (B, Q, h, w) for several queries; float32.
        """
        each = query.expand(len(magnitude), -1) if query.dim() == 1 else query
        return self.locate(self.maps(magnitude), each)

    def locate(self, scene: Scene, query: Tensor) -> Tensor:
        """`heatmap` of a scene, for queries (B, D) or (B, Q, D)."""
        several = query if query.dim() == 3 else query[:, None]
        rows, asked = several.shape[:2]
        asking = self.from_query(self.recall(several.flatten(0, 1)) * self.query_gain)[:, None]
        mixture = scene.tokens.repeat_interleave(asked, 0)
        seen = self.norm(torch.cat([asking, mixture], 1))  # (B Q, 1 + N, E)
        token = self.token.expand(len(seen), 1, -1)
        token = token + self.pool(token, seen, seen, need_weights=False)[0]
        heads = self.to_heads(token).view(rows, asked, self.heads, -1)
        keys = scene.keys.unflatten(1, (self.heads, -1))
        product = torch.einsum("bqnd,bndhw->bqnhw", heads, keys) / math.sqrt(heads.shape[-1])
        heat = self.fuse(product.flatten(0, 1)).view(rows, asked, *keys.shape[-2:])
        return heat if query.dim() == 3 else heat[:, 0]

    def decode(self, scene: Scene, query: Tensor, heat: Tensor) -> Tensor:
        """Mask logits (B, Q, H, T) for heat maps (B, Q, h, w) that need not be the network's own.

        Args:
            scene: of the mixtures.
            query: (B, Q, D), or (B, 1, D) for one that all heat maps belong to.
            heat: logits.
        """
        base = super().combine(scene.maps, query)
        *grid, frames = base.shape[2:]
        scaled = nn.functional.interpolate(heat, scale_factor=self.stride, mode="bilinear")
        scaled = scaled[..., :frames].flatten(0, 1)[:, None]
        first, activation, last = self.decoder
        with autocast(heat.device, self.amp):
            shared = nn.functional.conv2d(scene.maps, first.weight[:, :-1], first.bias, padding=1)
            own = nn.functional.conv2d(scaled, first.weight[:, -1:], padding=1)
            inner = shared[:, None] + own.unflatten(0, heat.shape[:2])
            offset = last(activation(inner.flatten(0, 1))).float()
        return base + offset.view(*heat.shape[:2], *grid, frames)

    forward = logits
