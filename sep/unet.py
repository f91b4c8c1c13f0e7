"""U-Net over log-magnitude spectrograms with the state-dict names of CLIPSep and OmniSep."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class UNet(nn.Module):
    """Batch-normalised U-Net: (B, 1, H, T) to K feature maps (B, K, H, T).

    Each level halves H and T by a 4x4 convolution and doubles them again by bilinear
    interpolation and a 3x3 convolution; block inputs are concatenated to block outputs. Channels
    grow as width x (1, 2, 4, 8, 8, ...). With seven levels, width 64 and 32 outputs this is the
    sound net of OmniSep, key by key.

    Args:
        width: channels of the outermost level (`ngf`).
        levels: number of down/up levels; H and T must be multiples of 2**levels.
        out_channels: K.
    """

    def __init__(self, width: int = 64, levels: int = 7, out_channels: int = 32):
        super().__init__()
        channels = [width * min(2**level, 8) for level in range(levels)]
        block = None
        for level in range(levels - 1, 0, -1):
            block = _Block(channels[level - 1], channels[level], block)
        self.stem_channels = width
        self.site_channels = [channels[-1], *(2 * c for c in channels[-2::-1])]
        self.bn0 = nn.BatchNorm2d(1)
        self.unet_block = _Outermost(channels[0], block, out_channels)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Map (B, 1, H, T) log magnitudes to (B, K, H, T) features.

        `added` (B, width, H / 2, T / 2) joins the output of the first convolution, as if more
        input channels had been there.
        """
        return self.unet_block(self.bn0(x), added)

    def sites(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output, and what the decoder sees on its way from the bottleneck outwards.

        Returns:
            (B, K, H, T), and a feature a level: the i-th has `site_channels[i]` channels and is
            smaller by 2**(levels - i), so that the bottleneck comes first.
        """
        kept: list[Tensor] = []
        return self.unet_block(self.bn0(x), kept=kept), kept

    def weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        """The sum of the K maps by weights (K,): (B, 1, H, T) to (B, H, T), at the least cost."""
        return folded(self.last, weight, self.unet_block.before_last(self.bn0(x)))

    def way_up(self, levels: int) -> list[nn.Module]:
        """Convolutions and norms after the upsampling of the outermost `levels` levels."""
        blocks = [m for m in self.modules() if isinstance(m, _Block)]  # outermost first
        return [self.last, *(part for block in blocks[: levels - 1] for part in block.model[-2:])]

    @property
    def last(self) -> nn.Conv2d:
        """The last convolution, 2 x width channels to K, without norm or activation after it."""
        return self.unet_block.model[-1]


def steady(network: nn.Module) -> nn.Module:
    """The same network, weights shared, whose features do not depend on where a recording is cut.

    The U-Net's interpolation puts the first and last frames of its input onto those of its output,
    so that what lies between moves with the length. Here it takes the same two neighbours in the
    same shares everywhere, those that a long input has at its middle: pieces that start at
    multiples of 2**levels frames then give what the whole gives, but near their ends.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = copy.deepcopy(network, shared)
    for module in twin.modules():
        if isinstance(module, _Up):
            module.steady = True
    return twin


def folded(last: nn.Conv2d, weight: Tensor, x: Tensor) -> Tensor:
    """What comes of a last convolution to K channels and their sum by weights (K,), in one.

    Args:
        last: the convolution, which is linear, so that the weights move before it.
        x: its input (B, C, H, T); the result is (B, H, T).
    """
    kernel = torch.einsum("k,kcij->cij", weight, last.weight)[None]
    return nn.functional.conv2d(x, kernel, (weight @ last.bias)[None], padding=last.padding)[:, 0]


def sums(maps: Tensor, weight: Tensor) -> Tensor:
    """Sums of maps (B, K, H, T) by weights (B, Q, K): (B, Q, H, T).

    Maps in channels_last, as networks make them, are summed row by row where they lie: to flatten a
    stretch of them copies them, which takes ten times as long as their sum.
    """
    if maps.stride(1) == 1:
        return (weight[:, None] @ maps.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(weight, maps.flatten(2)).unflatten(-1, maps.shape[-2:])


class _Up(nn.Upsample):
    """Doubles H and T bilinearly; `steady` as the function of that name says."""

    def __init__(self):
        super().__init__(scale_factor=2, mode="bilinear", align_corners=True)
        self.steady = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.steady:
            return super().forward(x)
        x = interpolate(x, scale_factor=(1, 2), mode="bilinear", align_corners=False)
        return interpolate(x, scale_factor=(2, 1), mode="bilinear", align_corners=True)


class _Outermost(nn.Module):
    def __init__(self, width: int, inner: nn.Module, out_channels: int):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1, bias=False),
            inner,
            nn.ReLU(inplace=True),
            _Up(),
            nn.Conv2d(2 * width, out_channels, 3, padding=1),
        )

    def before_last(self, x: Tensor) -> Tensor:
        return self.model[:-1](x)

    def forward(
        self, x: Tensor, added: Tensor | None = None, kept: list[Tensor] | None = None
    ) -> Tensor:
        x = self.model[0](x)
        return _through(self.model[1:], x if added is None else x + added, kept)


class _Block(nn.Module):
    def __init__(self, outer: int, width: int, inner: nn.Module | None):
        super().__init__()
        down = [nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(outer, width, 4, 2, 1, bias=False)]
        if inner is not None:
            down += [nn.BatchNorm2d(width), inner]
        into = width if inner is None else 2 * width
        up = [nn.Conv2d(into, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)]
        self.model = nn.Sequential(*down, nn.ReLU(inplace=True), _Up(), *up)

    def forward(self, x: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        # The activation at index 0 works in place, so the skip carries the activated x, as in
        # the reference network.
        return torch.cat([x, _through(self.model, x, kept)], dim=1)


def _through(layers: nn.Sequential, x: Tensor, kept: list[Tensor] | None) -> Tensor:
    """Apply layers; what enters the decoder's ReLUs is added to `kept`, innermost first."""
    for layer in layers:
        x = layer(x, kept) if isinstance(layer, _Block) else layer(x)
        if kept is not None and isinstance(layer, nn.ReLU):
            kept.append(x)
    return x
