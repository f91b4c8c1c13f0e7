"""Acting in the prior: exact densities, what an action does, and that the policy learns."""

import copy

import pytest
import torch

from sep import hub
from sep.errors import OptionError
from sep.policy import BetaPolicy
from sep.rl.explore import PriorExploration, named
from sep.rl.options import PolicyOptions
from sep.rl.reward import MaskOverlap, WeightedSum
from sep.rl.task import PolicyTask
from sep.train.heatmap import PriorLoss

SMALL = {"heads": 2, "head_dim": 8, "token_dim": 16, "hidden": 4}
GROUP = {"group": "mixture", "group_size": 4, "entropy": 0.0}


def larger(parts, decoding=False):
    """The parts with a heat map, which with `decoding` is added to the mask logits as it is."""
    model, *rest = copy.deepcopy(parts)
    torch.manual_seed(1)
    model = hub.extend(model, "prior", **SMALL)
    if decoding:  # silu(h) - silu(-h) = h
        first, _, last = model.decoder
        with torch.no_grad():
            first.weight.zero_(), first.bias.zero_()
            for channel, sign in enumerate((1.0, -1.0)):
                first.weight[channel, -1, 1, 1] = last.weight[0, channel, 1, 1] = sign
    return model, *rest


def make(parts, decoding=False, explore=None, terms=(), **options):
    return PolicyTask(
        *larger(parts, decoding),
        explore or named("prior", (8, 8)),
        WeightedSum({"overlap": (1.0, MaskOverlap())}),
        PolicyOptions(**GROUP | options),
        terms=terms,
    )


def bound(parts):
    model = larger(parts, True)[0].eval()
    generator = torch.Generator().manual_seed(0)
    magnitude = torch.rand(2, 513, 32, generator=generator)
    query = torch.randn(2, 16, generator=generator)
    maps = model.maps(magnitude)
    explore = PriorExploration((8, 8)).of(model, maps, query)
    return model, magnitude, query, explore, model.combine(maps, query)


