"""Summaries and paired tests on numbers that can be checked by hand."""

import math

import numpy as np
import pytest
from scipy.stats import sem

from sep.metrics.statistics import (
    bootstrap_interval,
    correlation,
    paired,
    standard_error,
    summarise,
)


def test_mean_error_and_median_by_hand():
    # deviations -3, -1, 1, 3: variance 20 / 3, error sqrt(20 / 3 / 4)
    result = summarise([1.0, 3.0, 5.0, 7.0])
    assert result["mean"] == 4 and result["median"] == 4 and result["n"] == 4
    assert result["sem"] == pytest.approx(math.sqrt(5 / 3))
    assert result["sem"] == pytest.approx(sem([1.0, 3.0, 5.0, 7.0]))
    assert 1 <= result["low"] < 4 < result["high"] <= 7


def test_undefined_scores_are_counted_and_left_out():
    result = summarise([2.0, float("nan"), None, float("inf"), 4.0])
    assert (result["n"], result["undefined"], result["mean"]) == (2, 3, 3)
    assert summarise([float("nan")])["n"] == 0


def test_interval_is_that_of_a_normal_mean_and_repeats_with_its_seed():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = bootstrap_interval(values, seed=1)
    assert low == pytest.approx(values.mean() - 1.96 * 0.1, abs=0.03)
    assert high == pytest.approx(values.mean() + 1.96 * 0.1, abs=0.03)
    assert (low, high) == bootstrap_interval(values, seed=1)
    assert (low, high) != bootstrap_interval(values, seed=2)


def test_interval_of_equal_values_is_that_value():
    assert bootstrap_interval(np.full(10, 1.5)) == (1.5, 1.5)


def test_error_of_recordings_that_are_mixed_twice_by_hand():
    # sums of deviations -3 - 1 and 1 + 3: sqrt(2 / 1 (16 + 16)) / 4
    values, recordings = np.array([1.0, 3.0, 5.0, 7.0]), ["dog", "dog", "cat", "cat"]
    assert standard_error(values, recordings) == pytest.approx(2)
    assert standard_error(values, range(4)) == pytest.approx(sem(values))
    assert math.isnan(standard_error(values, ["dog"] * 4))
    assert summarise([*values, None], groups=[*recordings, "rain"])["groups"] == 2


def test_mixing_a_recording_more_often_says_nothing_new():
    values = np.random.default_rng(0).normal(5, 2, size=100)
    often, recordings = np.repeat(values, 3), np.repeat(np.arange(100), 3).tolist()
    wanted, found = summarise(values), summarise(often, groups=recordings)
    for name in ("mean", "sem", "low", "high"):
        assert found[name] == pytest.approx(wanted[name])
    alone = summarise(often)
    assert alone["sem"] < 0.6 * found["sem"]
    assert paired(often, 0 * often, groups=recordings)["p"] == paired(values, 0 * values)["p"]


def test_pairing_sees_a_small_shift_that_the_spread_hides():
    first = np.random.default_rng(2).normal(0, 10, size=60)
    shift = np.random.default_rng(3).normal(0.3, 0.1, size=60)
    result = paired(first + shift, first)
    assert result["mean"] == pytest.approx(shift.mean())
    assert result["low"] > 0 and result["p"] < 1e-6 and result["wins"] > 0.9


def test_wilcoxon_by_hand():
    # six differences, all positive and distinct: exact two-sided p = 2 / 2^6
    second = np.zeros(6)
    assert paired(np.arange(1.0, 7.0), second)["p"] == pytest.approx(2 / 64)


def test_no_difference_gives_p_of_one_and_half_the_wins():
    result = paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (result["mean"], result["p"], result["wins"]) == (0, 1, 0.5)


def test_a_pair_with_an_undefined_side_is_left_out():
    result = paired([1.0, float("nan"), 3.0], [0.0, 1.0, float("nan")])
    assert (result["n"], result["undefined"], result["mean"]) == (1, 2, 1)


def test_nothing_defined_has_neither_mean_nor_error_and_a_p_of_one():
    result = paired([None, math.nan], [1.0, 2.0], groups=["dog", "cat"])
    assert (result["n"], result["groups"], result["undefined"], result["p"]) == (0, 0, 2, 1)
    assert math.isnan(result["mean"]) and math.isnan(result["sem"]) and math.isnan(result["low"])


def test_pairing_refuses_different_clips():
    with pytest.raises(ValueError, match="same clips"):
        paired([1.0], [1.0, 2.0])


def test_correlation_and_line_by_hand():
    # x deviations -1.5 -.5 .5 1.5, y -1 -1 1 1: Sxx 5, Sxy 4, Syy 4; slope .8, R = 4 / sqrt(20)
    found = correlation(np.array([0.0, 1, 2, 3]), np.array([1.0, 1, 3, 3]))
    assert found["slope"] == pytest.approx(0.8) and found["intercept"] == pytest.approx(0.8)
    assert found["r"] == pytest.approx(4 / math.sqrt(20))
    # residual sum .8, error of the slope sqrt(.8 / 2 / 5), Student's t of 2 degrees 4.3027
    assert found["slope_high"] - found["slope"] == pytest.approx(4.3027 * math.sqrt(0.08), rel=1e-4)
    # Fisher: atanh R +- 1.96 / sqrt(n - 3)
    assert found["r_high"] == pytest.approx(math.tanh(math.atanh(found["r"]) + 1.96), abs=1e-4)


def test_correlation_leaves_out_undefined_pairs_and_says_nothing_of_constants():
    x, y = np.array([0.0, 1, 2, 3, 4]), np.array([1.0, 1, 3, 3, np.nan])
    assert correlation(x, y) == correlation(x[:4], y[:4])
    assert math.isnan(correlation(x[:4], np.ones(4))["r"])
