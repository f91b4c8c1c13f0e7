"""Separators side by side, and several joined to one."""

import pytest
import torch

from sep import hub
from sep.errors import ModelError
from sep.export import export
from sep.joined import mean_of
from sep.model import QueryNet
from sep.rl.distill import freeze_head

PLAIN = {"width": 2, "levels": 5, "mask_channels": 3, "embed_dim": 4}
LITE = PLAIN | {"backbone": "lite0"}
RECALL = {"recall": {"count": 2, "beta": 7.0}}


def trained(seed: int, options=PLAIN) -> QueryNet:
    torch.manual_seed(seed)
    model = QueryNet(**options | {"spectrogram": {"log_bins": 64}})
    model.amp = False
    with torch.no_grad():
        model.synth_net.scale.normal_()
        model.synth_net.bias.normal_()
        if "recall" in options:
            model.recall.known.copy_(torch.eye(2, 4))
        for name, value in model.named_buffers():
            if "running_mean" in name:
                value.normal_()
    return model.eval()


def joined(options=PLAIN) -> tuple[list[QueryNet], QueryNet]:
    models = [trained(seed, options) for seed in range(3)]
    model = mean_of(models)
    model.amp = False
    return models, model


@pytest.mark.parametrize("options", [PLAIN, LITE, LITE | RECALL])
@torch.no_grad()
def test_logits_are_the_mean_of_those_that_were_joined(options):
    models, model = joined(options)
    magnitude, query = torch.rand(2, 513, 45), torch.randn(2, 2, 4)
    wanted = torch.stack([m.logits(magnitude, query) for m in models]).mean(0)
    torch.testing.assert_close(model.logits(magnitude, query), wanted, atol=1e-4, rtol=1e-4)
    one = model.logits(magnitude, query[0, 0])  # one query for all is folded in
    torch.testing.assert_close(one[0], wanted[0, 0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_joined_separator_is_joined_again():
    _, model = joined()
    twice = mean_of([model, model])
    twice.amp = False
    magnitude, query = torch.rand(1, 513, 32), torch.randn(1, 4)
    torch.testing.assert_close(
        twice.logits(magnitude, query), model.logits(magnitude, query), atol=1e-4, rtol=1e-4
    )
    assert twice.config["networks"] == 6 and twice.config["mask_channels"] == 18


def test_what_differs_is_not_joined():
    for options in (PLAIN | {"width": 4}, LITE, PLAIN | RECALL):
        with pytest.raises(ModelError, match="cannot be joined"):
            mean_of([trained(0), trained(1, options)])
    other = trained(1, PLAIN | RECALL)
    other.recall.known.mul_(2)
    with pytest.raises(ModelError, match="memory"):
        mean_of([trained(0, PLAIN | RECALL), other])
    prior = hub.extend(trained(0), "prior")
    with pytest.raises(ModelError, match="kind"):
        mean_of([prior, prior])


@pytest.mark.parametrize("options", [PLAIN, LITE])
@torch.no_grad()
def test_sites_are_those_of_all(options):
    models, model = joined(options)
    x = torch.randn(1, 1, 64, 96)
    out, sites = model.sound_net.sites(x)
    torch.testing.assert_close(out, model.sound_net(x))
    for i, site in enumerate(sites):
        assert site.shape[1] == model.sound_net.site_channels[i]
        own = [m.sound_net.sites(x)[1][i] for m in models]
        torch.testing.assert_close(site, torch.cat(own, 1))


@pytest.mark.parametrize("kind", ["prior", "reflect", "trace", "turns", "confident"])
@torch.no_grad()
def test_larger_networks_begin_with_its_masks(kind):
    _, model = joined(LITE)
    larger = hub.extend(model, kind).eval()
    magnitude, query = torch.rand(1, 513, 64), torch.randn(1, 2, 4)
    found = larger.combine(larger.maps(magnitude), query)
    wanted = model.combine(model.maps(magnitude), query)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_model_folder_and_an_export_bring_it_back(tmp_path):
    _, model = joined(LITE)
    hub.save_pretrained(model, tmp_path / "model")
    loaded = hub.from_pretrained(tmp_path / "model")
    loaded.amp = False
    wave, query = torch.randn(1, 8000), torch.randn(1, 4)
    assert torch.equal(loaded.separate(wave, query), model.separate(wave, query))
    assert export(model, tmp_path / "net", "torchscript") < 1e-3


def test_the_heads_of_all_are_frozen():
    _, model = joined(LITE)
    _, teacher = joined(LITE)
    freeze_head(model, teacher, 1)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for k in range(3):
        assert f"sound_net.networks.{k}.last.weight" in frozen
        assert f"sound_net.networks.{k}.conv_stem.weight" not in frozen


def test_maps_that_cannot_be_shared_are_told():
    with pytest.raises(ModelError, match="3 maps cannot be shared by 2 networks"):
        QueryNet(**PLAIN, networks=2)
