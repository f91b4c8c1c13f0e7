"""Choosing mistakes, the reflective loss by hand, and training of the second pass."""

import copy
import math

import pytest
import torch

from sep import hub
from sep.errors import OptionError
from sep.rl.reward import ClassHit
from sep.train.batch import draw_batch
from sep.train.losses import target_masks
from sep.train.reflection import (
    ReflectionOptions,
    ReflectiveTask,
    _asked_first,
    choose,
    mistaken,
    reflective_loss,
)


def embed(wave, sample_rate):
    """A unit vector of the energies in 16 bands: a real, tiny audio encoder."""
    power = torch.fft.rfft(wave)[:, 1:].abs().square()
    bands = torch.nn.functional.adaptive_avg_pool1d(power[:, None], 16)[:, 0]
    return torch.nn.functional.normalize(torch.log1p(bands), dim=-1)


def classes_of(bank):
    """Classes named by the mean embedding of their clips."""
    vectors = []
    for k in range(len(bank.labels)):
        clip = bank.member[k, : int(bank.count[k])]
        waves = bank.segments(clip, torch.zeros(len(clip), dtype=torch.long), 8_191)
        vectors.append(embed(waves, 16_000).mean(0))
    return ClassHit(embed, torch.nn.functional.normalize(torch.stack(vectors), dim=-1))


def make(parts, network=True, lr=1e-2, **options):
    model, *rest = copy.deepcopy(parts)
    if network:
        model = hub.extend(model, "reflect")
    classes, options = classes_of(rest[0].bank), ReflectionOptions(**options)
    return ReflectiveTask(
        model, *rest, classes=classes, options=options, lr=lr, si_sdr=0.3, train_norm=False
    )


@pytest.mark.parametrize(
    ("hard", "expected"),
    [
        ([0, 1, 0, 1, 1, 0, 0], [1, 0, 2, 5]),  # one of four
        ([0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 3]),  # none there
        ([1, 1, 1, 1, 0, 1, 1], [0, 1, 2, 4]),  # too few of the others
    ],
)
def test_a_share_of_hard_examples_is_chosen_as_far_as_there_are_any(hard, expected):
    assert choose(torch.tensor(hard).bool(), 4, 0.3).tolist() == expected


def test_loss_by_hand():
    # Two bins of one mixture, weights 1 and 3 (u = 0.5 and 1.5); P1 = 0.5, 0.75; P2 = 0.75, 0.5.
    first = torch.tensor([0.0, math.log(3)]).reshape(1, 1, 2).requires_grad_()
    second = torch.tensor([math.log(3), 0.0]).reshape(1, 1, 2).requires_grad_()
    weight, target = torch.tensor([[[1.0, 3.0]]]), torch.ones(1, 1, 2)
    before = (0.5 * math.log(2) + 1.5 * math.log(4 / 3)) / 2
    after = (0.5 * math.log(4 / 3) + 1.5 * math.log(2)) / 2
    kept = (0.5 * 0.5 * 0.25 + 1.5 * 0.75 * 0.25) / 2
    loss, values = reflective_loss(first, second, target, weight, keep=0.1, worse=10.0)
    assert values["reflect/bce"].item() == pytest.approx(after)
    assert values["reflect/kept"].item() == pytest.approx(kept)
    assert values["reflect/worse"].item() == pytest.approx(after - before)
    assert loss.item() == pytest.approx(after + 0.1 * kept + 10 * (after - before))
    loss.backward()
    assert first.grad is None and second.grad.abs().min() > 0


def test_only_mixtures_that_got_worse_pay_for_it():
    logits = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    swapped, target, weight = logits.flip(0), torch.ones(2, 1, 1), torch.ones(2, 1, 1)
    _, values = reflective_loss(logits, swapped, target, weight, 1.0, 1.0)
    worse = math.log(2) - math.log1p(math.exp(-1))  # the second mixture alone
    assert values["reflect/worse"].item() == pytest.approx(worse / 2)


def test_a_mistake_is_a_bad_mask_that_sounds_like_another_class(parts):
    model, sampler, queries, _ = parts
    batch = draw_batch(sampler, queries, model.spectrogram, 0, 0.5)
    ideal = target_masks(batch.warped, batch.mixture, "ratio")
    arguments = batch, model.spectrogram, classes_of(sampler.bank), batch.label
    right, wrong = torch.logit(ideal, 1e-4), torch.logit(ideal.flip(1), 1e-4)
    assert not mistaken(right, *arguments).any()
    assert mistaken(wrong, *arguments).float().mean() > 0.5
    assert not mistaken(wrong, *arguments, iou=0.0).any()


def test_the_source_that_is_asked_for_comes_first(parts):
    model, sampler, queries, _ = parts
    batch = draw_batch(sampler, queries, model.spectrogram, 0, 0.5)
    taken = _asked_first(batch, torch.tensor([2, 0]), torch.tensor([1, 0]))
    for name in ("sources", "spectra", "warped", "query", "label"):
        found, given = getattr(taken, name), getattr(batch, name)
        assert torch.equal(found[0], given[2].flip(0)) and torch.equal(found[1], given[0])
    assert torch.equal(taken.spectrum[0], batch.spectrum[2])
    torch.testing.assert_close(taken.spectra.sum(1), taken.spectrum)


def test_the_mixtures_of_a_step_depend_on_seed_and_step_alone(parts):
    first, again = make(parts), make(parts)
    first.chosen(3)
    batch, hard = first.chosen(5)
    other, _ = again.chosen(5)
    assert torch.equal(batch.sources, other.sources) and batch.sources.shape[0] == 4
    assert 0 <= hard <= 1
    assert not torch.equal(first.chosen(6)[0].sources, batch.sources)


def test_mixtures_come_as_they_are_drawn_without_a_share(parts):
    task = make(parts, pool=2, hard=None)
    batch, _ = task.chosen(3)
    assert torch.equal(batch.sources, task.drawn(6).sources)


def test_pass_2_learns_more_than_pass_1_knows(parts):
    task = make(parts, first=0.0, keep=0.1, pool=2, hard=0.5)
    values = [task.train_step(step, 0.3) for step in range(40)]
    assert values[0]["reflect/bce_gain"] == values[0]["reflect/kept"] == 0
    gain = [row["reflect/bce_gain"] for row in values]
    assert sum(gain[-10:]) / 10 > 0.02
    assert {"bce", "reflect/hard", "reflect/worse", "reflect/si_sdr_loss"} <= values[0].keys()


def test_a_network_with_one_pass_is_refused(parts):
    with pytest.raises(OptionError, match="add network"):
        make(parts, network=False)
