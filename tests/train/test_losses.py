"""Mask targets and the weighted loss by hand."""

import math

import pytest
import torch

from sep.train.losses import bin_weight, target_masks, weighted_bce


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
