"""Queries of every kind and their mixtures, and the ones that are refused."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from sep.errors import AudioFileError, QueryError
from sep.query import away, embed_query, fuse, loud_mono, subtract


@pytest.fixture(scope="module")
def encoder(separator):
    return separator.encoder


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_fuse_and_subtract_by_hand():
    x, y = torch.eye(2)
    torch.testing.assert_close(fuse(torch.stack([x, y])), torch.tensor([0.5, 0.5]).sqrt())
    torch.testing.assert_close(
        fuse(torch.stack([x, y]), torch.tensor([3.0, 4.0])), torch.tensor([0.6, 0.8])
    )
    # (1, 0) - 0.75 (0, 1) = (1, -0.75), of length 1.25
    torch.testing.assert_close(subtract(x, y, 0.75), torch.tensor([0.8, -0.6]))
    torch.testing.assert_close(subtract(x, y, 0.0), x)
    # 1.5 (1, 0) - 0.5 (0, 1), of which subtract by 1 / 3 is the direction
    longer = away(x, y, 0.5)
    torch.testing.assert_close(longer, torch.tensor([1.5, -0.5]))
    torch.testing.assert_close(longer / 2.5**0.5, subtract(x, y, 1 / 3))
    batch = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fuse(batch)[2], fuse(batch[2]))


def test_every_kind_and_every_mixture_is_a_unit_vector(encoder, make_wav, picture):
    sound = make_wav()
    for queries in (
        {"text": "a dog barking"},
        {"text": ["a dog", "a bell"]},
        {"audio": sound},
        {"audio": str(sound)},
        {"audio": (np.random.default_rng(0).standard_normal(4410), 44_100)},
        {"audio": (torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)), 8000)},
        {"image": picture},
        {"text": "a dog", "audio": sound, "image": picture, "negative": ["rain", str(sound)]},
    ):
        query = embed_query(encoder, **queries)
        assert query.shape == (encoder.dim,) and not query.requires_grad
        assert query.norm() == pytest.approx(1, abs=1e-5)


def test_a_text_is_the_mean_of_its_wordings(encoder):
    wordings = encoder.embed_text(["a dog", "the sound of a dog"])
    torch.testing.assert_close(embed_query(encoder, text="  a   dog. "), fuse(wordings))


def test_weights_move_the_query_between_its_kinds(encoder, make_wav):
    sound = make_wav()
    text, audio = embed_query(encoder, text="a bell"), embed_query(encoder, audio=sound)
    both = {"text": "a bell", "audio": sound}
    torch.testing.assert_close(embed_query(encoder, **both, weights={"audio": 0}), text)
    torch.testing.assert_close(embed_query(encoder, **both, weights={"text": 0}), audio)
    torch.testing.assert_close(embed_query(encoder, **both), fuse(torch.stack([text, audio])))


def test_a_negative_query_turns_the_query_away(encoder):
    query, rain = embed_query(encoder, text="a dog"), embed_query(encoder, text="rain")
    turned = embed_query(encoder, text="a dog", negative="rain")
    torch.testing.assert_close(turned, subtract(query, rain, 0.5))
    further = embed_query(encoder, text="a dog", negative="rain", weights={"negative": 0.9})
    assert further @ rain < turned @ rain < query @ rain


def test_channels_that_cancel_do_not_make_a_query_silent(encoder):
    noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    opposed = torch.stack([noise, -noise])
    assert torch.equal(loud_mono(opposed), noise)
    embed_query(encoder, audio=(opposed, 16_000))


def test_unusable_queries_are_refused_with_the_fix(encoder, make_wav, tmp_path):
    not_image = tmp_path / "x.png"
    not_image.write_text("hello")
    faults = [
        ({}, "give a text, audio or image"),
        ({"text": "  "}, "text query is empty"),
        ({"audio": make_wav(frames=100)}, r"mix.wav: lasts 6\.2 ms.*at least 50 ms"),
        ({"audio": (torch.zeros(16_000), 16_000)}, "silent"),
        ({"audio": (torch.full((16_000,), torch.nan), 16_000)}, "NaN"),
        ({"audio": torch.zeros(16_000)}, "a path or a pair"),
        ({"audio": (torch.ones(100), 0)}, "rate above 0"),
        ({"image": not_image}, r"x\.png"),
        ({"image": tmp_path / "missing.png"}, r"missing\.png"),
        ({"text": "a", "negative": "missing.png"}, r"missing\.png"),
        ({"text": "a", "weights": {"smell": 1}}, "weight 'smell' is unknown"),
        ({"text": "a", "weights": {"text": -1}}, "must be 0 or more"),
        ({"text": "a", "weights": {"text": 0}}, "weights of all given queries are 0"),
        ({"text": "a", "negative": "a", "weights": {"negative": 1}}, "cancels the query"),
    ]
    for queries, reason in faults:
        with pytest.raises(QueryError, match=reason) as caught:
            embed_query(encoder, **queries)
        assert "\n" not in str(caught.value)
    with pytest.raises(AudioFileError, match="no such file"):
        embed_query(encoder, text="a", negative="missing.wav")


def test_wordings_of_ones_own_are_averaged(encoder):
    wordings = encoder.embed_text(["a photo of a dog", "many a dog"])
    found = embed_query(encoder, text="a dog", templates=["a photo of {}", "many {}"])
    torch.testing.assert_close(found, fuse(wordings))
    with pytest.raises(QueryError, match="template 'a photo' has no"):
        embed_query(encoder, text="a dog", templates=["a photo"])


def test_the_weights_of_omnisep_are_its_mixture_and_its_negative(encoder, make_wav, picture):
    one = {"text": "a bell", "audio": make_wav(), "image": picture}
    text, audio, image = (embed_query(encoder, **{k: v}) for k, v in one.items())
    mixed = torch.nn.functional.normalize(2 * image + 2 * text + audio, dim=0)
    weights = {"image": 2, "text": 2, "audio": 1, "negative": 1 / 3}
    torch.testing.assert_close(embed_query(encoder, **one, weights=weights), mixed)
    away = 1.5 * mixed - 0.5 * embed_query(encoder, text="wind")
    found = embed_query(encoder, **one, negative="wind", weights=weights)
    torch.testing.assert_close(found, torch.nn.functional.normalize(away, dim=0))


def test_an_example_that_is_too_long_for_one_sound_is_refused_unread(encoder, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(100 * 301), 100)
    with pytest.raises(QueryError, match=r"x\.wav: lasts 301 s, .*--from and --to"):
        embed_query(encoder, audio=tmp_path / "x.wav")