@torch.no_grad()
def test_the_proposal_is_the_heat_map_and_the_mean_action_leaves_the_mask(parts):
    model, magnitude, query, explore, logits = bound(parts)
    proposal = explore.proposal(logits, torch.ones_like(logits))
    assert torch.equal(proposal, torch.sigmoid(model.heatmap(magnitude, query)))
    masks = explore.masks(logits, proposal, proposal[:, None])
    torch.testing.assert_close(masks[:, 0], torch.sigmoid(logits), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_action_is_decoded_as_a_heat_map_of_its_own(parts):
    model, magnitude, query, explore, logits = bound(parts)
    proposal = explore.proposal(logits, torch.ones_like(logits))
    action = proposal[:, None].repeat(1, 2, 1, 1)
    action[:, 1, 2, 1] = 0.9
    masks = explore.masks(logits, proposal, action)
    heat = torch.logit(action[:, 1])
    expected = model.decode(model.maps(magnitude), query[:, None], heat[:, None])
    torch.testing.assert_close(masks[:, 1], torch.sigmoid(expected[:, 0]), atol=1e-5, rtol=1e-4)
    change = (masks[:, 1] - masks[:, 0]).abs()
    assert change.amax() > 1e-3 and change[:, 64:].max() < 1e-6  # only around its cell


@torch.no_grad()
def test_densities_are_exact(parts):
    _, _, _, explore, logits = bound(parts)
    proposal, policy = explore.proposal(logits, torch.ones_like(logits)), BetaPolicy(9.0)
    grid = (torch.arange(4000) + 0.5) / 4000
    action = grid[None, :, None, None].expand(2, -1, *proposal.shape[1:])
    density = policy.log_prob(proposal, action).exp()
    torch.testing.assert_close(density.mean(1), torch.ones_like(proposal), atol=1e-3, rtol=0)
    torch.manual_seed(0)
    drawn = explore.draw(policy, proposal, 4000)
    exact = policy.distribution(proposal)
    assert (drawn.mean(1) - exact.mean).abs().max() < 6 * exact.stddev.max() / 4000**0.5


def test_the_surrogate_teaches_the_heat_map_and_leaves_the_decoder(parts):
    task = make(parts, True, kl=0.0, weight_decay=0.0, lr=1e-2)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    values = task.train_step(0, 0.5)
    assert values["ratio_min"] == values["ratio_max"] == 1
    moved = {k.split(".")[0] for k, v in task.model.state_dict().items() if not v.equal(before[k])}
    assert {"token", "fuse", "to_keys", "sound_net"} <= moved
    assert not {"decoder", "frame_net", "synth_net"} & moved


def test_an_untrained_decoder_gives_every_action_the_same_reward(parts):
    values = make(parts).train_step(0, 0.5)
    assert values["dead_groups"] == 1 and values["advantage_spread"] < 1e-2


def test_more_updates_a_rollout_make_the_clip_act(parts):
    values = make(parts, True, inner_epochs=4, lr=3e-2, kappa=40.0).train_step(0, 0.5)
    assert values["clip_fraction"] > 0 and values["kl_old"] > 1e-6


@torch.no_grad()
def reached(task):
    """Mean reward of the masks of inference on four batches that no rollout draws."""
    found = []
    for step in range(1000, 1004):
        batch = task._drawn(step)
        masks = torch.sigmoid(task.model.logits(batch.magnitude, batch.query[:, :1]))
        found.append(task.reward(task.listen(batch, masks))[0].mean())
    return torch.stack(found).mean().item()


def test_masks_of_inference_get_better_by_actions_in_the_prior_alone(parts):
    task = make(parts, True, inner_epochs=2, lr=1e-2, kappa=20.0, kl=0.0)
    before = reached(task)
    for step in range(40):
        task.train_step(step, 0.3)
    assert reached(task) > before + 0.02


def test_heat_map_and_policy_are_trained_jointly_from_the_supervised_separator(parts):
    task = make(parts, inner_epochs=2, lr=1e-2, anchor=1.0, terms=[PriorLoss()])
    values = [task.train_step(step, 0.3) for step in range(30)]
    assert values[0]["dead_groups"] == 1 and values[-1]["dead_groups"] < 0.5
    last = sum(row["prior/iou"] for row in values[-8:])
    assert last > sum(row["prior/iou"] for row in values[:8]) + 8 * 0.05


def test_replay_pathwise_and_teacher_work_with_it(parts):
    teacher = larger(parts, True)[0].eval()
    task = make(parts, True, replay=1.0, replay_pool=1, replay_kl=9.0, pathwise=1.0, lr=1e-2)
    task.teacher, task.options.kl_teacher = teacher, 0.1
    for step in range(2):
        values = task.train_step(step, 0.5)
    assert values["replay/masks"] > 1 and "reward/pathwise" in values
    assert values["kl_teacher"] > 0


@pytest.mark.parametrize("name", ["bin", "tile", "copula"])
def test_other_explorations_act_on_the_mask_of_the_network(parts, name):
    values = make(parts, True, explore=named(name, (8, 4), (4, 4))).train_step(0, 0.5)
    assert values["ratio_min"] == values["ratio_max"] == 1
    assert values["gradient_norm"] > 0


def test_a_network_without_a_heat_map_or_with_other_cells_is_refused(parts):
    model, *rest = copy.deepcopy(parts)
    reward = WeightedSum({"overlap": (1.0, MaskOverlap())})
    task = PolicyTask(model, *rest, named("prior", (8, 8)), reward, PolicyOptions(**GROUP))
    with pytest.raises(OptionError, match=r"network=\{kind: prior\}"):
        task.train_step(0, 0.5)
    with pytest.raises(OptionError, match=r"needs tile=\[8,8\]"):
        make(parts, explore=named("prior", (8, 4))).train_step(0, 0.5)
