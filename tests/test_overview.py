"""Spectrograms of whole recordings, read block by block."""

import numpy as np
import soundfile
import torch

from sep import audio, overview
from sep.spectrogram import Spectrogram


def test_levels_of_a_short_file_are_its_spectrogram(make_wav):
    path, grid = make_wav(seconds=3.0, rate=44_100, channels=2), Spectrogram()
    found, column_s = overview.levels(path, grid)
    wave = audio.resample(*audio.read(path), 16_000)
    wave = torch.nn.functional.pad(wave, (512, 512))
    spectra = torch.stft(wave, 1024, 256, window=grid.window, center=False, return_complex=True)
    wanted = grid.warp(spectra.abs().square().mean(0).sqrt())
    assert column_s == 256 / 16_000
    torch.testing.assert_close(found[:, : wanted.shape[-1]], wanted, rtol=1e-3, atol=1e-3)


def test_columns_of_a_long_file_are_bounded_and_keep_the_level(tmp_path):
    time = np.arange(60 * 16_000) / 16_000
    tone = np.sin(2 * np.pi * 1000 * time) * np.where(time < 30, 0.1, 0.01)
    soundfile.write(tmp_path / "x.wav", tone, 16_000, "FLOAT")
    grid = Spectrogram()
    found, column_s = overview.levels(tmp_path / "x.wav", grid, columns=100)
    assert 90 < found.shape[-1] <= 100
    assert abs(found.shape[-1] * column_s - 60) < 2 * column_s
    # on its bin a tone of amplitude a has the magnitude a / 2 times the sum of the window, 512;
    # the nearest row lies a little beside it
    for column, amplitude in ((10, 0.1), (-10, 0.01)):
        assert 0.9 < float(found[:, column].max()) / (256 * amplitude) < 1.01


def test_the_mask_is_the_share_of_the_target():
    mixture = torch.tensor([[1.0, 2.0, 1e-6, 0.0]])
    target = torch.tensor([[0.25, 3.0, 1e-6, 0.0]])
    assert overview.kept(mixture, target).tolist() == [[0.25, 1.0, 0.0, 0.0]]
