"""Overlaps of masks, by hand."""

import pytest
import torch

from sep.metrics.overlap import hard_iou, soft_dice, soft_iou

MASK = torch.tensor([[[0.6, 0.4]]])
IDEAL = torch.tensor([[[1.0, 0.2]]])
WEIGHT = torch.tensor([[[3.0, 1.0]]])


def test_values_by_hand():
    # shared 3 x .6 + .2 = 2, covered 3 + .4 = 3.4
    assert soft_iou(MASK, IDEAL, WEIGHT).item() == pytest.approx(2 / 3.4)
    # 2 (1.8 + .08) over 3 (.36 + 1) + (.16 + .04)
    assert soft_dice(MASK, IDEAL, WEIGHT).item() == pytest.approx(3.76 / 4.28)
    # the first bin is above 1/2 in both, the second in neither
    assert hard_iou(MASK, IDEAL, WEIGHT).item() == 1
    # now the second is in the mask alone
    assert hard_iou(1 - MASK + 0.3, IDEAL, WEIGHT).item() == pytest.approx(3 / 4)


@pytest.mark.parametrize("overlap", [soft_iou, soft_dice, hard_iou])
def test_the_ideal_mask_is_best(overlap):
    generator = torch.Generator().manual_seed(0)
    ideal, other, weight = torch.rand(3, 2, 8, 8, generator=generator)
    torch.testing.assert_close(overlap(ideal, ideal, weight), torch.ones(2))
    assert (overlap(other, ideal, weight) < 0.9).all()


def test_dice_pulls_a_soft_mask_to_its_ideal_and_no_further():
    mask = torch.full((1, 1), 0.5, requires_grad=True)
    soft_dice(mask, torch.full((1, 1), 0.5), torch.ones(1, 1)).backward()
    assert mask.grad.item() == pytest.approx(0, abs=1e-6)


def test_nothing_in_both_is_full_overlap():
    nothing = torch.zeros(1, 4, 4)
    assert hard_iou(nothing, nothing, torch.ones(1, 4, 4)).item() == 1
