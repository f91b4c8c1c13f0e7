"""The network with a heat map: what it adds, and that it adds nothing at first."""

import pytest
import torch

from sep import hub
from sep.errors import ModelError
from sep.model import QueryNet
from sep.networks.prior import PriorNet

SMALL = {"heads": 2, "head_dim": 4, "token_dim": 8, "hidden": 3}


def base():
    torch.manual_seed(0)
    model = QueryNet(width=2, levels=4, mask_channels=3, embed_dim=8, query_gain=3.0, floor=1e-3)
    model.amp = False
    return model.eval()


def trained(**options):
    """A PriorNet whose decoder does something."""
    model = hub.extend(base(), "prior", **SMALL | options)
    with torch.no_grad():
        model.decoder[-1].weight.normal_()
    return model


def scene_of(model, frames=20, rows=2):
    generator = torch.Generator().manual_seed(1)
    magnitude = torch.rand(rows, 513, frames, generator=generator)
    return magnitude, torch.randn(rows, 3, 8, generator=generator)


@pytest.mark.parametrize("frames", [16, 21, 3])
def test_the_first_masks_are_those_of_the_smaller_network(frames):
    model = base()
    larger = hub.extend(model, "prior", **SMALL)
    magnitude, query = scene_of(model, frames)
    with torch.no_grad():
        assert torch.equal(larger.logits(magnitude, query), model.logits(magnitude, query))
        assert torch.equal(larger(magnitude, query[:, 0]), model(magnitude, query[:, 0]))
        shared = larger.logits(magnitude, query[0, 0]) - model.logits(magnitude, query[0, 0])
        assert shared.abs().max() < 1e-5


def test_the_first_heat_map_is_slightly_empty():
    model = hub.extend(base(), "prior", **SMALL)
    magnitude, query = scene_of(model)
    with torch.no_grad():
        heat = model.heatmap(magnitude, query)
    assert heat.mean().item() == pytest.approx(-1.8, abs=0.7)


def test_a_heat_map_has_a_cell_for_every_stride():
    magnitude, query = scene_of(base(), frames=21)
    for stride, columns in ((2, 11), (4, 6), (8, 3)):
        model = trained(stride=stride)
        with torch.no_grad():
            assert model.heatmap(magnitude, query).shape == (2, 3, 256 // stride, columns)
            assert model.heatmap(magnitude, query[:, 0]).shape == (2, 256 // stride, columns)
            assert model.heatmap(magnitude, query[0, 0]).shape == (2, 256 // stride, columns)


def test_queries_of_one_mixture_share_its_pass_and_do_not_see_each_other():
    model = trained()
    magnitude, query = scene_of(model)
    passes = []
    model.sound_net.bn0.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        several = model.logits(magnitude, query)
        assert len(passes) == 1
        for q in range(3):
            alone = model.logits(magnitude, query[:, q])
            torch.testing.assert_close(several[:, q], alone, atol=1e-5, rtol=1e-4)
        one = model.logits(magnitude[:1], query[0, 0])
        torch.testing.assert_close(several[:1, 0], one, atol=1e-5, rtol=1e-4)


def test_the_heat_map_depends_on_the_query_and_on_the_mixture():
    model = trained()
    magnitude, query = scene_of(model)
    with torch.no_grad():
        heat = model.heatmap(magnitude, query)
        other = model.heatmap(magnitude.flip(-1), query)
    assert (heat[:, 0] - heat[:, 1]).abs().max() > 1e-4
    assert (heat - other).abs().max() > 1e-4


def test_the_token_sees_the_bottleneck_of_its_own_mixture():
    """With keys that are alike everywhere, only the pooled tokens tell two mixtures apart."""
    model = trained()
    magnitude, query = scene_of(model)
    scene = model.maps(magnitude)
    same = scene._replace(keys=torch.ones_like(scene.keys))
    heat = model.locate(same, query[:1].expand(2, -1, -1))
    assert (heat[0] - heat[1]).abs().max() > 1e-5
    blind = same._replace(tokens=torch.zeros_like(scene.tokens))
    heat = model.locate(blind, query[:1].expand(2, -1, -1))
    torch.testing.assert_close(heat[0], heat[1])


def test_heads_are_scaled_products_fused_without_softmax():
    model = trained(heads=1, head_dim=4)
    scene = model.maps(scene_of(model)[0][:1])
    captured = []
    model.to_heads.register_forward_hook(lambda *given: captured.append(given[2]))
    model.fuse = torch.nn.Identity()
    heat = model.locate(scene, torch.ones(1, 8))
    expected = sum(captured[0][0, 0, c] * scene.keys[0, c] for c in range(4)) / 2
    torch.testing.assert_close(heat[0], expected)


def test_the_decoder_is_two_convolutions_of_maps_and_heat_map():
    model = trained()
    magnitude, query = scene_of(model)
    with torch.no_grad():
        scene = model.maps(magnitude)
        heat = torch.randn(2, 3, 32, 3)
        decoded = model.decode(scene, query, heat)
        scaled = torch.nn.functional.interpolate(heat, scale_factor=8, mode="bilinear")[..., :20]
        plain = QueryNet.combine(model, scene.maps, query)
        for q in range(3):
            stacked = torch.cat([scene.maps, scaled[:, q : q + 1]], 1)
            expected = plain[:, q] + model.decoder(stacked)[:, 0]
            torch.testing.assert_close(decoded[:, q], expected, atol=1e-5, rtol=1e-4)


def test_gradients_of_the_heat_map_reach_all_that_makes_it_and_nothing_else():
    model = trained()
    magnitude, query = scene_of(model)
    model.heatmap(magnitude, query).square().sum().backward()
    reached = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    made = {"token", "from_query", "from_mixture", "norm", "pool", "to_heads", "to_keys", "fuse"}
    assert reached == made | {"sound_net"}
    assert model.sound_net.last.weight.grad is None


def test_a_model_folder_keeps_its_kind(tmp_path):
    model = trained(stride=4)
    hub.save_pretrained(model, tmp_path / "model")
    loaded = hub.from_pretrained(tmp_path / "model")
    loaded.amp = False
    magnitude, query = scene_of(model)
    with torch.no_grad():
        assert type(loaded) is PriorNet and loaded.stride == 4
        assert torch.equal(loaded.mask(magnitude, query), model.mask(magnitude, query))
        wave = torch.randn(2, 4000)
        assert loaded.separate(wave, query).shape == (2, 3, 4000)


def test_names_of_the_published_network_are_kept():
    model = base()
    names = set(hub.extend(model, "prior", **SMALL).state_dict())
    assert set(model.state_dict()) < names


@pytest.mark.parametrize("options", [{"stride": 3}, {"stride": 16}, {"token_dim": 6}])
def test_sizes_that_do_not_fit_are_refused(options):
    with pytest.raises(ModelError, match="of the prior is no"):
        hub.extend(base(), "prior", **options)


def test_an_unknown_option_is_named():
    with pytest.raises(ModelError, match=r"network prior: .*strid"):
        hub.extend(base(), "prior", strid=8)
