"""Distillation terms by hand, and what is frozen."""

import copy

import pytest
import torch

from sep.errors import OptionError
from sep.model import QueryNet
from sep.rl.distill import Distillation, cka, freeze_head
from sep.rl.explore import TileExploration
from sep.rl.options import PolicyOptions
from sep.rl.reward import LevelGuard, MaskIoU, SiSdrGain, WeightedSum
from sep.rl.task import PolicyTask
from sep.train.batch import draw_batch
from sep.train.term import Update

OPTIONS = {"group": "mixture", "group_size": 3, "entropy": 0.0, "kl": 0.0, "inner_epochs": 2}


def train(parts, terms=(), steps=4, lr=1e-2):
    reward = WeightedSum({"iou": (1.0, MaskIoU()), "level": (1.0, LevelGuard()),
                          "si_sdr": (1.0, SiSdrGain())})  # fmt: skip
    options = PolicyOptions(lr=lr, kappa=20.0, **OPTIONS)
    task = PolicyTask(*parts, TileExploration((8, 4)), reward, options, terms=terms)
    return [task.train_step(step, 0.5) for step in range(steps)]


def update_of(model, parts):
    batch = draw_batch(*parts[1:3], model.spectrogram, 0, 0.5)
    maps = model.maps(batch.magnitude)
    weight = torch.rand(batch.mixture.shape)
    return Update(model, batch, maps, model.combine(maps, batch.query), weight)


def test_both_parts_by_hand(parts):
    teacher, model = parts[0].eval(), copy.deepcopy(parts[0]).eval()
    with torch.no_grad():
        model.synth_net.scale.add_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        model.sound_net.last.bias.add_(torch.tensor([0.0, 3.0, 0.0, 0.0]))
    update = update_of(model, parts)
    loss, values = Distillation(teacher, weight=2.0, eta=0.5)(update)
    asked = model.prompt(update.batch.query)[..., 0]  # the one weight that differs, by v_0 x 1
    assert values["distill/prompt"].item() == pytest.approx(asked.square().mean().item() / 4)
    assert values["distill/maps"].item() == pytest.approx(9 / 4, rel=1e-4)  # u has mean 1
    expected = 2 * (values["distill/prompt"] + 0.5 * values["distill/maps"])
    assert loss.item() == pytest.approx(expected.item())
    assert values["distill/cka"].item() == pytest.approx(1, abs=1e-4)  # a shift changes nothing


def test_maps_count_by_the_weight_of_their_bins(parts):
    teacher, model = parts[0].eval(), copy.deepcopy(parts[0]).eval()
    update = update_of(model, parts)
    update.maps = update.maps.detach().clone()
    update.weight = torch.ones_like(update.weight)
    update.weight[..., :16] = 3.0
    update.maps[..., :16] += 2.0
    frames = update.maps.shape[-1]
    _, values = Distillation(teacher)(update)
    expected = 4 * 3 * 16 / (3 * 16 + frames - 16)
    assert values["distill/maps"].item() == pytest.approx(expected, rel=1e-4)


def test_gradient_reaches_the_model_and_not_the_teacher(parts):
    teacher, model = copy.deepcopy(parts[0]), parts[0].eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    Distillation(teacher)(update_of(model, parts))[0].backward()
    assert model.frame_net.weight.grad.abs().sum() > 0
    assert model.sound_net.last.weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in teacher.parameters())


def test_cka_by_hand_and_for_rotations():
    x = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]]).reshape(1, 2, 2, 2)
    y = torch.tensor([[1.0, -1, 1, -1], [1, -1, 1, -1]]).reshape(1, 2, 2, 2)
    # X X^T = 4 I, Y Y^T = 4 ones, X Y^T = [[4, 4], [0, 0]]: 32 / (4 sqrt 2 x 8)
    assert cka(x, y).item() == pytest.approx(32 / (4 * 2**0.5 * 8))
    turned = torch.einsum("kj,bjht->bkht", torch.tensor([[0.6, 0.8], [-0.8, 0.6]]), 5 * x + 2)
    assert cka(x, turned).item() == pytest.approx(1)


def test_distillation_keeps_the_policy_near_its_teacher(parts):
    near, far = (
        train(copy.deepcopy(parts), [Distillation(copy.deepcopy(parts[0]), weight)], 12)[-1]
        for weight in (100.0, 0.0)
    )
    assert near["distill/maps"] < 0.5 * far["distill/maps"]
    assert near["distill/cka"] > far["distill/cka"]


def test_weight_zero_repeats_the_run_without_it(parts):
    plain = train(copy.deepcopy(parts))
    weightless = train(copy.deepcopy(parts), [Distillation(copy.deepcopy(parts[0]), 0.0)])
    assert [row["loss"] for row in weightless] == [row["loss"] for row in plain]


@pytest.mark.parametrize(("levels", "parts_frozen"), [(1, 1), (2, 3), (3, 5)])
def test_a_frozen_head_keeps_its_weights_to_the_bit(parts, levels, parts_frozen):
    model, teacher = parts[0], copy.deepcopy(parts[0])
    with torch.no_grad():
        model.synth_net.scale.add_(1)  # is taken from the teacher again
    freeze_head(model, teacher, levels)
    head = model.sound_net.way_up(levels)
    assert len(head) == parts_frozen
    train(parts, steps=3)
    frozen = {id(p) for part in (*head, model.synth_net) for p in part.parameters()}
    for (name, after), before in zip(model.named_parameters(), teacher.parameters(), strict=True):
        assert torch.equal(after, before) == (id(after) in frozen), name


def test_more_levels_than_there_are_cannot_be_frozen(parts):
    with pytest.raises(OptionError, match="freeze_head 6: the U-Net has 5 levels"):
        freeze_head(parts[0], parts[0], 6)
    model = QueryNet(width=2, levels=5, mask_channels=4, embed_dim=16)
    freeze_head(model, copy.deepcopy(model), 5)
    assert any(p.requires_grad for p in model.parameters())
