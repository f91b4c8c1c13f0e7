"""Group-relative RL on the second pass, with the rewards of AURORA."""

import copy

import pytest
import torch

from sep import hub
from sep.rl.distill import Distillation
from sep.rl.explore import TileExploration
from sep.rl.options import PolicyOptions
from sep.rl.reward import LevelGuard, MaskIoU, WeightedSum
from sep.rl.task import PolicyTask

OPTIONS = {"group": "mixture", "group_size": 4, "entropy": 0.0, "kl": 0.0, "kappa": 20.0}


def make(model, parts, terms=(), **options):
    reward = WeightedSum({"iou": (1.0, MaskIoU()), "level": (1.0, LevelGuard())})
    options = PolicyOptions(**OPTIONS | options)
    return PolicyTask(model, *parts[1:], TileExploration((8, 4)), reward, options, terms=terms)


def test_rewards_rise_when_only_the_second_pass_may_learn(parts):
    model = hub.extend(parts[0], "reflect")
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(("again_net", "delta_net")))
    task = make(model, parts, lr=2e-2, inner_epochs=2)
    before = {name: value.clone() for name, value in parts[0].state_dict().items()}
    rewards = [task.train_step(step, 0.3)["reward/iou"] for step in range(40)]
    assert sum(rewards[-10:]) / 10 > sum(rewards[:10]) / 10 + 0.02
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert model.delta_net.scale.abs().min() > 0 and model.again_net.weight.abs().sum() > 0


def test_the_policy_acts_on_the_final_masks(parts):
    def losses(model, terms=()):
        task = make(model, copy.deepcopy(parts), terms, lr=1e-3, anchor=1.0, anchor_steps=1)
        return [task.train_step(step, 0.5)["loss"] for step in range(2)]

    plain = losses(copy.deepcopy(parts[0]))
    first_only = hub.extend(parts[0], "reflect")
    first_only.passes = 1
    assert losses(first_only) == pytest.approx(plain, rel=1e-5)
    both = losses(hub.extend(parts[0], "reflect"))
    assert both[0] == pytest.approx(plain[0], rel=1e-5)  # pass 2 does nothing yet
    assert both[1] != pytest.approx(plain[1], rel=1e-5)
    near = losses(hub.extend(parts[0], "reflect"), [Distillation(copy.deepcopy(parts[0]))])
    assert near[0] == pytest.approx(plain[0], rel=1e-5)
    assert near[1] != pytest.approx(both[1], rel=1e-5)
