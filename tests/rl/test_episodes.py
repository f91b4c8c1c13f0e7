"""Rewards and policy gradient of looking again."""

import copy
from types import SimpleNamespace

import pytest
import torch

from sep import hub
from sep.networks.turns import Episode
from sep.rl.episodes import TurnLoss, interval_iou, progress
from sep.rl.explore import TileExploration
from sep.rl.options import PolicyOptions
from sep.rl.reward import SiSdrGain, WeightedSum
from sep.rl.task import PolicyTask
from sep.train.batch import draw_batch
from sep.train.losses import bin_weight
from sep.train.term import Update


def test_interval_iou_of_hand_computed_cases():
    # four cells of two frames; active from frame 3 to 5, a silent frame between counts
    active = torch.zeros(1, 8, dtype=torch.bool)
    active[0, 3] = active[0, 5] = True  # the stretch [3, 6)
    intervals = torch.tensor([[[1, 3], [0, 4], [0, 1], [0, 0], [2, 3]]])
    expected = torch.tensor([[3 / 4, 3 / 8, 0.0, 0.0, 2 / 3]])  # [2, 6), [0, 8), ..., [4, 6)
    torch.testing.assert_close(interval_iou(intervals, active, 4), expected)
    assert not interval_iou(intervals, torch.zeros_like(active), 4).any()


def test_a_short_interval_within_the_target_is_not_favoured():
    active = torch.ones(1, 16, dtype=torch.bool)
    short, whole = interval_iou(torch.tensor([[[3, 4], [0, 16]]]), active, 16)[0]
    assert short.item() == pytest.approx(1 / 16)  # precision would be 1
    assert whole.item() == 1


def test_progress_counts_gains_over_the_best_look_so_far():
    quality = torch.tensor([[0.50, 0.55, 0.52], [0.20, 0.60, 0.60]])
    taken = torch.tensor([[True, True], [True, False]])
    # (.05 / .1) + (-.03 / .1); a gain above .1 earns 1, and no look no more
    torch.testing.assert_close(progress(quality, taken), torch.tensor([0.2, 1.0]))


@pytest.fixture
def looking(parts):
    torch.manual_seed(1)
    return [hub.extend(parts[0], "turns").eval(), *parts[1:]]


def update_of(parts):
    model, sampler, queries, _ = parts
    batch = draw_batch(sampler, queries, model.spectrogram, 0, 0.0)
    maps = model.maps(batch.magnitude)
    logits = model.combine(maps, batch.query)
    return Update(model, batch, maps, logits, bin_weight(batch.mixture))


def toy_update(model, frames=32, rows=8):
    """Few rows, so that many episodes cost little; the targets sound in the third quarter."""
    torch.manual_seed(0)
    warped = torch.zeros(4, 2, rows, frames)
    warped[..., frames // 2 : 3 * frames // 4] = 1.0
    mixture, query = warped.sum(1), torch.randn(4, 2, 16)
    batch = SimpleNamespace(warped=warped, mixture=mixture, query=query, rest=torch.zeros(4, 1, 1))
    maps = torch.randn(4, 4 + model.fine, rows, frames)
    return Update(model, batch, maps, None, torch.ones(4, rows, frames))


def test_the_reward_is_the_sum_of_its_parts(looking):
    update = update_of(looking)
    looks = torch.zeros(4, 2, 3, *update.logits.shape[-2:])
    interval = torch.tensor([[[0, 16], [0, 0]], [[0, 16], [0, 8]]]).expand(4, -1, -1, -1)
    episode = Episode(looks, interval, torch.zeros(4, 2, 2), torch.tensor([[2, 3]] * 4), None)
    ideal = torch.full(looks.shape[:1] + looks.shape[-2:], 0.5)  # the mask of logit 0
    parts = TurnLoss(cost=0.02).rewards(episode, update, ideal)
    assert torch.equal(parts["final"], torch.ones(4, 2))
    assert not parts["progress"].any()
    expected = 1 + 0.5 * parts["interval"] - 0.02 * torch.tensor([2.0, 3.0])
    torch.testing.assert_close(parts["reward"], expected)


def test_only_what_was_added_learns_from_episodes(looking):
    update = update_of(looking)
    torch.manual_seed(0)
    loss, values = TurnLoss()(update)
    loss.backward()
    learning = {n.split(".")[0] for n, p in looking[0].named_parameters() if p.grad is not None}
    assert learning == {"interval_head", "stop_head", "chooser", "refiner"}
    assert set(values) >= {"turns/reward", "turns/interval", "turns/progress", "turns/looks"}


def test_the_choice_learns_where_the_target_sounds(looking):
    model, term = looking[0], TurnLoss(group=8, refine=0.0, progress=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    update, fits = toy_update(model), []
    for _ in range(50):
        loss, values = term(update)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fits.append(values["turns/interval"].item())
    assert sum(fits[-5:]) > 2 * sum(fits[:5])


def test_looks_cost_something(looking):
    model, term = looking[0], TurnLoss(group=16, refine=0.0, progress=0.0, interval=0.0, cost=1.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    update, looks = toy_update(model), []
    for _ in range(30):
        loss, values = term(update)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        looks.append(values["turns/looks"].item())
    assert looks[-1] < looks[0] - 0.3


def test_it_runs_beside_the_mask_policy(looking):
    reward = WeightedSum({"si_sdr": (1.0, SiSdrGain())})
    options = PolicyOptions(
        group="mixture", group_size=2, entropy=0.0, inner_epochs=2, anchor=1.0, lr=1e-3
    )

    def losses(terms):
        task = PolicyTask(
            *copy.deepcopy(looking), TileExploration((8, 4)), reward, options, terms=terms
        )
        return [task.train_step(step, 0.5) for step in range(2)]

    rows = losses([TurnLoss(reward, group=2)])
    assert all("turns/final" in row for row in rows)
    assert losses([TurnLoss(reward, group=2)]) == rows
