"""The second pass: nothing at first, any query and length, and what it is shown."""

import math

import pytest
import torch

from sep import hub
from sep.model import QueryNet
from sep.networks.reflect import ReflectiveNet
from sep.separator import Separator

SIZE = {"width": 2, "levels": 4, "mask_channels": 3, "embed_dim": 8, "floor": 1e-3}


def base():
    torch.manual_seed(0)
    model = QueryNet(**SIZE).eval()
    model.amp = False
    return model


def trained(**options):
    """A reflective network whose second pass does something."""
    model = hub.extend(base(), "reflect", **options)
    torch.manual_seed(1)
    for weight in (model.again_net.weight, model.again_net.bias, model.delta_net.scale):
        torch.nn.init.normal_(weight)
    return model


QUERIES = {"one": (2, 8), "several": (2, 3, 8), "shared": (8,)}


@pytest.mark.parametrize("shape", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("frames", [1, 16, 21])
def test_masks_are_those_of_the_base_until_it_is_trained(shape, frames):
    model, query, magnitude = base(), torch.randn(*shape), torch.rand(2, 513, frames)
    larger = hub.extend(model, "reflect")
    with torch.no_grad():
        wanted = model(magnitude, query)  # but for the last bit, by which matrix kernel is taken
        torch.testing.assert_close(larger(magnitude, query), wanted, atol=1e-6, rtol=1e-5)
        assert (trained()(magnitude, query) - wanted).abs().max() > 1e-3


def test_all_forms_of_query_give_the_same_masks():
    model, magnitude, query = trained(), torch.rand(2, 513, 21), torch.randn(8)
    with torch.no_grad():
        shared = model.logits(magnitude, query)
        repeated = model.logits(magnitude, query.expand(2, 8))
        several = model.logits(magnitude, torch.stack([-query, query]).expand(2, 2, 8))
    torch.testing.assert_close(shared, repeated, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(several[:, 1], repeated, atol=1e-4, rtol=1e-4)


def test_one_pass_gives_the_masks_of_the_base():
    model, magnitude, query = trained(), torch.rand(1, 513, 16), torch.randn(1, 8)
    model.passes = 1
    with torch.no_grad():
        wanted = base()(magnitude, query)
        torch.testing.assert_close(model(magnitude, query), wanted, atol=1e-6, rtol=1e-5)


def test_what_the_second_pass_sees_by_hand():
    model = trained()
    norm = model.sound_net.bn0
    norm.running_mean.fill_(-2.0)
    norm.running_var.fill_(4.0 - norm.eps)
    x = torch.tensor([-1.0, -4.0]).reshape(1, 1, 1, 2)
    before = torch.tensor([math.log(3), -50.0]).reshape(1, 1, 1, 2)  # P1 = 0.75 and 0
    seen = model._seen(x, before)[0, :, 0]
    floor = math.log(1e-3)
    expected = [
        [(-1 + math.log(0.75) + 2) / 2, (floor + 2) / 2],
        [(-1 + math.log(0.25) + 2) / 2, (-4 + 2) / 2],
        [0.75, 0.0],
    ]
    torch.testing.assert_close(seen, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_a_blind_second_pass_does_not_depend_on_the_first_mask():
    seen, query = torch.randn(1, 1, 256, 16), torch.randn(1, 8)
    first = torch.randn(1, 256, 16)
    with torch.no_grad():
        for blind in (True, False):
            model = trained(blind=blind)
            change = model.revised(first, seen, query) - first
            other = model.revised(-first, seen, query) + first
            assert torch.allclose(change, other, atol=1e-4) == blind


def test_the_mask_of_pass_1_goes_in_without_gradient():
    model, first = trained(), torch.randn(1, 256, 16, requires_grad=True)
    model.revised(first, torch.randn(1, 1, 256, 16), torch.randn(1, 8)).sum().backward()
    torch.testing.assert_close(first.grad, torch.ones_like(first))
    for weight in (model.again_net.weight, model.again_net.bias, model.delta_net.scale):
        assert weight.grad.abs().sum() > 0


def test_model_folder_round_trip(tmp_path):
    model = trained(blind=True)
    hub.save_pretrained(model, tmp_path / "model")
    loaded = hub.from_pretrained(tmp_path / "model")
    loaded.amp = False
    assert isinstance(loaded, ReflectiveNet) and loaded.blind
    wave, query = torch.randn(1, 4000), torch.randn(1, 8)
    assert torch.equal(loaded.separate(wave, query), model.separate(wave, query))


def test_it_separates_a_recording_as_the_base_does(model_dir, separator, tmp_path):
    larger = hub.extend(hub.from_pretrained(model_dir), "reflect")
    hub.save_pretrained(larger, tmp_path / "best", encoder=model_dir / "encoder")
    mixture, query = 0.2 * torch.randn(2, 30_000), separator.query(text="a bell")
    result = Separator.from_pretrained(tmp_path / "best", device="cpu").separate(
        mixture, 16_000, query=query
    )
    expected = separator.separate(mixture, 16_000, query=query)
    assert torch.equal(result.target, expected.target)
