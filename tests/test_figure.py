"""The picture of a separation, in memory that does not grow."""

import numpy as np
import torch
from PIL import Image

from sep.figure import COLUMNS, Picture, Pool
from sep.spectrogram import Spectrogram
from sep.train.picture import draw_separation, plain

GRID = Spectrogram()


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
    picture = Picture(GRID, ["a dog", "rain"])
    for ear in picture.ears(20_000):
        ear.push(torch.randn(20_000))
    picture.write(tmp_path / "deep" / "f.png", "title")
    image = Image.open(tmp_path / "deep" / "f.png")
    assert image.width > 4 * image.height
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["f.png"]


def test_names_are_shown_as_they_are_and_make_no_mask(tmp_path):
    picture = Picture(GRID, ["gas mask", "$x_{$ \udcff"])
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
