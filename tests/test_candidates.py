"""Candidates: readings of logits, and their weights."""

import math

import pytest
import torch

from sep.candidates import TEMPERATURE, VARIANTS, Variant, alone, blend, variants, weights
from sep.commands.values import MOST


def test_variants_start_from_the_sharpness_given():
    assert variants(1) == [Variant(1.0, 0.0)]
    assert variants(3, 2.0) == [(2.0, 0.0), (2.5, 0.0), (1.6, 0.5)]
    assert len(set(VARIANTS)) == len(VARIANTS) == MOST


def test_a_variant_scales_the_logits_and_moves_them():
    mask = Variant(2.0, -0.5).mask(torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(mask, torch.sigmoid(torch.tensor([0.0, 1.5])))


def test_weights_are_in_proportion_to_the_exponential_of_the_similarity():
    # three temperatures apart: e^3 : 1
    found = weights(torch.tensor([0.2 + 3 * TEMPERATURE, 0.2]))
    assert found.tolist() == pytest.approx([math.e**3 / (math.e**3 + 1), 1 / (math.e**3 + 1)])
    assert weights(torch.tensor([0.3, math.nan])).tolist() == pytest.approx([1.0, 0.0], abs=1e-9)
    assert weights(torch.full((2,), math.nan)).tolist() == [0.5, 0.5]


def test_several_sounds_are_blended_by_their_mean_similarity():
    tried = variants(2)
    same = blend(tried, [[0.1, 0.5], [0.4, 0.2]])
    assert [weight for weight, _ in same] == pytest.approx([0.5, 0.5])
    assert [variant for _, variant in same] == tried
    first, second = (weight for weight, _ in blend(tried, [[0.5, math.nan], [0.4, 0.2]]))
    assert first < second  # silence counts as -1
    assert alone(tried[1]) == [(1.0, tried[1])]
