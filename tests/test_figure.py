"""The picture of a separation, in memory that does not grow."""

import numpy as np
import torch
from PIL import Image

from sep import hub
from sep.figure import COLUMNS, STRETCH, Picture, Pool, Prior
from sep.model import QueryNet
from sep.train.picture import draw_separation, plain

MODEL = QueryNet(width=2, levels=4, mask_channels=3, embed_dim=8)
GRID = MODEL.spectrogram
QUERIES = torch.eye(2, 8)


def test_the_picture_is_the_spectrogram_without_its_padding_whatever_the_blocks():
    wave = torch.randn(30_000, generator=torch.Generator().manual_seed(0))
    pool = Pool(GRID, len(wave))
    for block in wave.split(777):
        pool.push(block)
    frames = wave.unfold(0, 1024, 256) * GRID.window
    expected = GRID.warp(torch.fft.rfft(frames).abs().T)
    assert pool.picture().shape == expected.shape
    torch.testing.assert_close(pool.picture(), expected, atol=1e-3, rtol=1e-4)


def test_long_recordings_are_averaged_to_a_fixed_width():
    pool = Pool(GRID, 256 * 10_000)
    for k in range(10):
        pool.push(torch.full((256_000,), 0.1 * (k % 2)))
    picture = pool.picture()
    assert picture.shape == (256, COLUMNS)
    assert picture[:, 150].max() > 1 and picture[:, 60].max() == 0


def test_masks_and_targets_are_drawn_beside_the_mixture(tmp_path):
    picture = Picture(MODEL, ["a dog", "rain"], QUERIES)
    for ear in picture.ears(20_000):
        ear.push(torch.randn(20_000))
    picture.write(tmp_path / "deep" / "f.png", "title")
    image = Image.open(tmp_path / "deep" / "f.png")
    assert image.width > 4 * image.height
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["f.png"]


def with_prior():
    """The network with a heat map whose cells differ."""
    torch.manual_seed(0)
    options = {"heads": 2, "head_dim": 4, "token_dim": 8, "hidden": 3, "stride": 4}
    model = hub.extend(MODEL, "prior", **options).eval()
    model.amp = False
    return model


def test_the_prior_is_the_networks_heat_map_whatever_the_blocks():
    model, wave = with_prior(), torch.randn(30_000, generator=torch.Generator().manual_seed(0))
    prior = Prior(model, QUERIES, len(wave), columns=118)
    for block in wave.split(777):
        prior.push(block)
    with torch.no_grad():
        logits = model.heatmap(GRID.stft(wave[None]).abs(), QUERIES[None])[0]
    expected = torch.sigmoid(logits).repeat_interleave(4, -1)[..., :118]
    found = prior.picture()
    assert found.shape == (2, 64, 118) and found.std() > 1e-4
    torch.testing.assert_close(found, expected)


def test_the_prior_of_a_long_recording_fills_the_width_in_the_memory_of_a_stretch():
    prior = Prior(with_prior(), QUERIES, 3 * STRETCH * 256 + 5000, COLUMNS)
    for block in torch.randn(3 * STRETCH * 256 + 5000).split(100_000):
        prior.push(block)
        assert len(prior.waiting) <= STRETCH * 256 + 100_000
    found = prior.picture()
    assert found.shape[-1] == COLUMNS and 0 < found.min() and found.max() < 1


def test_the_prior_is_drawn_beside_the_mask_where_there_is_one(tmp_path):
    widths = []
    for model in (MODEL, with_prior()):
        picture = Picture(model, ["a dog", "rain"], QUERIES)
        for ear in picture.ears(20_000):
            ear.push(torch.randn(20_000))
        picture.write(tmp_path / "f.png")
        widths.append(Image.open(tmp_path / "f.png").width)
    assert widths[1] == widths[0] * 7 / 5  # mixture and two sounds of two or three panels


def test_names_are_shown_as_they_are_and_make_no_mask(tmp_path):
    picture = Picture(MODEL, ["gas mask", "$x_{$ \udcff"], QUERIES)
    for ear in picture.ears(20_000):
        ear.push(torch.randn(20_000, generator=torch.Generator().manual_seed(0)))
    picture.write(tmp_path / "f.png", "100$ for $\\frac{1$ \udce4")
    assert plain("$a$ \udcff") == r"\$a\$ ?"
    values = {"mixture": torch.ones(4, 4), "target: gas mask": torch.full((4, 4), 0.1)}
    draw_separation(tmp_path / "named.png", values, 16_000, 256)
    values = {"mixture": torch.ones(4, 4), "target: gas horn": torch.full((4, 4), 0.1)}
    draw_separation(tmp_path / "other.png", values, 16_000, 256)
    named, other = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("named", "other"))
    middle = (len(named) // 2, 3 * named.shape[1] // 4)
    assert (named[middle] == other[middle]).all()
