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
    reference = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    estimate = torch.tensor([[2.0, 2.0], [1.0, 0.1]])  # 0 dB and 20 dB, whatever the scale
    share = 10**-3  # of the signal, added to the noise: the limit of 30 dB
    by_hand = -(math.log10(4 / (4 + 4 * share)) + math.log10(1 / (0.01 + share))) / 2
    assert si_sdr_loss(estimate, reference).item() == pytest.approx(by_hand, rel=1e-3)
    assert si_sdr_loss(reference, reference).item() == pytest.approx(-3, rel=1e-3)


def test_si_sdr_loss_follows_the_metric():
    generator = torch.Generator().manual_seed(0)
    reference, noise = torch.randn(2, 4, 16_000, generator=generator).unbind(0)
    estimate = 3 * reference + noise
    loss = si_sdr_loss(estimate, reference, limit_db=90)
    assert -10 * loss.item() == pytest.approx(si_sdr(estimate, reference).mean().item(), abs=1e-3)


def test_si_sdr_loss_of_silence_is_finite_and_teaches_nothing():
    reference = torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    estimate = torch.tensor([[0.3, 0.1], [0.0, 0.0]], requires_grad=True)
    si_sdr_loss(estimate, reference).backward()
    assert estimate.grad.isfinite().all() and estimate.grad[0].abs().max() == 0


def test_separation_loss_adds_the_waveform_term():
    generator = torch.Generator().manual_seed(0)
    grid = Spectrogram()
    sources = torch.randn(1, 2, 16_384, generator=generator)
    spectra = grid.stft(sources)
    spectrum = spectra.sum(1)
    batch = Batch(
        sources,
        spectrum,
        grid.warp(spectra.abs()),
        grid.warp(spectrum.abs()),
        torch.zeros(1, 2, 4),
        torch.zeros(1, 2, dtype=torch.long),
    )
    logits = torch.zeros_like(batch.warped).requires_grad_()
    plain, _ = separation_loss(logits, batch, grid)
    both, values = separation_loss(logits, batch, grid, si_sdr=0.5)
    # half of everything is the mixture again, as good as it is
    ratio = si_sdr(sources.sum(1, keepdim=True), sources).mean().item()
    assert values["si_sdr_loss"].item() == pytest.approx(-ratio / 10, abs=5e-3)
    assert both.item() == pytest.approx(plain.item() + 0.5 * values["si_sdr_loss"].item())
    both.backward()
    assert logits.grad.isfinite().all()
