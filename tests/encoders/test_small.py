"""The small encoder: unit vectors, gradients, windows, files, and what it refuses."""

import copy
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toys import RATE, tone

import encoders
from encoders import EncoderError, lite0, minilm, precision


def noise(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(rows, length, generator=torch.Generator().manual_seed(seed))


def test_every_modality_gives_unit_float32_vectors(small):
    picture = Image.new("RGB", (40, 20), "red")
    for vectors, rows in (
        (small.embed_text(["a dog barking", "wind"]), 2),
        (small.embed_audio(noise(3, 9_000), RATE), 3),
        (small.embed_image([picture, torch.rand(3, 30, 50)]), 2),
    ):
        assert vectors.shape == (rows, small.dim)
        assert vectors.dtype == torch.float32
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(rows), atol=1e-5)


def test_minilm_agrees_with_transformers(small):
    from transformers import BertModel, BertTokenizerFast

    folder = minilm.installed()
    texts = ["a dog barking", "the sound of rain on a tin roof", "x"]
    tokens = BertTokenizerFast.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = BertModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    kept = tokens.attention_mask[..., None].float()
    expected = (hidden * kept).sum(1) / kept.sum(1)
    assert torch.allclose(small.text_features(texts), expected, atol=1e-5)


def test_similar_texts_are_nearer_than_others(small):
    query, near, far = small.embed_text(["a hound howling", "dog", "a violin"])
    assert query @ near > query @ far


def test_an_image_of_nothing_trained_lies_near_the_name_of_its_imagenet_class(small):
    names = lite0.class_names()
    assert names[0] == "tench" and len(names) == 1000
    probabilities = torch.zeros(1, 1000)
    probabilities[0, names.index("acoustic guitar")] = 1
    vector = small.project_image(torch.zeros(1, lite0.FEATURES), probabilities)
    texts = small.embed_text(["acoustic guitar", "rain", "a dog"])
    assert (vector @ texts.T).argmax() == 0


def test_gradients_flow_through_embed_audio_and_not_into_the_weights(small):
    wave = noise(2, 20_000).requires_grad_()
    target = small.embed_audio(noise(1, 20_000, seed=1), RATE)
    (small.embed_audio(wave, RATE) @ target.T).sum().backward()
    assert torch.isfinite(wave.grad).all()
    assert (wave.grad.abs().sum(-1) > 0).all()
    assert all(p.grad is None for p in small.parameters())


def test_folded_norms_change_embeddings_by_rounding_alone(small):
    encoder = copy.deepcopy(small)
    for module in encoder.audio.modules():  # norms that do something
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=torch.Generator().manual_seed(0))
            module.bias.data += 0.1
    patch, known = encoder.audio.log_mel(noise(2, 16_384))[:, None], encoder.fingerprint
    folded = encoder.folded()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.audio.modules())
    assert folded.text_head is encoder.text_head and encoder.fingerprint == known
    wanted = encoder.audio.net(patch)
    torch.testing.assert_close(folded.audio.net(patch), wanted, atol=1e-4, rtol=1e-3)


def test_the_level_does_not_matter(small):
    wave = noise(1, 16_384)
    assert small.embed_audio(wave, RATE) @ small.embed_audio(0.01 * wave, RATE).T > 0.999


def test_a_short_clip_is_tiled_to_the_window(small):
    clip = noise(1, 5_000)
    tiled = clip.repeat(1, 4)[:, : small.window]
    assert torch.equal(small.embed_audio(clip, RATE), small.embed_audio(tiled, RATE))


def test_a_long_clip_is_the_level_weighted_mean_of_its_windows(small):
    first, second = noise(1, small.window), tone(440, 1.024)[None]
    vectors = [small.embed_audio(x, RATE) for x in (first, second)]
    levels = [x.square().mean().sqrt() for x in (first, second)]
    mean = sum(v * x for v, x in zip(vectors, levels, strict=True))
    expected = torch.nn.functional.normalize(mean, dim=-1)
    both = small.embed_audio(torch.cat([first, second], 1), RATE)
    assert torch.allclose(both, expected, atol=2e-2)


def test_other_rates_are_resampled(small):
    low = tone(440, 1.024)[None]
    time = torch.arange(round(1.024 * 44_100)) / 44_100
    high = 0.3 * torch.sin(2 * torch.pi * 440 * time)[None]
    assert small.embed_audio(low, RATE) @ small.embed_audio(high, 44_100).T > 0.98


def test_save_and_load_give_the_same_embeddings_and_fingerprint(small, tmp_path):
    small.save(tmp_path / "e", {"note": "test"})
    loaded = encoders.load(tmp_path / "e")
    wave = noise(2, 16_000)
    assert loaded.fingerprint == small.fingerprint
    assert torch.equal(loaded.embed_audio(wave, RATE), small.embed_audio(wave, RATE))
    assert torch.equal(loaded.embed_text(["rain"]), small.embed_text(["rain"]))
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    names = load_file(tmp_path / "e" / "model.safetensors")
    assert not any("layers.0.self_attn" in name for name in names)  # no frozen backbone inside


