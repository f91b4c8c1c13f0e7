"""The replay of masks: what is kept, what is recalled, and exact ratios."""

import copy
import math

import pytest
import torch
from test_task import MIXTURE_GROUP, make

from sep.policy import BetaPolicy
from sep.rl.explore import BinExploration
from sep.rl.options import PolicyOptions
from sep.rl.replay import Memory, ReplayBuffer, Replayed


def memory(step, rewards, kappa=9.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    proposal = torch.rand(2, 3, generator=generator)
    action = torch.rand(len(rewards), 2, 3, generator=generator).clamp(0.05, 0.95)
    return Memory(step, kappa, proposal, action, torch.tensor(rewards), proposal)


def filled(**settings):
    """Three keys with mean rewards 0, 1 and 2, one memory each."""
    buffer = ReplayBuffer(**settings)
    for k, key in enumerate("abc"):
        buffer.note(key, torch.tensor([k - 0.5, k + 0.5]))
    buffer.add([(key, memory(k, [float(k)])) for k, key in enumerate("abc")])
    return buffer


def test_the_running_mean_covers_the_last_rewards_only():
    buffer = ReplayBuffer(window=3)
    assert buffer.mean("a") is None
    buffer.note("a", torch.tensor([9.0, 1.0]))
    buffer.note("a", torch.tensor([2.0, 3.0]))
    assert buffer.mean("a") == pytest.approx(2.0)


def test_tiers_are_quantiles_of_the_mean_reward():
    # of the means 0, 1 and 2 the quantiles .40 and .75 are .8 and 1.5
    assert filled().tiers() == {"a": "hard", "b": "medium", "c": "easy"}


def test_the_oldest_of_a_full_tier_gives_way():
    buffer = filled(capacity=10)  # 4 hard, 3 medium, 2 easy
    buffer.add([("c", memory(10 + k, [2.0])) for k in range(3)])
    assert [m.step for key, m in buffer.memories if key == "c"] == [11, 12]
    assert {key for key, _ in buffer.memories} == {"a", "b", "c"}


def test_recalled_masks_spread_the_rewards():
    buffer = ReplayBuffer()
    buffer.note("a", torch.tensor([0.0]))
    buffer.add([("a", memory(0, [0.1, 5.0])), ("a", memory(1, [-4.0, 0.2]))])
    # beside 0: 5 lies farthest; then, from the mean 2.5, -4; then, from 1/3, .1
    found = buffer.recall("a", 2, 3, torch.tensor([0.0]))
    rewards = [float(m.reward[g]) for m, g in found]
    assert rewards == pytest.approx([5.0, -4.0, 0.1])
    assert buffer.recall("b", 2, 3, torch.tensor([0.0])) == []


def test_old_memories_are_forgotten():
    buffer = filled(age=5)
    assert buffer.recall("a", 6, 4, torch.zeros(1)) == []
    assert [key for key, _ in buffer.memories] == ["b", "c"]


def test_a_buffer_is_restored_as_it_was():
    buffer, other = filled(), ReplayBuffer()
    other.restore(copy.deepcopy(buffer.state()))
    assert other.tiers() == buffer.tiers() and len(other) == 3
    assert torch.equal(other.memories[1][1].action, buffer.memories[1][1].action)


def test_replayed_ratios_are_exact_and_advantages_those_of_vcrs():
    first, second = memory(0, [1.0, 3.0], kappa=9.0), memory(1, [2.0], kappa=20.0, seed=1)
    rows = [[(first, 1), (second, 0)], []]
    replayed = Replayed.stacked(rows, [1.5, None], torch.zeros(2, 1, 2, 3))
    # rewards 3 and 2 less 1.5, over their spread of .5
    assert replayed.advantage[0].tolist() == pytest.approx([3.0, 1.0], abs=1e-4)
    assert replayed.valid.tolist() == [[True, True], [False, False]]
    then = torch.distributions.Beta(1 + 9 * first.proposal, 1 + 9 * (1 - first.proposal))
    torch.testing.assert_close(replayed.log_prob[0, 0], then.log_prob(first.action[1]))
    now = BetaPolicy(9.0).log_prob(first.proposal[None].repeat(2, 1, 1), replayed.action)
    loss, measured = replayed.surrogate(now, torch.ones(2, 2, 3), clip=0.2)
    other = torch.distributions.Beta(1 + 20 * second.proposal, 1 + 20 * (1 - second.proposal))
    ratio = (then.log_prob(second.action[0]) - 0).exp()  # the second under the first's policy
    ratio = (ratio / other.log_prob(second.action[0]).exp()).clamp(max=2)
    expected = -(3.0 + torch.minimum(ratio, ratio.clamp(0.8, 1.2)).mean()) / 2
    assert loss.item() == pytest.approx(float(expected), abs=1e-4)
    assert measured["replay/masks"].item() == 1.0
    r = torch.cat([torch.ones(6), ratio.flatten()])
    assert measured["replay/ess"].item() == pytest.approx(float(r.sum() ** 2 / (12 * (r**2).sum())))


def test_keys_recur_and_their_masks_are_used_again(parts):
    options = {"replay": 1.0, "replay_pool": 2, "lr": 1e-4, "kappa": 20.0, "replay_kl": 1.0}
    task = make(copy.deepcopy(parts), BinExploration(), **MIXTURE_GROUP | options)
    rows = [task.train_step(step, 0.5) for step in range(4)]
    assert "replay/ess" not in rows[0] and "replay/ess" not in rows[1]
    for row in rows[2:]:
        assert row["replay/masks"] == 4 and 0.9 < row["replay/ess"] <= 1
        assert math.isfinite(row["loss"])
    strict = make(copy.deepcopy(parts), BinExploration(), **MIXTURE_GROUP | options | {
        "replay_kl": 0.0, "lr": 1e-2,
    })  # fmt: skip
    rows = [strict.train_step(step, 0.5) for step in range(4)]
    assert all("replay/ess" not in row for row in rows)  # every policy is too far away


def test_a_mixture_that_stays_hard_is_shown_the_way(parts):
    options = {"replay": 1.0, "replay_pool": 1, "replay_kl": 9.0, "lr": 1e-4, "kappa": 40.0}
    task = make(copy.deepcopy(parts), BinExploration(), **MIXTURE_GROUP | options, hint=0.5)
    rows = [task.train_step(step, 0.5) for step in range(5)]
    noted = sum(len(rewards) for rewards in task.buffer.rewards.values())
    assert noted == 4 * (5 * 4 - round(4 * sum(row["hinted"] for row in rows)))  # the policy's own
    assert [row["hinted"] for row in rows[:3]] == [0, 0, 0]
    share = rows[4]["hinted"]
    assert 0 < share < 1  # of every batch two in five keys are hard
    stuck = [key for key, visits in task.buffer.hard_visits.items() if visits >= 3]
    easy = [key for key in task.buffer.hard_visits if key not in stuck]
    plain = make(copy.deepcopy(parts), BinExploration(), **MIXTURE_GROUP | options)
    for step in range(5):
        plain.train_step(step, 0.5)
    for key in stuck:  # half-way to the ideal mask, and kept with the policy that drew it
        assert not torch.allclose(task.buffer.last(key).proposal, plain.buffer.last(key).proposal)
    # with one update a ratio is 1, unless a hint drew the mask: then it is that to the hint
    assert [row["ratio_max"] for row in rows[:3]] == [1, 1, 1] and rows[4]["ratio_max"] > 1
    assert easy


def test_a_hint_without_replay_is_refused():
    with pytest.raises(ValueError, match="hint needs replay"):
        PolicyOptions(hint=0.3)


def test_a_resumed_run_has_its_memories(parts):
    options = MIXTURE_GROUP | {"replay": 1.0, "replay_pool": 1, "replay_kl": 1.0, "lr": 1e-3}
    whole = make(copy.deepcopy(parts), **options)
    whole.train_step(0, 0.5)
    state = copy.deepcopy([whole.model.state_dict(), whole.optimizer.state_dict()])
    extra = copy.deepcopy(whole.extra_state())
    again = make(copy.deepcopy(parts), **options)
    again.model.load_state_dict(state[0])
    again.optimizer.load_state_dict(state[1])
    again.load_extra_state(extra)
    assert again.train_step(1, 0.5)["loss"] == whole.train_step(1, 0.5)["loss"]


def test_only_memories_that_are_near_are_recalled():
    buffer = ReplayBuffer()
    buffer.note("a", torch.tensor([0.5]))
    buffer.add([("a", memory(0, [9.0, -9.0])), ("a", memory(1, [1.0, 2.0]))])
    found = buffer.recall("a", 2, 4, torch.tensor([0.5]), lambda kept: kept.step == 1)
    assert [m.step for m, _ in found] == [1, 1]


def test_equal_rewards_are_not_replayed():
    known = memory(0, [1.0, 1.0])
    replayed = Replayed.stacked([[(known, 0), (known, 1)]], [0.9], torch.zeros(1, 2, 2, 3))
    assert not replayed.valid.any()
