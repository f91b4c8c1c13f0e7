"""STFT round trip and the log-frequency warp."""

import math

import pytest
import torch

from sep.spectrogram import Spectrogram


@pytest.mark.parametrize("length", [1, 100, 512, 513, 16_000, 65_535])
def test_stft_round_trip_returns_the_waveform(length):
    wave = torch.randn(2, length, generator=torch.Generator().manual_seed(0))
    grid = Spectrogram()
    spectrum = grid.stft(wave)
    assert spectrum.shape[1] == 513
    torch.testing.assert_close(grid.istft(spectrum, length), wave, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_fft, hop", [(1024, 256), (100, 30)])
def test_masked_spectra_are_inverted_as_torch_does(n_fft, hop):
    generator, grid = torch.Generator().manual_seed(0), Spectrogram(n_fft=n_fft, hop=hop)
    spectrum = grid.stft(torch.randn(2, 5_000, generator=generator))
    spectrum = spectrum * torch.rand(spectrum.shape, generator=generator)
    expected = torch.istft(spectrum, n_fft, hop, window=grid.window, length=5_000)
    torch.testing.assert_close(grid.istft(spectrum, 5_000), expected, atol=1e-5, rtol=1e-5)


def test_training_segment_has_256_frames():
    assert Spectrogram().stft(torch.zeros(1, 65_535)).shape == (1, 513, 256)


def test_warp_reads_the_rows_of_the_published_formula():
    grid = Spectrogram()
    ramp = torch.arange(513.0)[:, None]  # value = row index, so the warp shows where it reads
    for row in (0, 100, 255):
        y = row / 255 * 2 - 1
        position = ((21 ** ((y + 1) / 2) - 11) / 10 + 1) / 2 * 512
        assert grid.warp(ramp)[row, 0].item() == pytest.approx(position, abs=1e-3)
    back = math.log(10 * (100 / 512 * 2 - 1) + 11) / math.log(21) * 255
    assert grid.unwarp(torch.arange(256.0)[:, None])[100, 0].item() == pytest.approx(back, abs=1e-3)


def test_unwarping_a_constant_mask_keeps_it():
    mask = torch.full((1, 256, 3), 0.25)
    torch.testing.assert_close(Spectrogram().unwarp(mask), torch.full((1, 513, 3), 0.25))
