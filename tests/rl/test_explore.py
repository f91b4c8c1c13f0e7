"""What actions do to masks."""

import pytest
import torch

from sep.policy import BetaPolicy
from sep.rl.explore import (
    BinExploration,
    CopulaExploration,
    ReadingExploration,
    TileExploration,
    named,
)


def test_the_mean_action_leaves_the_mask_as_it_was():
    logits = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    explore, weight = TileExploration((4, 8)), torch.ones(2, 16, 16)
    proposal = explore.proposal(logits, weight)
    assert proposal.shape == (2, 4, 2)
    masks = explore.masks(logits, proposal, proposal[:, None])
    torch.testing.assert_close(masks[:, 0], torch.sigmoid(logits))


def test_a_tile_proposal_is_the_weighted_mean_logit():
    logits = torch.tensor([[[1.0, 3.0], [1.0, 3.0]]])
    weight = torch.tensor([[[3.0, 1.0], [3.0, 1.0]]])
    proposal = TileExploration((2, 2)).proposal(logits, weight)
    assert proposal.item() == pytest.approx(torch.sigmoid(torch.tensor(1.5)).item())


def test_a_higher_action_raises_the_mask_around_its_tile_only():
    logits, weight = torch.zeros(1, 32, 32), torch.ones(1, 32, 32)
    explore = TileExploration((8, 8))
    proposal = explore.proposal(logits, weight)
    action = proposal[:, None].clone()
    action[0, 0, 0, 0] = 0.9
    change = explore.masks(logits, proposal, action)[0, 0] - 0.5
    assert change[:4, :4].min() > 0.3
    assert change[16:, 16:].abs().max() == 0


def test_sampled_masks_neither_leak_nor_suppress_on_average():
    torch.manual_seed(0)
    policy, explore = BetaPolicy(40.0), TileExploration((8, 8), limit=99.0)
    for logit in (-6.0, 0.0, 2.0):
        logits = torch.full((1, 16, 16), logit)
        proposal = explore.proposal(logits, torch.ones(1, 16, 16))
        action = policy.sample(proposal, 4000)
        masks = explore.masks(logits, policy.mean(proposal), action)
        # tile corners: elsewhere the mean of several tiles' shifts is added
        assert masks[..., 0, 0].mean().item() == pytest.approx(proposal[0, 0, 0].item(), rel=0.03)


def test_tile_densities_give_the_gradient_of_the_expected_reward_by_brute_force():
    # two tiles of two bins; E[R] as a sum over a grid of both actions, R = mask share of two bins
    policy, explore, points = BetaPolicy(9.0), TileExploration((1, 2)), 200
    weight = torch.tensor([[[1.0, 3.0, 2.0, 2.0]]]).double()
    start = torch.tensor([[[0.3, -0.5, 1.0, 0.2]]]).double()
    one = (torch.arange(points).double() + 0.5) / points
    action = torch.cartesian_prod(one, one)[None, :, None]  # (1, G, 1, 2)
    mean = policy.mean(explore.proposal(start, weight))
    masks = explore.masks(start, mean, action)
    reward = masks[..., 0] * masks[..., 3]  # (1, G, 1)

    def log_prob(logits):
        return policy.log_prob(explore.proposal(logits, weight), action).sum((-2, -1))

    def expected(logits):
        return float((log_prob(logits).exp() * reward[..., 0]).sum() / points**2)

    logits = start.clone().requires_grad_()
    density = log_prob(logits)
    assert float(density.detach().exp().sum()) / points**2 == pytest.approx(1, abs=1e-4)
    score = (density.detach().exp() * density * reward[..., 0]).sum() / points**2
    (found,) = torch.autograd.grad(score, logits)
    for k in range(4):
        step = torch.zeros_like(start)
        step[..., k] = 1e-4
        slope = (expected(start + step) - expected(start - step)) / 2e-4
        assert float(found[..., k]) == pytest.approx(slope, rel=1e-4)
    drawn = explore.draw(policy, explore.proposal(start, weight).float().repeat(2_000, 1, 1), 8)
    low = (drawn.flatten(0, 1) < 0.5).all(-1).float().mean()  # both tiles below a half
    below = (density.detach().exp() * (action < 0.5).all(-1)[..., 0]).sum() / points**2
    assert float(low) == pytest.approx(float(below), abs=0.02)


def test_a_mask_that_tiles_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="multiple"):
        TileExploration((8, 8)).proposal(torch.zeros(1, 12, 16), torch.ones(1, 12, 16))


