"""Mask targets and the weighted loss by hand."""

import math

import pytest
import torch

from sep.metrics.sisdr import si_sdr
from sep.spectrogram import Spectrogram
from sep.train.batch import Batch
from sep.train.losses import (
    bin_weight,
    separation_loss,
    si_sdr_loss,
    target_masks,
    weighted_bce,
)


def test_ratio_and_binary_targets_by_hand():
    sources = torch.tensor([3.0, 1.0])[None, :, None, None]
    mixture = torch.tensor([[[4.0]]])
    assert target_masks(sources, mixture, "ratio").flatten().tolist() == [0.75, 0.25]
    assert target_masks(sources, mixture, "binary").flatten().tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="soft"):
        target_masks(sources, mixture, "soft")


def test_silent_bins_have_a_finite_ratio():
    assert target_masks(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1), "ratio").abs().max() == 0


def test_weight_is_clamped_log1p():
    weight = bin_weight(torch.tensor([0.0, math.e - 1, 1e9]))
    torch.testing.assert_close(weight, torch.tensor([1e-3, 1.0, 10.0]))


def test_weighted_bce_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 1, 2)  # masks 0.5 and 0.75
    target = torch.tensor([1.0, 1.0]).reshape(1, 1, 1, 2)
    weight = torch.tensor([[[3.0, 1.0]]])
    loss, values = weighted_bce(logits, target, weight)
    assert loss.item() == pytest.approx((3 * math.log(2) + math.log(4 / 3)) / 4)
    assert values["mask_mean"].item() == pytest.approx(0.625)


def test_si_sdr_loss_by_hand():
    # A mixture of 1 and i in two bins; the target is the 1 in both. Mask 1: e = s + i, 0 dB.
    mixture = torch.tensor([[[1 + 1j], [1 + 1j]]])
    target = torch.ones_like(mixture)[:, None]
    share = 10**-3  # of the signal, added to the noise: the limit of 30 dB
    loss, values = si_sdr_loss(torch.ones(1, 1, 2, 1), mixture, target)
    assert loss.item() == pytest.approx(-math.log10(1 / (1 + share)), rel=1e-4)
    assert values["si_sdr_loss"] == loss
    # Mask 1 and 0: <e, s> = 1, |s|^2 = 2, |e|^2 = 2; signal 1 / 2, noise 3 / 2.
    mask = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1)
    loss, _ = si_sdr_loss(mask, mixture, target)
    assert loss.item() == pytest.approx(-math.log10(0.5 / (1.5 + 0.5 * share)), rel=1e-4)
    loss, _ = si_sdr_loss(torch.ones(1, 1, 2, 1), target[:, 0], target)
    assert loss.item() == pytest.approx(-3, rel=1e-3)


@pytest.fixture
def batch():
    """Two sources: one in noise below 2 kHz, one above."""
    generator = torch.Generator().manual_seed(0)
    grid = Spectrogram()
    spectrum = torch.fft.rfft(torch.randn(1, 2, 16_384, generator=generator))
    spectrum[:, 0, 2048:] *= 0.1
    spectrum[:, 1, :2048] *= 0.1
    sources = torch.fft.irfft(spectrum)
    spectra = grid.stft(sources)
    mixture = spectra.sum(1)
    warped = (grid.warp(spectra.abs()), grid.warp(mixture.abs()))
    none = torch.zeros(1, 2, 4), torch.zeros(1, 2, dtype=torch.long)
    silence = torch.zeros(1, 1), torch.zeros(1, 1, 1)
    return grid, Batch(sources, spectra, mixture, *warped, *none, *silence)


def test_si_sdr_loss_follows_that_of_the_waveforms(batch):
    grid, batch = batch
    mask = grid.unwarp(target_masks(batch.warped, batch.mixture, "ratio"))
    estimate = grid.istft(batch.spectrum[:, None] * mask, batch.sources.shape[-1])
    by_wave = si_sdr(estimate, batch.sources).mean().item()
    loss, _ = si_sdr_loss(mask, batch.spectrum, batch.spectra, limit_db=90)
    assert by_wave - 1 < -10 * loss.item() < by_wave + 0.1
    ones, _ = si_sdr_loss(torch.ones_like(mask), batch.spectrum, batch.spectra, limit_db=90)
    unprocessed = si_sdr(batch.sources.sum(1, keepdim=True), batch.sources).mean().item()
    assert -10 * ones.item() == pytest.approx(unprocessed, abs=0.1)


def test_si_sdr_loss_of_silence_is_finite_and_teaches_nothing(batch):
    _, batch = batch
    sources = batch.spectra.clone()
    sources[:, 0] = 0
    mask = torch.rand(sources.shape, generator=torch.Generator().manual_seed(0))
    mask[:, 1] = 0
    mask.requires_grad_()
    loss, _ = si_sdr_loss(mask, batch.spectrum, sources)
    loss.backward()
    assert mask.grad.isfinite().all() and mask.grad[:, 0].abs().max() == 0


def test_separation_loss_adds_the_second_term(batch):
    grid, batch = batch
    logits = torch.zeros_like(batch.warped).requires_grad_()
    plain, _ = separation_loss(logits, batch, grid)
    both, values = separation_loss(logits, batch, grid, si_sdr=0.5)
    assert both.item() == pytest.approx(plain.item() + 0.5 * values["si_sdr_loss"].item())
    both.backward()
    assert logits.grad.isfinite().all() and logits.grad.abs().max() > 0
