"""Losses of the heads that say when, where and what."""

import pytest
import torch

from sep import hub
from sep.networks.trace import Trace
from sep.rl.heads import TraceLoss, head_gradient, occupied, set_iou
from sep.train.batch import draw_batch
from sep.train.losses import bin_weight, separation_loss
from sep.train.term import Update


def test_frames_and_rows_within_40_db_of_the_peak_count():
    magnitude = torch.tensor([[[[1.0, 0.0, 0.02], [0.0, 0.001, 0.0]]]])
    when, where = occupied(magnitude)
    # frames: powers 1, 1e-6, 4e-4; rows: 1.0004, 1e-6
    assert when.tolist() == [[[True, False, True]]]
    assert where.tolist() == [[[True, False]]]


def test_a_silent_target_is_nowhere():
    when, where = occupied(torch.zeros(1, 1, 4, 5))
    assert not when.any()
    assert not where.any()


def test_iou_of_hand_computed_sets():
    drawn = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    truth = torch.tensor([[False, True, True, False]])
    torch.testing.assert_close(set_iou(drawn, truth), torch.tensor([[1 / 3, 0.0]]))
    assert set_iou(drawn, torch.zeros_like(truth))[0].tolist() == [0, 1]


def test_each_head_learns_from_rewards_of_its_own():
    torch.manual_seed(0)
    when, where = torch.zeros(2, 1, 12), torch.zeros(2, 1, 6)
    what = torch.zeros(2, 1, 3)
    heads = [head.requires_grad_() for head in (when, where, what)]
    active, rows = torch.zeros(2, 12).bool(), torch.zeros(2, 6).bool()
    active[:, 4:8], rows[:, :2], label = True, True, torch.tensor([2, 0])
    optimizer, history = torch.optim.Adam(heads, 0.15), []
    for _ in range(60):
        trace = Trace(when, where, what.softmax(-1))
        loss, values = head_gradient(trace, active, rows, label, 16)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(values)
    for name in ("when", "where", "what"):
        first, last = (history[k][f"trace/{name}_reward"] for k in (0, -1))
        assert last > first + 0.2
    without = Trace(when, where, what[..., :0])  # a network without classes
    assert "trace/what_reward" not in head_gradient(without, active, rows, label, 4)[1]


def test_heads_and_gains_learn_and_masks_with_them(parts):
    base, sampler, queries, _ = parts
    torch.manual_seed(1)
    model = hub.extend(base, "trace").eval()
    labels = sampler.bank.labels
    model.name_classes(labels, torch.nn.functional.normalize(torch.randn(len(labels), 16), dim=-1))
    term = TraceLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batches = [draw_batch(sampler, queries, model.spectrogram, step, 0.0) for step in range(3)]
    rows = []
    for step in range(21):
        batch = batches[step % 3]
        maps = model.maps(batch.magnitude)
        logits = model.combine(maps, batch.query)
        part, values = term(Update(model, batch, maps, logits, bin_weight(batch.mixture)))
        loss = part + separation_loss(logits, batch, model.spectrogram)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append(values)
    assert (model.trace_gain != 0).all()
    for name in ("trace/when", "trace/where", "trace/what"):
        assert sum(row[name] for row in rows[-3:]) < 0.9 * sum(row[name] for row in rows[:3])


def test_loss_of_a_hand_computed_trace(parts):
    _, sampler, queries, _ = parts

    class Undecided:
        @staticmethod
        def trace(maps, query):
            rows, sources = query.shape[:2]
            shapes = [(rows, sources, n) for n in (batch.warped.shape[-1], batch.warped.shape[-2])]
            when, where = (torch.zeros(shape) for shape in shapes)
            return Trace(when, where, torch.full((rows, sources, 4), 0.25))

    spectrogram = parts[0].spectrogram
    batch = draw_batch(sampler, queries, spectrogram, 0, 0.0)
    update = Update(Undecided(), batch, None, None, None)
    loss, _ = TraceLoss(when=1.0, where=2.0, what=0.5)(update)
    # three times log 2 of a coin, half of log 4 of four classes
    assert loss.item() == pytest.approx(4 * 0.693147, abs=1e-5)
