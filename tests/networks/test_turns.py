"""The separator that looks again."""

import itertools
import math

import pytest
import torch

from sep import hub
from sep.model import QueryNet
from sep.networks.turns import TurnNet, _gate


def tiny():
    torch.manual_seed(0)
    model = QueryNet(width=2, levels=4, mask_channels=3, embed_dim=8)
    model.amp = False
    return model.eval()


def looking(**options):
    model = hub.extend(tiny(), "turns", **options)
    with torch.no_grad():  # as if trained: it decides and writes something
        for head in (model.interval_head, model.stop_head, model.refiner.write):
            head.weight.normal_(std=0.3)
    return model


def test_masks_begin_as_those_of_the_network_it_extends(tmp_path):
    base, model = tiny(), hub.extend(tiny(), "turns")
    magnitude, query = torch.rand(2, 513, 37), torch.randn(2, 3, 8)
    with torch.no_grad():
        for q in (query, query[:, 0]):
            assert torch.equal(model.logits(magnitude, q), base.logits(magnitude, q))
        one = model.mask(magnitude, query[0, 0])
        torch.testing.assert_close(one, base.mask(magnitude, query[0, 0]), atol=1e-5, rtol=1e-4)
    hub.save_pretrained(model, tmp_path / "model")
    loaded = hub.from_pretrained(tmp_path / "model")
    assert isinstance(loaded, TurnNet)
    assert loaded.config == model.config


def test_gates_have_raised_cosine_edges_inside_the_interval():
    # four cells of four frames; frame centres .125, .375, .625, .875 of a cell
    gate = _gate(torch.tensor([[1, 3], [0, 2], [2, 4], [0, 0]]), 4, 16)
    edge = [0.5 - 0.5 * math.cos(math.pi * x) for x in (0.25, 0.75)]
    middle = [*edge, 1, 1, 1, 1, *edge[::-1]]
    torch.testing.assert_close(gate[0], torch.tensor([0] * 4 + middle + [0] * 4))
    torch.testing.assert_close(gate[1], torch.tensor([1] * 6 + edge[::-1] + [0] * 8))
    torch.testing.assert_close(gate[2], torch.tensor([0] * 8 + edge + [1] * 6))
    assert not gate[3].any()


def test_there_are_136_intervals_of_16_cells():
    model = looking()
    expected = [(s, e) for s, e in itertools.product(range(17), range(17)) if s < e]
    assert [tuple(pair) for pair in model.pairs.tolist()] == expected
    assert len(expected) == 136


def test_fine_rows_are_the_log_magnitudes_between_the_rows_of_the_warp():
    model = looking(fine=2)
    magnitude = torch.arange(1.0, 514.0)[None, :, None].expand(1, 513, 16).contiguous()
    fine = model.maps(magnitude)[0, 3:, :, 0].exp()  # (2, H); a magnitude is its row + 1
    rows = (model.spectrogram.warp_row + model.spectrogram.warp_weight[:, 0]) + 1
    h = 200
    low, high = (rows[h] + rows[h - 1]) / 2, (rows[h] + rows[h + 1]) / 2
    expected = torch.stack([low + (high - low) / 4, low + 3 * (high - low) / 4])
    torch.testing.assert_close(fine[:, h], expected, rtol=1e-2, atol=0)


def test_log_probabilities_are_those_of_the_decisions():
    model, turns = looking(), 3
    torch.manual_seed(3)
    maps, query = model.maps(torch.rand(1, 513, 32)), torch.randn(1, 6, 8)
    with torch.no_grad():
        episode = model.play(maps, query, sample=True)
        fine, when = maps[:, 3:], model.trace(maps, query).when
        visited = torch.zeros(1, 6, 16)
        expected = torch.zeros(1, 6)
        for n in range(turns - 1):
            stop, interval = model._decide(fine, episode.looks[:, :, n], when, visited)
            for q, pair in enumerate(episode.interval[0, :, n].tolist()):
                if n and not episode.interval[0, q, n - 1].any():
                    continue  # had stopped before
                p = stop.probs[0, q]
                if pair == [0, 0]:
                    expected[0, q] += p.log()
                else:
                    index = model.pairs.tolist().index(pair)
                    expected[0, q] += (1 - p).log() + interval.probs[0, q, index].log()
                    visited[0, q, pair[0] : pair[1]] += 1
    torch.testing.assert_close(episode.log_prob, expected)
    assert len(set(episode.turns.flatten().tolist())) > 1


def test_interval_probabilities_sum_to_one():
    model = looking()
    maps, query = model.maps(torch.rand(2, 513, 32)), torch.randn(2, 1, 8)
    logits = model.play(maps, query).looks[:, :, 0]
    _, interval = model._decide(maps[:, 3:], logits, logits.mean(-2), torch.zeros(2, 1, 16))
    torch.testing.assert_close(interval.probs.sum(-1), torch.ones(2, 1))


def test_a_look_changes_its_interval_alone_and_a_stop_nothing():
    model = looking()
    torch.manual_seed(4)
    maps, query = model.maps(torch.rand(2, 513, 32)), torch.randn(2, 4, 8)
    with torch.no_grad():
        episode = model.play(maps, query, sample=True)
    change = (episode.looks[:, :, 1:] - episode.looks[:, :, :-1]).abs().amax(-2)
    gate = _gate(episode.interval, 16, 32)
    assert (change[gate == 0] == 0).all()
    assert (change[gate > 0] > 0).float().mean() > 0.9


def test_inference_stops_where_stopping_is_likelier_and_repeats_itself():
    model = looking()
    magnitude, query = torch.rand(2, 513, 32), torch.randn(2, 8)
    with torch.no_grad():
        model.stop_head.weight.zero_()
        for bias, turns in ((5.0, 1), (-5.0, 3)):
            model.stop_head.bias.fill_(bias)
            episode = model.play(model.maps(magnitude), query[:, None])
            assert (episode.turns == turns).all()
            first, second = (model.logits(magnitude, query) for _ in range(2))
            assert torch.equal(first, second)


@pytest.mark.parametrize("choose", ["random", "whole"])
def test_controls_look_at_every_turn_without_choosing(choose):
    model = looking(choose=choose)
    torch.manual_seed(0)
    maps, query = model.maps(torch.rand(4, 513, 32)), torch.randn(4, 1, 8)
    episode = model.play(maps, query, sample=True)
    assert (episode.turns == 3).all()
    assert not episode.log_prob.any()
    everything = (episode.interval == torch.tensor([0, 16])).all()
    assert everything if choose == "whole" else not everything


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="choose"):
        TurnNet(choose="best")
    with pytest.raises(ValueError, match="turns"):
        TurnNet(turns=1)