def test_bin_actions_are_the_mask():
    action = torch.rand(1, 2, 3, 3)
    assert BinExploration().masks(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3), action) is action


def test_copula_actions_have_the_marginals_of_their_bins_and_move_together():
    torch.manual_seed(0)
    policy, proposal = BetaPolicy(9.0), torch.full((1, 12, 20), 0.3)
    action = CopulaExploration((3, 5)).draw(policy, proposal, 4_000)[0]
    exact = policy.distribution(torch.tensor(0.3))
    assert (action.mean(0) - exact.mean).abs().max() < 0.012
    assert (action.std(0) - exact.stddev).abs().max() < 0.01
    near = torch.corrcoef(torch.stack([action[:, 5, 5], action[:, 5, 6]]))[0, 1]
    far = torch.corrcoef(torch.stack([action[:, 0, 0], action[:, 11, 19]]))[0, 1]
    assert near > 0.9 and abs(far) < 0.06


def test_bins_are_drawn_independently():
    torch.manual_seed(0)
    action = BinExploration().draw(BetaPolicy(9.0), torch.full((1, 2, 2), 0.5), 20_000)[0]
    assert abs(torch.corrcoef(action[:, 0].T)[0, 1]) < 0.03


def test_a_reading_proposes_how_open_and_how_sharp_a_mask_is():
    logits, weight = torch.tensor([[[1.0, -3.0]]]), torch.tensor([[[3.0, 1.0]]])
    proposal = ReadingExploration().proposal(logits, weight)  # mean logit 0, mean size 1.5
    torch.testing.assert_close(proposal, torch.tensor([[[0.5], [0.6]]]))


def test_the_actions_of_a_reading_stretch_and_shift_the_logits():
    explore, logits = ReadingExploration(), torch.tensor([[[1.0, -3.0]]])
    mean, odds = torch.tensor([[[0.5], [0.6]]]), torch.tensor([1.0, 1.5])
    same = explore.masks(logits, mean, mean[:, None])[:, 0]
    torch.testing.assert_close(same, torch.sigmoid(logits))
    action = (odds * torch.tensor([1.5, 2.0])) / (1 + odds * torch.tensor([1.5, 2.0]))
    masks = explore.masks(logits, mean, action[None, None, :, None])  # odds times 1.5 and 2
    shifted = 2 * logits + torch.log(torch.tensor(1.5))
    torch.testing.assert_close(masks[:, 0], torch.sigmoid(shifted))
    widest = ReadingExploration(limit=0.5).masks(logits, mean, action[None, None, :, None])
    torch.testing.assert_close(
        widest[:, 0], torch.sigmoid(logits * torch.tensor(0.5).exp() + torch.log(torch.tensor(1.5)))
    )


def test_readings_give_the_gradient_of_the_expected_reward_by_brute_force():
    # E[R] as a sum over a grid of both actions; R is 1 or 0, so that no gradient goes through it
    policy, explore, points = BetaPolicy(9.0), ReadingExploration(), 200
    weight = torch.tensor([[[1.0, 3.0, 2.0]]]).double()
    start = torch.tensor([[[0.3, -0.5, 1.0]]]).double()
    one = (torch.arange(points).double() + 0.5) / points
    action = torch.cartesian_prod(one, one)[None, ..., None]  # (1, G, 2, 1)
    masks = explore.masks(start, policy.mean(explore.proposal(start, weight)), action)
    reward = ((masks[..., 2] > 0.8) & (masks[..., 1] < 0.4)).double()[..., 0]
    assert 0.1 < reward.mean() < 0.9

    def expected(logits):
        density = policy.log_prob(explore.proposal(logits, weight), action).sum((-2, -1)).exp()
        return (density * reward).sum() / points**2

    logits = start.clone().requires_grad_()
    (found,) = torch.autograd.grad(expected(logits), logits)
    log_prob = policy.log_prob(explore.proposal(logits, weight), action).sum((-2, -1))
    score = (log_prob.detach().exp() * log_prob * reward).sum() / points**2
    torch.testing.assert_close(torch.autograd.grad(score, logits)[0], found)
    assert found.abs().min() > 1e-4


def test_explorations_have_names():
    assert type(named("reading")) is ReadingExploration
    assert type(named("bin")) is BinExploration and named("tile", (4, 2)).tile == (4, 2)
    assert named("copula", grid=[3, 5]).grid == (3, 5)
    with pytest.raises(
        ValueError, match="explore 'pixel' is unknown; use bin, tile, copula, prior, reading"
    ):
        named("pixel")
