"""Calibration of masks and of confidence, against numbers worked out by hand."""

import math

import pytest
import torch

from sep.metrics.reliability import Reliability, brier, expected_error, spearman


def test_expected_error_of_a_hand_computed_case():
    # two ranges of P: [0, .5) holds P .2 (false, weight 1) and .4 (true, weight 3): mean P .35,
    # share of true bins .75, gap .4 at weight 4; [.5, 1] holds P .9 (true, weight 6): gap .1
    mask, truth = torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0.0, 1.0, 1.0])
    weight = torch.tensor([1.0, 3.0, 6.0])
    value = expected_error(mask, truth, weight, bins=2)
    assert value.item() == pytest.approx(0.4 * 0.4 + 0.6 * 0.1)


def test_a_mask_that_is_right_as_often_as_it_says_has_no_error():
    mask = torch.full((4,), 0.75)
    truth = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert expected_error(mask, truth, torch.ones(4)).item() == pytest.approx(0, abs=1e-7)
    assert expected_error(torch.ones(4), truth, torch.ones(4)).item() == pytest.approx(0.25)


def test_brier_score_is_the_weighted_squared_error():
    value = brier(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0]))
    assert value.item() == pytest.approx((3 * 0.25 + 1) / 4)


def test_rank_correlation_with_and_without_ties():
    first = torch.tensor([1.0, 2.0, 3.0, 4.0])
    # 1 - 6 sum d^2 / (n (n^2 - 1)), with d = (0, 1, -1, 0): 1 - 12 / 60
    assert spearman(first, torch.tensor([10.0, 300.0, 20.0, 4000.0])) == pytest.approx(0.8)
    # ranks (1.5, 1.5, 3) and (1, 2, 3): covariance 1.5, variances 1.5 and 2
    tied = spearman(torch.tensor([5.0, 5.0, 7.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert tied == pytest.approx(1.5 / math.sqrt(1.5 * 2))
    assert math.isnan(spearman(torch.ones(3), first[:3]))


def test_clips_are_collected_one_by_one():
    reliability = Reliability()
    magnitude = torch.tensor([[2.0, 1.0]])  # energies 4 and 1
    target = torch.tensor([[2.0, 0.1]])  # dominates the first bin alone
    reliability.add(torch.tensor([[0.9, 0.5]]), magnitude, target, quality=10.0)
    reliability.add(torch.tensor([[0.5, 0.5]]), magnitude, target, quality=1.0)
    reliability.add(torch.tensor([[0.0, 0.0]]), magnitude, target, quality=float("nan"))
    summary = reliability.summary()
    assert summary["confidence"] == pytest.approx((0.8 * 4 / 5 + 0) / 2)
    assert summary["brier"] == pytest.approx(((4 * 0.01 + 0.25) / 5 + 0.25) / 2)
    # range .9: 4 * (.9 - 1) / 5 of the first clip; range .5: .5 / 5 and (4 * (.5 - 1) + .5) / 5
    assert summary["ece"] == pytest.approx((0.08 + abs(0.1 - 0.3)) / 2)
    assert summary["spearman"] == pytest.approx(1)
