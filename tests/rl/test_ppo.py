"""The clipped surrogate on cases with a known answer."""

import math

import pytest
import torch

from sep.rl.ppo import clipped_surrogate


def surrogate(ratios, advantage, weight=None, **options):
    """Loss for one mixture with one mask per advantage and one row of action entries."""
    log_prob = torch.tensor(ratios).log()[None, :, None]  # (1, G, 1, t)
    weight = torch.ones(1, 1, log_prob.shape[-1]) if weight is None else torch.tensor(weight)
    return clipped_surrogate(
        log_prob, torch.zeros_like(log_prob), torch.tensor([advantage]), weight, **options
    )


def test_by_hand_with_both_signs_and_both_sides_of_the_clip():
    # A = 1: min(1.5, 1.2) = 1.2 and min(0.5, 0.8) = 0.5; A = -1: -1.5 and min(-0.5, -0.8) = -0.8
    loss, values = surrogate([[1.5, 0.5], [1.5, 0.5]], [1.0, -1.0], clip=0.2)
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    assert values["clip_fraction"].item() == 1.0
    assert values["ratio_max"].item() == pytest.approx(1.5)
    assert values["ratio_min"].item() == pytest.approx(0.5)


def test_nothing_is_clipped_at_ratio_one():
    loss, values = surrogate([[1.0, 1.0]], [2.0])
    assert loss.item() == pytest.approx(-2.0)
    assert values["clip_fraction"].item() == 0
    assert values["approx_kl"].item() == pytest.approx(0, abs=1e-7)


def test_mean_ratio_is_one_ratio_a_mask():
    # the mean log-ratio of 2 and 1/2 is 0, so the mask's ratio is 1
    loss, values = surrogate([[2.0, 0.5]], [3.0], ratio="mean")
    assert loss.item() == pytest.approx(-3.0, abs=1e-6)
    assert values["ratio_max"].item() == pytest.approx(1.0)


def test_frame_ratios_are_one_a_column():
    # Rows of weight 3 and 1. Column 1: log-ratio (3 ln 2 - ln 2) / 4 = ln 2 / 2; column 2: 0.
    log_prob = torch.tensor([[[[math.log(2.0), 1.0], [-math.log(2.0), -3.0]]]])
    weight = torch.tensor([[[3.0, 3.0], [1.0, 1.0]]])
    loss, values = clipped_surrogate(
        log_prob, torch.zeros_like(log_prob), torch.tensor([[-1.0]]), weight, ratio="frame"
    )
    assert loss.item() == pytest.approx((2**0.5 + 1) / 2)  # both columns weigh the same
    assert values["ratio_max"].item() == pytest.approx(2**0.5)
    assert values["clip_fraction"].item() == pytest.approx(0.5)


def test_weights_choose_the_entries_that_count():
    loss, _ = surrogate([[1.1, 0.9]], [1.0], weight=[[[1.0, 0.0]]])
    assert loss.item() == pytest.approx(-1.1)  # weight normalised to (2, 0), mean over two


def test_advantages_by_frame():
    log_prob = torch.zeros(1, 1, 1, 2)
    loss, _ = clipped_surrogate(
        log_prob, log_prob, torch.tensor([[[1.0, 5.0]]]), torch.ones(1, 1, 2)
    )
    assert loss.item() == pytest.approx(-3.0)


def test_gradient_stops_where_the_clip_acts():
    log_prob = torch.tensor([[[[math.log(1.5), 0.0]]]], requires_grad=True)
    loss, _ = clipped_surrogate(
        log_prob, torch.zeros(1, 1, 1, 2), torch.ones(1, 1), torch.ones(1, 1, 2)
    )
    loss.backward()
    assert log_prob.grad[0, 0, 0, 0] == 0
    assert log_prob.grad[0, 0, 0, 1] == pytest.approx(-0.5)


def test_unknown_ratio_is_refused():
    with pytest.raises(ValueError, match="joint"):
        surrogate([[1.0]], [1.0], ratio="joint")
