"""Convolutions of Lite0 in low precision: depthwise ones, and those in one pass with relu6."""

import copy

import pytest
import torch

from encoders import lite0
from encoders.lite0 import conv
from encoders.precision import fold_norms


@pytest.mark.parametrize("stride", [1, 2])
def test_values_are_those_without_gradients_and_gradients_those_of_float32(stride):
    torch.manual_seed(0)
    layer = conv(6, 6, 5, stride, groups=6)
    layer.bias = torch.nn.Parameter(torch.randn(6))  # as where a norm was folded into it
    x = torch.randn(2, 6, 9, 12)
    found = {}
    for low in (False, True):
        given = x.clone().requires_grad_()
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            y = layer(given)
        y.float().square().sum().backward()
        found[low] = [y.detach().float(), given.grad, layer.weight.grad, layer.bias.grad]
    assert all(part.dtype == torch.float32 for part in found[True])
    for low, exact in zip(found[True], found[False], strict=True):
        assert (low - exact).norm() < 0.01 * exact.norm()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x).float(), found[True][0])


def test_what_needs_no_gradient_gets_none():
    layer = conv(4, 4, 3, groups=4).requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
        layer(x.detach())
    assert x.grad.dtype == torch.float32 and layer.weight.grad is None


@pytest.fixture(scope="module")
def folded():
    torch.manual_seed(0)
    net = lite0.build(channels=1, pretrained=False).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # norms that do something
            module.running_mean.normal_()
            torch.nn.init.normal_(module.bias)
    folded = copy.deepcopy(net)
    fold_norms(folded)
    return net, folded


@pytest.fixture
def forget():
    yield
    lite0._fuses.cache_clear()


def test_relu6_in_one_pass_with_its_convolution_changes_no_value(folded, monkeypatch, forget):
    lite0._fuses.cache_clear()
    if not lite0._fuses():
        pytest.skip("this torch or processor has no such operator")
    x, calls = torch.randn(2, 1, 40, 50), []
    fused = lite0._conv_relu6
    monkeypatch.setattr(lite0, "_conv_relu6", lambda *args: calls.append(1) or fused(*args))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        once = folded[1](x)
        assert len(calls) == 2 + 16 + 15  # stem, head, 16 depthwise, 15 that expand
        folded[0](x)  # not where the norms are still there
    folded[1](x)  # nor in float32
    with torch.autocast("cpu", torch.bfloat16):  # nor where gradients may be wanted
        twice = folded[1](x)
    assert len(calls) == 2 + 16 + 15
    assert torch.equal(once, twice)


def test_a_torch_without_that_operator_does_without(folded, monkeypatch, forget):
    def missing(*_):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no such attribute")

    x = torch.randn(1, 1, 40, 50)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = folded[1](x)
        lite0._fuses.cache_clear()
        monkeypatch.setattr(lite0, "_conv_relu6", missing)
        assert not lite0._fuses()
        assert torch.equal(folded[1](x), wanted)
