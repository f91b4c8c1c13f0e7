"""SI-SDR and plain SDR on signals whose ratios are known by hand."""

import math

import pytest
import torch

from sep.metrics.sisdr import sdr, si_sdr, si_sdr_improvement

REFERENCE = torch.tensor([1.0, 1.0, 0.0, 0.0])
NOISE = torch.tensor([0.0, 0.0, 0.1, -0.1])  # orthogonal, energy 0.02 against 2


def test_si_sdr_of_a_known_projection():
    # e = 3 s + n: a = 3, |3 s|^2 / |n|^2 = 18 / 0.02 = 900
    assert float(si_sdr(3 * REFERENCE + NOISE, REFERENCE)) == pytest.approx(
        10 * math.log10(900), abs=1e-5
    )


def test_plain_sdr_counts_a_wrong_level_as_error():
    # |s|^2 / |s - 3 s - n|^2 = 2 / (8 + 0.02)
    assert float(sdr(3 * REFERENCE + NOISE, REFERENCE)) == pytest.approx(
        10 * math.log10(2 / 8.02), abs=1e-5
    )


def test_si_sdr_does_not_depend_on_scale():
    generator = torch.Generator().manual_seed(0)
    reference, estimate = torch.randn(2, 3, 500, generator=generator)
    torch.testing.assert_close(si_sdr(estimate, reference), si_sdr(0.01 * estimate, reference))


def test_improvement_of_the_mixture_is_zero_and_of_halved_noise_is_six_decibels():
    mixture = REFERENCE + NOISE
    assert float(si_sdr_improvement(mixture, REFERENCE, mixture)) == 0
    better = si_sdr_improvement(REFERENCE + NOISE / 2, REFERENCE, mixture)
    assert float(better) == pytest.approx(20 * math.log10(2), abs=1e-5)


def test_silence_gives_nan_only_in_its_own_row():
    estimate = torch.stack([REFERENCE, torch.zeros(4), REFERENCE + NOISE])
    reference = torch.stack([torch.zeros(4), REFERENCE, REFERENCE])
    for ratio in (si_sdr, sdr):
        assert torch.isnan(ratio(estimate, reference)).tolist() == [True, True, False]


def test_an_exact_estimate_is_infinitely_good():
    assert float(sdr(REFERENCE, REFERENCE)) == math.inf
    assert float(si_sdr(2 * REFERENCE, REFERENCE)) == math.inf


def test_one_reference_serves_several_estimates():
    estimates = torch.stack([REFERENCE + NOISE, REFERENCE - NOISE]).expand(5, 2, 4)
    assert si_sdr(estimates, REFERENCE).shape == (5, 2)
