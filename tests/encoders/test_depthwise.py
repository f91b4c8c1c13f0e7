"""Depthwise convolutions in low precision, whose way back is in float32."""

import pytest
import torch

from encoders.lite0 import conv


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
