"""Frechet distance: Gaussians whose distance is known, and sets that are too small."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from sep.metrics.frechet import distance, frechet_distance


def with_moments(mean, variances):
    """Points on the axes, whose sample mean and diagonal sample covariance are as given."""
    dim = len(mean)
    # 2 D points +-c e_i: the variance of axis i is 2 c^2 / (2 D - 1)
    scale = np.sqrt(np.array(variances) * (2 * dim - 1) / 2)
    return np.concatenate([np.diag(scale), -np.diag(scale)]) + np.array(mean)


def test_two_gaussians_by_hand():
    # means 3 apart on one axis: 9; variances 4 and 1 against 1 and 9: (2 - 1)^2 + (1 - 3)^2 = 5
    first, second = with_moments([0, 0], [4, 1]), with_moments([3, 0], [1, 9])
    assert frechet_distance(first, second) == pytest.approx(14)
    assert frechet_distance(second, first) == pytest.approx(14)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_correlated_gaussians_agree_with_the_matrix_square_root():
    draw = np.random.default_rng(0)
    first = draw.normal(size=(200, 6)) @ draw.normal(size=(6, 6))
    second = draw.normal(size=(90, 6)) @ draw.normal(size=(6, 6)) + 0.3
    covariances = [np.cov(x.T) for x in (first, second)]
    root = np.real(np.trace(sqrtm(covariances[0] @ covariances[1])))
    expected = np.square(first.mean(0) - second.mean(0)).sum()
    expected += sum(np.trace(c) for c in covariances) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_sets_without_full_covariance_stay_real_and_not_negative():
    draw = np.random.default_rng(1)
    flat = draw.normal(size=(40, 3)) @ draw.normal(size=(3, 30)) * 1e-3  # rank 3 of 30
    assert frechet_distance(flat, flat + 0.1) == pytest.approx(0.3, rel=1e-6)
    few = draw.normal(size=(4, 30))
    assert 0 <= frechet_distance(few, few[::-1].copy()) < 1e-12


def test_too_few_clips_have_no_distance_and_silence_is_left_out():
    draw = torch.Generator().manual_seed(2)
    estimates, references = torch.randn(2, 9, 4, generator=draw)
    estimates[3] = math.nan
    found = distance(estimates, references)
    kept = torch.cat([estimates[:3], estimates[4:]])
    assert found["n"] == 8
    assert found["mean"] == pytest.approx(frechet_distance(kept.numpy(), references.numpy()))
    assert math.isnan(distance(estimates[:5], references[:5])["mean"])  # four of four dimensions
    assert math.isnan(frechet_distance(np.ones((1, 4)), np.ones((9, 4))))