def test_the_fingerprint_follows_the_weights(small):
    before = small.fingerprint
    with torch.no_grad():
        small.text_mean[0] += 1
        changed = small.fingerprint
        small.text_mean[0] -= 1
    assert changed != before


@pytest.mark.parametrize(
    ("wave", "rate", "reason"),
    [
        (torch.full((1, 100), torch.nan), RATE, "NaN"),
        (torch.zeros(1, 100), RATE, "silent"),
        (torch.zeros(1, 0), RATE, "empty"),
        (torch.ones(1, 100), 0, "sample rate"),
        (torch.ones(100), RATE, "shape"),
        (torch.ones(1, 100, dtype=torch.int16), RATE, "float"),
    ],
)
def test_sounds_that_cannot_be_embedded_are_refused(small, wave, rate, reason):
    with pytest.raises(EncoderError, match=reason):
        small.embed_audio(wave, rate)


def test_files_that_are_no_image_are_refused_by_name(small, tmp_path):
    fake = tmp_path / "fake.png"
    fake.write_text("not a picture")
    with pytest.raises(EncoderError, match=r"fake\.png cannot be read as an image"):
        small.embed_image([fake])
    Image.new("1", (9_000, 9_000)).save(tmp_path / "large.png")
    with pytest.raises(EncoderError, match=r"large\.png has more than 50 million pixels"):
        small.embed_image([tmp_path / "large.png"])
    with pytest.raises(EncoderError, match=r"absent\.png: no such image file"):
        small.embed_image([tmp_path / "absent.png"])
    with pytest.raises(EncoderError, match="tensor"):
        small.embed_image([torch.rand(1, 8, 8)])


def test_empty_texts_are_refused(small):
    with pytest.raises(EncoderError, match="empty"):
        small.embed_text(["rain", "  "])
    with pytest.raises(EncoderError, match="list"):
        small.embed_text("rain")


def test_an_unknown_encoder_names_the_known_ones():
    with pytest.raises(EncoderError, match=r"unknown encoder 'tiny'; known: .*small"):
        encoders.get("tiny")


def test_folders_that_hold_no_encoder_are_refused(small, tmp_path):
    with pytest.raises(EncoderError, match=r"config\.json does not exist"):
        encoders.load(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EncoderError, match="JSON"):
        encoders.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"name": "small"}))
    with pytest.raises(EncoderError, match="damaged"):
        encoders.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"name": "small", **small.config}))
    with pytest.raises(EncoderError, match=r"model\.safetensors does not exist"):
        encoders.load(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(1)}, weights)
    with pytest.raises(EncoderError, match=r"has no tensor \S+; it holds another network"):
        encoders.load(tmp_path)
    save_file({**small.state_dict(), "x": torch.zeros(1)}, weights)
    with pytest.raises(EncoderError, match="tensor x belongs to another network"):
        encoders.load(tmp_path)
    weights.write_bytes(b"cut short")
    with pytest.raises(EncoderError, match="is damaged"):
        encoders.load(tmp_path)


def test_a_text_beyond_the_window_is_cut_with_a_notice(small):
    words = " ".join(["bark"] * 400)
    with pytest.warns(UserWarning, match="longer than 256 tokens; only the first 256 are used"):
        cut = small.embed_text([words])
    assert torch.allclose(cut, small.embed_text([" ".join(["bark"] * 254)]), atol=1e-5)


def test_lite0_agrees_with_timm():
    from timm.models import create_model

    torch.manual_seed(0)
    expected, drawn = create_model("tf_efficientnet_lite0").eval(), torch.rand(1)
    torch.manual_seed(0)
    net = lite0.Lite0().eval()
    assert torch.equal(torch.rand(1), drawn)
    state = net.state_dict()
    assert list(state) == list(expected.state_dict())
    assert all(torch.equal(state[key], value) for key, value in expected.state_dict().items())
    picture = torch.rand(1, 3, 97, 130, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps, theirs = net.forward_features(picture), expected.forward_features(picture)
        assert torch.equal(maps, theirs)
        assert torch.equal(
            net.forward_head(maps, pre_logits=True), expected.forward_head(maps, pre_logits=True)
        )
        assert torch.equal(net(picture), expected(picture))


def test_what_must_be_exact_is_heard_in_float32(small, monkeypatch):
    wave, cpu = noise(2, 64_000), torch.device("cpu")
    before = precision.half_precision(cpu)
    with torch.no_grad():
        with precision.exact():
            assert not precision.half_precision(cpu)
            found = small.embed_audio(wave, RATE)
        assert precision.half_precision(cpu) == before
        monkeypatch.setattr(precision, "half_precision", lambda device: False)
        torch.testing.assert_close(found, small.embed_audio(wave, RATE), atol=0, rtol=0)
