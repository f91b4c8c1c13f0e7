"""Advantages by hand."""

import pytest
import torch

from sep.rl.advantage import EmaBaseline, batch_advantage, group_advantage, spread_windows


def test_group_advantage_by_hand():
    reward = torch.tensor([[1.0, 3.0], [5.0, 5.0]])  # mean 2, std 1; and a dead group
    torch.testing.assert_close(group_advantage(reward), torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))


def test_batch_advantage_by_hand_and_its_baseline_cancels():
    reward = torch.tensor([[1.0], [2.0], [3.0]])
    expected = torch.tensor([[-1.2247], [0.0], [1.2247]])
    for baseline in (0.0, 2.0, -7.0):
        torch.testing.assert_close(batch_advantage(reward, baseline), expected, atol=1e-3, rtol=0)


def test_tiny_reward_differences_are_not_drowned_by_epsilon():
    reward = torch.tensor([[0.5000, 0.5035]])
    torch.testing.assert_close(
        group_advantage(reward), torch.tensor([[-1.0, 1.0]]), atol=2e-3, rtol=0
    )


def test_ema_baseline_by_hand():
    baseline = EmaBaseline(0.92)
    assert baseline.update(1.0) == 1.0
    assert baseline.update(2.0) == pytest.approx(1.0)
    assert baseline.value == pytest.approx(0.92 * 1 + 0.08 * 2)


def test_windows_are_spread_over_the_frames_they_cover():
    advantage = torch.tensor([[[1.0, 3.0]]])  # windows over frames 0-3 and 2-5
    frames = spread_windows(advantage, window=4, hop=2, frames=8)
    assert frames[0, 0].tolist() == [1, 1, 2, 2, 3, 3, 3, 3]
