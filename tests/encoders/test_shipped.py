"""The encoder that ships: whole, small, and as good as its card says on what it was made for."""

import json
import re

import pytest
import torch
from toys import tone

import encoders
from encoders.registry import SHIPPED

FOLDER = SHIPPED / "small"


@pytest.fixture(scope="module")
def shipped():
    return encoders.get("small")


def test_small_comes_with_weights_unless_a_geometry_is_asked_for(shipped):
    config = json.loads((FOLDER / "config.json").read_text())
    assert shipped.fingerprint == config["fingerprint"] == encoders.load(FOLDER).fingerprint
    assert encoders.get("small", weights="shipped").fingerprint == config["fingerprint"]
    assert encoders.get("small", dim=32, pretrained=False).dim == 32
    with pytest.raises(encoders.EncoderError, match="no weights of encoder 'clap' come with"):
        encoders.get("clap", weights="shipped")


def test_the_weights_are_small_and_name_no_place_of_their_making():
    files = {path.name: path for path in FOLDER.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "README.md", "ATTRIBUTION.tsv"}
    assert files["model.safetensors"].stat().st_size < 12e6
    for name in ("config.json", "README.md"):
        text = files[name].read_text()
        assert not re.search(r"(?<![\w.)`])/\w+/\w", text)  # an absolute path


def test_texts_of_one_thing_are_nearer_than_those_of_another(shipped):
    names = ["a dog barking", "the bark of a hound", "rain", "heavy rainfall on leaves"]
    near = shipped.embed_text(names)
    near = near @ near.T
    assert near[0, 1] > max(near[0, 2], near[0, 3]) and near[2, 3] > max(near[2, 0], near[2, 1])


def test_it_hears_noise_as_rain_or_sea_and_a_mixture_as_less_than_either(shipped):
    generator = torch.Generator().manual_seed(0)
    hiss = 0.1 * torch.randn(1, 64_000, generator=generator)
    organ = tone(220, 4.0, harmonics=6)[None, :64_000]
    names = ["rain", "sea waves", "a dog barking", "someone laughing", "a rooster crowing"]
    cosine = shipped.embed_audio(hiss, 16_000) @ shipped.embed_text(names).T
    assert int(cosine.argmax()) < 2
    query = shipped.embed_audio(hiss, 16_000)[0]
    levels = [hiss + gain * organ for gain in (0.0, 0.1, 0.3, 1.0)]
    falling = [float(shipped.embed_audio(wave, 16_000)[0] @ query) for wave in levels]
    assert falling == sorted(falling, reverse=True)


def test_the_card_says_what_it_is():
    card = (FOLDER / "README.md").read_text()
    for heading in ("## Data", "## Scores", "## Intended use", "## Known failures"):
        assert heading in card
