"""The U-Net that goes down through EfficientNet-Lite0."""

import pytest
import torch

from encoders import lite0
from encoders.small import SmallEncoder
from sep import hub
from sep.backbone import BackboneUNet
from sep.errors import ModelError
from sep.export import export
from sep.model import QueryNet
from sep.rl.distill import freeze_head

OPTIONS = {"width": 2, "levels": 5, "mask_channels": 3, "embed_dim": 8, "backbone": "lite0"}


def tiny(**options) -> QueryNet:
    torch.manual_seed(0)
    model = QueryNet(**OPTIONS | {"spectrogram": {"log_bins": 64}} | options)
    model.amp = False
    return model.eval()


def test_one_query_folded_into_the_last_convolution_gives_the_same_mask():
    model = tiny()
    magnitude, query = torch.rand(2, 513, 45), torch.randn(8)
    with torch.no_grad():
        model.synth_net.scale.normal_()
        folded = model.logits(magnitude, query)
        plain = model.logits(magnitude, query.expand(2, 8))
    assert folded.shape == (2, 64, 45)
    torch.testing.assert_close(folded, plain, atol=1e-4, rtol=1e-4)


def test_sites_halve_from_the_input_to_the_bottleneck():
    network = BackboneUNet(width=4, out_channels=3).eval()
    x = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        out, sites = network.sites(x)
        torch.testing.assert_close(out, network(x))
        weight = torch.tensor([1.0, -2.0, 0.5])
        wanted = (weight[:, None, None] * out).sum(1)
        torch.testing.assert_close(network.weighted(x, weight), wanted, atol=1e-4, rtol=1e-4)
    for i, site in enumerate(sites):
        scale = 2 ** (network.levels - i)
        assert site.shape == (1, network.site_channels[i], 64 // scale, 96 // scale)
    assert len(sites) == network.levels


def test_the_way_down_starts_as_the_audio_tower_of_an_encoder():
    torch.manual_seed(0)
    encoder = SmallEncoder(dim=8, mels=64, pretrained=False)
    with torch.no_grad():
        for value in encoder.backbone.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    network = BackboneUNet(width=4).eval()
    network.load_backbone(encoder.backbone.state_dict())
    network.bn0.running_var.fill_(1 - network.bn0.eps)  # which leaves the input alone
    x = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        tower = encoder.backbone
        deepest = tower.blocks(torch.relu(tower.bn1(tower.conv_stem(x))).clamp(max=6))
        torch.testing.assert_close(network.sites(x)[1][0], deepest)


def test_weights_of_another_network_are_refused():
    network = BackboneUNet(width=4)
    with pytest.raises(ModelError, match=r"not this.*bn1"):
        network.load_backbone({"conv_stem.weight": network.conv_stem.weight.detach()})
    with pytest.raises(ModelError, match=r"not this.*conv_stem"):
        network.load_backbone(lite0.build(channels=3, pretrained=False).state_dict())


@torch.no_grad()
def test_features_do_not_depend_on_where_a_recording_is_cut():
    model, steps = tiny(), 2**5
    magnitude, query = torch.rand(1, 513, 60 * steps), torch.randn(1, 8)
    whole = model.logits(magnitude, query)
    part = model.logits(magnitude[..., 10 * steps :], query)
    inner = slice(25 * steps, 35 * steps)
    torch.testing.assert_close(
        part[..., inner], whole[..., 10 * steps :][..., inner], atol=1e-4, rtol=1e-4
    )
    shifted = model.logits(magnitude[..., 10 * steps + 7 :], query)
    difference = shifted[..., inner] - whole[..., 10 * steps + 7 :][..., inner]
    assert difference.abs().max() > 1e-3


def test_a_model_folder_brings_it_back(tmp_path):
    model = tiny()
    hub.save_pretrained(model, tmp_path / "model")
    loaded = hub.from_pretrained(tmp_path / "model")
    loaded.amp = False
    wave, query = torch.randn(1, 8000), torch.randn(1, 8)
    with torch.no_grad():
        assert torch.equal(loaded.separate(wave, query), model.separate(wave, query))


@pytest.mark.parametrize("kind", ["prior", "reflect", "trace", "turns", "confident"])
@torch.no_grad()
def test_larger_networks_begin_with_its_masks(kind):
    model = tiny()
    larger = hub.extend(model, kind).eval()
    magnitude, query = torch.rand(1, 513, 64), torch.randn(1, 2, 8)
    found = larger.combine(larger.maps(magnitude), query)
    wanted = model.combine(model.maps(magnitude), query)
    torch.testing.assert_close(found, wanted, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_it_is_exported_for_any_length(kind, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    assert export(tiny(), tmp_path / "net", kind) < 1e-3  # checked at other lengths
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_its_head_can_be_frozen():
    model, teacher = tiny(), tiny()
    freeze_head(model, teacher, 2)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert any(name.startswith("sound_net.last") for name in frozen)
    assert any(name.startswith("sound_net.up.1") for name in frozen)
    assert not any(name.startswith(("sound_net.up.2", "sound_net.blocks")) for name in frozen)


def test_unknown_backbones_and_other_depths_are_told():
    with pytest.raises(ModelError, match="use lite0"):
        QueryNet(**OPTIONS | {"backbone": "resnet"})
    with pytest.raises(ModelError, match="5 levels, not 7"):
        QueryNet(**OPTIONS | {"levels": 7})
