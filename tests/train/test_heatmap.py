"""Supervision of the heat map: targets and losses by hand, and that it learns."""

import copy

import pytest
import torch

from sep import hub
from sep.errors import OptionError
from sep.train.heatmap import PriorLoss, cell_mean, cell_target, heatmap_loss, weighted_focal
from sep.train.losses import bin_weight
from sep.train.supervised import SupervisedTask
from sep.train.term import Update

SMALL = {"heads": 2, "head_dim": 8, "token_dim": 16, "hidden": 4, "stride": 8}


def test_a_cell_is_the_share_of_its_energy_that_is_the_target_s():
    mask = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])[None, None]
    mixture = torch.tensor([[2.0, 1.0, 3.0], [1.0, 0.0, 0.0]])[None]
    # first cell (4 x 1) of 4 + 1 + 1; the second is one column wide, 4.5 of 9
    found = cell_target(mask, mixture, 2)
    torch.testing.assert_close(found, torch.tensor([[[[4 / 6, 0.5]]]]))
    assert cell_mean(mask, torch.zeros_like(mask), 2).abs().max() == 0


def test_focal_is_the_published_one_for_hard_targets_and_0_at_soft_ones():
    logits, weight = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[1.0, 3.0]]])
    p = torch.sigmoid(logits)[0, 0, 0]
    expected = (0.25 * -(p[0].log()) + 3 * p[1] ** 2 * -(1 - p[1]).log()) / 2 / 2
    loss, _ = weighted_focal(logits, torch.tensor([[[[1.0, 0.0]]]]), weight)
    assert loss.item() == pytest.approx(expected.item())
    loss, _ = weighted_focal(logits, torch.sigmoid(logits), weight)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def larger(parts):
    model, *rest = copy.deepcopy(parts)
    torch.manual_seed(1)
    return hub.extend(model, "prior", **SMALL), *rest


def update_of(model, sampler, queries):
    from sep.train.batch import draw_batch

    batch = draw_batch(sampler, queries, model.spectrogram, 0, 0.5)
    maps = model.maps(batch.magnitude)
    logits = model.combine(maps, batch.query)
    return Update(model, batch, maps, logits, bin_weight(batch.mixture))


def test_the_term_weighs_its_parts_as_it_says(parts):
    model, sampler, queries, _ = larger(parts)
    update = update_of(model, sampler, queries)
    loss, values = PriorLoss(0.5, dice=3.0, focal=7.0)(update)
    expected = values["prior/bce"] + values["prior/dice"]
    expected += 3 * values["prior/mask_dice"] + 7 * values["prior/mask_focal"]
    torch.testing.assert_close(loss.detach(), 0.5 * expected)


def test_the_heat_map_s_losses_teach_the_heat_map_and_the_mask_s_the_decoder(parts):
    model, sampler, queries, _ = larger(parts)

    def reached(**weights):
        model.zero_grad(set_to_none=True)
        PriorLoss(1.0, **weights)(update_of(model, sampler, queries))[0].backward()
        moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        return {name.split(".")[0] for name in moved}

    alone = reached(dice=0.0, focal=0.0)
    assert {"token", "fuse", "to_keys", "sound_net"} <= alone
    assert not {"decoder", "synth_net", "frame_net"} & alone
    assert {"decoder", "synth_net", "frame_net", "token"} <= reached()


def supervised(parts, terms=()):
    return SupervisedTask(*larger(parts), lr=1e-2, terms=terms)


def test_the_heat_map_learns_where_sources_are(parts):
    task = supervised(parts, [PriorLoss()])
    found = [task.train_step(step, 0.2)["prior/iou"] for step in range(40)]
    assert sum(found[-10:]) > sum(found[:10]) + 10 * 0.15
    assert task.model.decoder[-1].weight.abs().max() > 1e-3


def test_settings_that_cannot_be_are_refused(parts):
    with pytest.raises(OptionError, match=r"network=\{kind: prior\}"):
        heatmap_loss(parts[0], {"weight": 0.3}, "ratio")
    with pytest.raises(OptionError, match=r"prior.wieght is unknown; use weight, dice, focal"):
        heatmap_loss(larger(parts)[0], {"wieght": 0.3}, "ratio")
    term = heatmap_loss(larger(parts)[0], {"weight": 0.2, "focal": 5}, "binary")[0]
    assert (term.weight, term.dice, term.focal, term.target) == (0.2, 3.0, 5, "binary")
