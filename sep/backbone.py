"""A U-Net that goes down through EfficientNet-Lite0, so that it can start from learned weights."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu6

from encoders.lite0 import Lite0
from sep.errors import ModelError
from sep.unet import folded

# first of Lite0's stages at a stride, the one after the last, channels there
STAGES = ((0, 1, 16), (1, 2, 24), (2, 3, 40), (3, 5, 112), (5, 7, 320))
DOWN = ("conv_stem", "bn1", "blocks")  # what is Lite0's


class BackboneUNet(nn.Module):
    """U-Net over log magnitudes whose way down is EfficientNet-Lite0: (B, 1, H, T) to (B, K, H, T).

    The encoder's audio tower has the same layers (`encoders.small`), and so has a network that was
    trained on pictures: `load_backbone` takes their weights. The way up doubles H and T bilinearly
    and joins what the way down had at that size; the outermost level joins a convolution of the
    input. It offers what `sep.unet.UNet` offers, so that networks built on that work on this. Its
    features do not depend on where a recording is cut, as those of `sep.unet.steady`.

    Args:
        width: channels of the outermost level of the way up; the inner ones have 2, 3, 4, 8 x.
        out_channels: K.

    Attributes:
        levels: times that H and T are halved; they must be multiples of 2**levels.
        stem_channels: of the first convolution; site_channels: as in `UNet`.
    """

    levels = len(STAGES)

    def __init__(self, width: int = 16, out_channels: int = 32):
        super().__init__()
        net = Lite0()
        self.bn0 = nn.BatchNorm2d(1)
        self.conv_stem, self.bn1 = net.conv_stem, net.bn1
        self.conv_stem.weight = nn.Parameter(self.conv_stem.weight.detach().sum(1, keepdim=True))
        self.conv_stem.in_channels = 1
        self.blocks = net.blocks
        self.skip = _conv(1, width, 3)
        sizes = [width, 2 * width, 3 * width, 4 * width, 8 * width]  # outermost first
        skips = [width, *(channels for _, _, channels in STAGES[:-1])]
        inputs = [*sizes[1:], STAGES[-1][2]]
        self.up = nn.ModuleList(
            _Up(into, beside, out) for into, beside, out in zip(inputs, skips, sizes, strict=True)
        )
        self.last = nn.Conv2d(width, out_channels, 3, padding=1)
        self.stem_channels = self.conv_stem.out_channels
        self.site_channels = [STAGES[-1][2], *sizes[:0:-1]]

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """As `UNet.forward`; `added` (B, 32, H / 2, T / 2)."""
        return self.last(self._through(self.bn0(x), added, []))

    def sites(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `UNet.sites`: the i-th is smaller by 2**(levels - i)."""
        kept: list[Tensor] = []
        return self.last(self._through(self.bn0(x), None, kept)), kept

    def weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        """As `UNet.weighted`."""
        return folded(self.last, weight, self._through(self.bn0(x), None, []))

    def way_up(self, levels: int) -> list[nn.Module]:
        """The last convolution and the outermost `levels` levels of the way up."""
        return [self.last, *self.up[:levels]]

    def load_backbone(self, state: dict[str, Tensor]) -> None:
        """Start the way down from an EfficientNet-Lite0 for one channel, by its state dict.

        Raises:
            ModelError: the state of another network.
        """
        own = [name for name in self.state_dict() if name.split(".")[0] in DOWN]
        try:
            self.load_state_dict({name: state[name] for name in own}, strict=False)
        except (KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ModelError(
                f"a backbone starts from an EfficientNet-Lite0 for one channel, not this ({reason})"
            ) from None

    def _through(self, x: Tensor, added: Tensor | None, kept: list[Tensor]) -> Tensor:
        down = [self.skip(x)]
        x = self.conv_stem(x)
        x = relu6(self.bn1(x if added is None else x + added))
        for begin, end, _ in STAGES:
            x = self.blocks[begin:end](x)
            down.append(x)
        x = down.pop()
        kept.append(x)
        for level in reversed(self.up):
            x = level(x, down.pop())
            kept.append(x)
        kept.pop()
        return x


class _Up(nn.Module):
    """Doubles H and T, joins what the way down had there, two convolutions."""

    def __init__(self, into: int, beside: int, out: int):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.reduce = _conv(into, out, 1)
        self.join = _conv(out + beside, out, 3)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        return self.join(torch.cat([self.up(self.reduce(x)), beside], 1))


def _conv(into: int, out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )
