"""Calibrated policy gradients: the mask's own likelihood, and kappa by confidence."""

import copy
import math

import pytest
import torch

from sep import hub
from sep.rl.calibration import (
    ConfidenceLoss,
    ConfidentKappa,
    Emission,
    emission_log_prob,
)
from sep.rl.explore import BinExploration, TileExploration
from sep.rl.options import PolicyOptions
from sep.rl.reward import SiSdrGain, WeightedSum
from sep.rl.task import PolicyTask
from sep.train.batch import draw_batch
from sep.train.losses import bin_weight
from sep.train.term import Update


def make(parts, explore=None, terms=(), concentration=None, **options):
    options = {"group": "mixture", "group_size": 4, "entropy": 0.0, "kl": 0.0} | options
    reward = WeightedSum({"si_sdr": (1.0, SiSdrGain())})
    return PolicyTask(
        *copy.deepcopy(parts),
        explore or TileExploration((8, 4)),
        reward,
        PolicyOptions(**options),
        terms=terms,
        concentration=concentration,
    )


@pytest.fixture
def confident(parts):
    torch.manual_seed(1)
    return [hub.extend(parts[0], "confident"), *parts[1:]]


def test_log_likelihood_of_a_hand_computed_mask():
    # one cell a bin: logits 0 and log 3 are 1/2 and 3/4
    logits = torch.tensor([[[0.0, math.log(3)]]])
    masks = torch.tensor([[[[0.9, 0.2]], [[0.5, 0.6]]]])  # on and off; exactly 1/2 is off
    value = emission_log_prob(logits, masks, (1, 2))
    expected = [[math.log(1 / 2 * 1 / 4) / 2, math.log(1 / 2 * 3 / 4) / 2]]
    torch.testing.assert_close(value, torch.tensor(expected))


def test_cells_take_the_mean_of_logits_and_of_masks():
    logits = torch.tensor([[[2.0, -2.0], [1.0, -1.0]]])
    masks = torch.tensor([[[[1.0, 0.0], [1.0, 0.1]]]])  # mean .525: on
    value = emission_log_prob(logits, masks, (1, 1))
    assert value.item() == pytest.approx(math.log(0.5))


def test_the_gradient_is_advantage_times_mask_less_proposal():
    logits = torch.tensor([[[[0.0, math.log(3)]]]], requires_grad=True)
    masks = torch.tensor([[[[0.9, 0.2]], [[0.1, 0.2]]]])
    advantage = torch.tensor([[1.5, -0.5]])
    log_prob = emission_log_prob(logits[:, 0], masks, (1, 2))
    (-((log_prob - log_prob.detach()).exp() * advantage).mean()).backward()
    # -A (m - sigmoid) / cells, the mean over both masks
    first = -(1.5 * (1 - 0.5) - 0.5 * (0 - 0.5)) / 2 / 2
    second = -(1.5 * (0 - 0.75) - 0.5 * (0 - 0.75)) / 2 / 2
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([first, second]))


def test_kappa_grows_with_confidence_and_decision():
    class Sure:
        @staticmethod
        def confidence(maps, query, logits):
            return torch.tensor([0.0, 1.0])

    proposal = torch.tensor([[[0.5, 1.0]], [[0.25, 0.0]]])
    kappa = ConfidentKappa(4, 30)(Sure, None, None, None, proposal)
    torch.testing.assert_close(kappa, torch.tensor([[[4.0, 4.0]], [[17.0, 30.0]]]))


def test_confidence_learns_the_iou_of_the_masks(confident):
    model, sampler, queries, _ = confident
    model.eval()
    seen = []
    for step in range(4):
        batch = draw_batch(sampler, queries, model.spectrogram, step, 0.0)
        with torch.no_grad():
            maps = model.maps(batch.magnitude)
            logits = model.combine(maps, batch.query)
        seen.append(Update(model, batch, maps, logits, bin_weight(batch.mixture)))
    optimizer, term, errors = torch.optim.Adam(model.parameters(), 1e-2), ConfidenceLoss(), []
    for step in range(160):
        loss, values = term(seen[step % 4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(values["confidence_error"].item())
    assert sum(errors[-4:]) < 0.5 * sum(errors[40:44]) < 0.5 * sum(errors[:4])


def test_a_run_with_a_kappa_of_its_own_for_each_entry_keeps_the_ratio_exact(confident):
    for explore in (BinExploration(), TileExploration((8, 4))):
        task = make(
            confident, explore, [ConfidenceLoss()], ConfidentKappa(), inner_epochs=2, kl=0.01
        )
        first = make(confident, explore, [ConfidenceLoss()], ConfidentKappa())
        row = first.train_step(0, 0.5)
        assert row["ratio_min"] == row["ratio_max"] == 1
        assert task.train_step(0, 0.5)["ratio_max"] > 1
        assert task.policy.kappa.shape[0] == 4
        assert 4 <= task.policy.kappa.min() <= task.policy.kappa.max() <= 30


def test_kappa_by_confidence_is_refused_with_replay(confident):
    with pytest.raises(ValueError, match="replay"):
        make(confident, concentration=ConfidentKappa(), replay=1.0)


def test_emission_raises_rewards_in_the_place_of_the_beta_surrogate(parts):
    def last_rewards(weight):
        term = Emission(weight, anchor=0.0, grid=(16, 8))
        task = make(parts, terms=[term], surrogate=0.0, lr=3e-3, kappa=20.0)
        rewards = [task.train_step(step, 0.3)["reward"] for step in range(25)]
        return sum(rewards[-8:]) / 8

    assert last_rewards(1.0) > last_rewards(0.0) + 0.01


def test_emission_reads_the_masks_and_advantages_of_the_rollout(parts):
    model, sampler, queries, _ = parts
    batch = draw_batch(sampler, queries, model.spectrogram, 0, 0.0)
    maps = model.maps(batch.magnitude)
    logits = model.combine(maps, batch.query)
    masks = torch.rand(4, 2, *logits.shape[-2:])
    whole = torch.tensor([[1.0, -1.0]]).repeat(4, 1)
    weight = bin_weight(batch.mixture)
    losses = []
    for advantage in (whole, whole[..., None] * torch.tensor([0.5, 1.5])):
        update = Update(model, batch, maps, logits, weight, masks, advantage)
        losses.append(Emission(anchor=0.2)(update)[0].item())
    assert losses[0] == pytest.approx(losses[1])  # by frame, the mean counts
