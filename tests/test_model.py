"""The separator network and its model folders."""

import json

import pytest
import torch

from encoders import imagebind
from sep import hub
from sep.card import card as card_of
from sep.errors import ModelError
from sep.model import QueryNet
from sep.unet import sums


def tiny(**options):
    torch.manual_seed(0)
    model = QueryNet(**{"width": 2, "levels": 4, "mask_channels": 3, "embed_dim": 8} | options)
    model.amp = False
    return model.eval()


def test_full_size_has_the_published_parameters():
    model = QueryNet(width=64, levels=7, mask_channels=32, embed_dim=1024)
    state = model.state_dict()
    assert len(state) == 79
    assert state["sound_net.unet_block.model.1.model.3.model.6.weight"].shape == (128, 512, 3, 3)
    assert state["frame_net.weight"].shape == (32, 1024)
    assert state["synth_net.scale"].shape == (32,)


def test_logit_is_the_scaled_inner_product_plus_bias():
    model = tiny()
    magnitude, query = torch.rand(1, 513, 16), torch.randn(1, 8)
    with torch.no_grad():
        model.synth_net.scale.copy_(torch.tensor([1.0, -2.0, 0.5]))
        model.synth_net.bias.fill_(0.3)
        maps = model.sound_net(torch.log(model.spectrogram.warp(magnitude + 1e-10))[:, None])
        weight = torch.sigmoid(query @ model.frame_net.weight.T + model.frame_net.bias)[0]
        expected = (
            weight[0] * maps[0, 0] - 2 * weight[1] * maps[0, 1] + 0.5 * weight[2] * maps[0, 2]
        )
        logits = model.logits(magnitude, query)[0]
    torch.testing.assert_close(logits, expected + 0.3, atol=1e-5, rtol=1e-4)


def test_one_shared_query_gives_the_same_mask_as_one_query_a_mixture():
    model = tiny()
    magnitude, query = torch.rand(2, 513, 21), torch.randn(8)
    with torch.no_grad():
        model.synth_net.scale.normal_()
        shared = model.mask(magnitude, query)
        repeated = model.mask(magnitude, query.expand(2, 8))
        several = model.mask(magnitude, query.expand(2, 3, 8))
    assert shared.shape == (2, 513, 21)
    torch.testing.assert_close(shared, repeated, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(several[:, 2], repeated, atol=1e-5, rtol=1e-4)


def test_bfloat16_inside_stays_close_to_float32():
    model = tiny(width=8)
    magnitude, query = torch.rand(1, 513, 32), torch.randn(1, 8)
    with torch.no_grad():
        exact = model.mask(magnitude, query)
        model.amp = True
        assert (model.mask(magnitude, query) - exact).abs().max() < 0.05


def test_model_folder_round_trip_gives_identical_output(tmp_path):
    model = tiny()
    hub.save_pretrained(model, tmp_path / "model", provenance={"step": 3})
    hub.save_pretrained(model, tmp_path / "model", provenance={"step": 4})
    loaded = hub.from_pretrained(tmp_path / "model")
    loaded.amp = False
    wave, query = torch.randn(1, 4000), torch.randn(1, 8)
    assert torch.equal(loaded.separate(wave, query), model.separate(wave, query))
    assert hub.read_config(tmp_path / "model")["provenance"] == {"step": 4}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def change(folder, **entries) -> None:
    config = hub.read_config(folder)
    (folder / "config.json").write_text(json.dumps(config | entries))


def test_the_card_tells_the_hub_and_people_what_is_known(tmp_path, model_dir):
    from huggingface_hub import ModelCard

    facts = {"stage": "rl", "step": 3, "labels": ["dog", "rain"]}
    hub.save_pretrained(tiny(), tmp_path / "model", model_dir / "encoder", facts)
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.pipeline_tag == "audio-to-audio" and card.data.library_name == "sep"
    assert card.data.license == "other" and "audio-source-separation" in card.data.tags
    fingerprint = hub.read_config(tmp_path / "model")["encoder"]["fingerprint"]
    for words in ("width 2, 4 levels", fingerprint, "2 classes: dog, rain.", '"stage": "rl"'):
        assert words in card.text
    assert "CC BY-NC-SA" in card_of({"model": tiny().config}, 1, imagebind.LICENCE)
    assert "license: cc-by-nc-sa-4.0" in card_of({"model": tiny().config}, 1, imagebind.LICENCE)


def test_a_card_of_the_users_own_is_kept_and_one_of_ours_renewed(tmp_path):
    folder = tmp_path / "model"
    for step in (3, 4):
        hub.save_pretrained(tiny(), folder, provenance={"step": step})
        assert f'"step": {step}' in (folder / "README.md").read_text()
    (folder / "README.md").write_bytes(b"my own words \xff")
    hub.save_pretrained(tiny(), folder, provenance={"step": 5})
    assert (folder / "README.md").read_bytes() == b"my own words \xff"
    (folder / "README.md").unlink()
    assert hub.from_pretrained(folder).config == tiny().config


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no model here"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text("{}"), "not the configuration"),
        (lambda f: change(f, model=[]), "not the configuration"),
        (lambda f: change(f, provenance=["x"]), "'provenance' is no mapping"),
        (lambda f: change(f, encoder=["x"]), "'encoder' is no mapping"),
        (lambda f: change(f, model=tiny().config | {"levels": 0}), "do not fit"),
        (lambda f: change(f, model=tiny().config | {"mask_channels": 1.5}), "do not fit"),
        (lambda f: (f / "model.safetensors").unlink(), "missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"nonsense"), "damaged"),
    ],
)
def test_a_spoiled_model_folder_is_named_in_one_line(tmp_path, spoil, message):
    hub.save_pretrained(tiny(), tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(ModelError, match=message) as error:
        hub.from_pretrained(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_a_folder_of_an_unknown_kind_is_refused(tmp_path):
    hub.save_pretrained(tiny(), tmp_path / "model")
    config = hub.read_config(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"kind": "oracle"}))
    with pytest.raises(ModelError, match="network 'oracle' is unknown; use query"):
        hub.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("frames", [slice(None), slice(2, 5)])
def test_maps_are_summed_alike_however_they_lie(layout, frames):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 4, 6, generator=generator).contiguous(memory_format=layout)
    weight = torch.randn(2, 5, 3, generator=generator)
    wanted = torch.einsum("bqk,bkht->bqht", weight, maps[..., frames])
    torch.testing.assert_close(sums(maps[..., frames], weight), wanted)
