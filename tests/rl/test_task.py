"""PPO fine-tuning end to end on a tiny separator and its real signal path."""

import copy

import pytest
import torch

from sep.rl import task as task_module
from sep.rl.explore import BinExploration, ReadingExploration, TileExploration
from sep.rl.options import PolicyOptions
from sep.rl.ppo import clipped_surrogate
from sep.rl.reward import Similarity, SiSdrGain, WeightedSum
from sep.rl.task import PolicyTask
from sep.train.log import read_log
from sep.train.loop import run

MIXTURE_GROUP = {"group": "mixture", "group_size": 4, "entropy": 0.0}


def embed(wave, sample_rate):
    """A unit vector of the energies in 16 bands: a real, tiny audio encoder."""
    power = torch.fft.rfft(wave)[:, 1:].abs().square()
    bands = torch.nn.functional.adaptive_avg_pool1d(power[:, None], 16)[:, 0]
    return torch.nn.functional.normalize(torch.log1p(bands), dim=-1)


def make(parts, explore=None, windows=None, teacher=None, **options):
    reward = WeightedSum({"similarity": (1.0, Similarity(embed)), "si_sdr": (1.0, SiSdrGain())})
    return PolicyTask(
        *parts,
        explore or TileExploration((8, 4)),
        reward,
        PolicyOptions(**options),
        windows,
        teacher,
    )


def test_one_update_a_rollout_leaves_the_clip_inert(parts):
    task = make(parts, BinExploration(), lr=1e-2)  # MARS-Sep's own settings but for the rate
    for step in range(3):
        values = task.train_step(step, 0.5)
        assert values["clip_fraction"] == 0
        assert values["ratio_min"] == values["ratio_max"] == 1
        assert values["kl_old"] == pytest.approx(0, abs=1e-6)


def test_four_updates_a_rollout_make_it_act(parts):
    task = make(parts, inner_epochs=4, lr=1e-2, kappa=40.0, **MIXTURE_GROUP)
    values = task.train_step(0, 0.5)
    assert values["clip_fraction"] > 0
    assert values["ratio_max"] > 1 > values["ratio_min"]
    assert values["kl_old"] > 1e-6


@pytest.mark.parametrize(
    "explore", [BinExploration(), TileExploration((8, 4)), ReadingExploration()]
)
def test_the_first_update_sees_the_policy_that_drew_to_the_bit(parts, explore, monkeypatch):
    seen = []

    def kept(log_prob, old_log_prob, *rest):
        seen.append((log_prob.detach().clone(), old_log_prob.clone()))
        return clipped_surrogate(log_prob, old_log_prob, *rest)

    monkeypatch.setattr(task_module, "clipped_surrogate", kept)
    make(parts, explore, inner_epochs=2, lr=1e-2, **MIXTURE_GROUP).train_step(0, 0.5)
    (now, then), (later, still) = seen
    assert torch.equal(now, then) and torch.equal(then, still) and not torch.equal(later, then)


def test_every_diagnostic_is_logged(parts):
    windows = Similarity(embed, window_s=0.128, hop_s=0.064)
    teacher = copy.deepcopy(parts[0]).eval()
    task = make(
        parts, windows=windows, teacher=teacher, windowed=0.5, kl_teacher=0.1, anchor=1.0,
        pathwise=1.0, inner_epochs=2, **MIXTURE_GROUP,
    )  # fmt: skip
    values = task.train_step(0, 0.5)
    assert set(values) >= {
        "reward", "reward/similarity", "reward/si_sdr", "reward/windows", "reward/pathwise",
        "approx_kl", "clip_fraction", "entropy", "ratio_min", "ratio_max", "advantage_spread",
        "dead_groups",
        "gradient_norm", "kl_old", "kl_teacher", "bce", "loss",
    }  # fmt: skip


def test_rewards_rise_when_only_the_reward_is_followed(parts):
    task = make(parts, inner_epochs=2, lr=5e-3, kappa=20.0, kl=0.0, **MIXTURE_GROUP)
    rewards = [task.train_step(step, 0.3)["reward/si_sdr"] for step in range(60)]
    assert sum(rewards[-15:]) / 15 > sum(rewards[:15]) / 15 + 0.05


def test_the_pathwise_term_raises_the_reward_faster_than_scores_alone(parts):
    def last_rewards(pathwise):
        task = make(
            copy.deepcopy(parts), lr=5e-3, kappa=20.0, kl=0.0, pathwise=pathwise, **MIXTURE_GROUP
        )
        return sum(task.train_step(step, 0.3)["reward"] for step in range(24)) / 24

    assert last_rewards(1.0) > last_rewards(0.0) + 0.01


def test_of_a_choice_only_the_best_mask_is_known(parts):
    task = make(parts, choice=True, **MIXTURE_GROUP)
    batch = task._drawn(0)
    masks = torch.rand(len(batch.label), 4, *batch.mixture.shape[1:])
    masks[0] = 0.5  # all alike, so that there is nothing to choose
    total = task.reward(task.listen(batch, masks))[0]
    reward, advantage, values = task.score(batch, masks)
    assert torch.equal(reward[1:].argmax(1), total[1:].argmax(1))
    assert reward[0].tolist() == [1, 1, 1, 1] and reward[1:].sum(1).unique().tolist() == [1]
    assert advantage[0].abs().max() == 0
    best = advantage[1, total[1].argmax()].item()  # one of four: (1 - 1/4) / sqrt(3/16)
    assert best == pytest.approx(3**0.5, rel=1e-4)
    assert values["reward"] == pytest.approx(total.mean().item())  # the log has the score itself


def test_choices_between_readings_raise_what_they_are_made_by(parts):
    task = make(
        parts, ReadingExploration(), choice=True, inner_epochs=2, lr=5e-3, kappa=20.0, kl=0.0,
        **MIXTURE_GROUP,
    )  # fmt: skip
    rewards = [task.train_step(step, 0.3)["reward/si_sdr"] for step in range(60)]
    assert sum(rewards[-15:]) / 15 > sum(rewards[:15]) / 15 + 0.05


def _losses(parts, **options):
    task = make(copy.deepcopy(parts), inner_epochs=2, lr=1e-3, **MIXTURE_GROUP | options)
    return [task.train_step(step, 0.5)["loss"] for step in range(2)]


def test_mechanisms_that_are_off_change_nothing_and_on_change_the_run(parts):
    plain = _losses(parts)
    for off in (
        {"tas": "off", "tas_strength": 9.0, "tas_normalise": True},
        {"kappa_end": None, "entropy_target": None, "ema_decay": 0.1},
        {"replay": 0.0, "replay_pool": 1, "replay_masks": 9, "replay_kl": 9.0, "hint": 0.0},
        {"pathwise": 0.0, "direct": 0.0, "windowed": 0.0, "kl_teacher": 0.0},
        {"anchor": 0.0, "anchor_steps": 0, "target": "binary", "si_sdr": 3.0},
    ):
        assert _losses(parts, **off) == plain
    assert _losses(parts, tas="event", tas_strength=0.0) == pytest.approx(plain, abs=1e-6)
    for on in (
        {"tas": "u"}, {"tas": "event"}, {"ratio": "frame"}, {"kappa_end": 40.0},
        {"entropy": 0.1, "entropy_target": -2.0}, {"anchor_steps": 1},
    ):  # fmt: skip
        assert _losses(parts, **on) != plain


def test_the_direct_gradient_follows_the_reward_without_a_policy(parts):
    task = make(copy.deepcopy(parts), lr=5e-3, direct=1.0, surrogate=0.0, kl=0.0, **MIXTURE_GROUP)
    values = [task.train_step(step, 0.3) for step in range(30)]
    assert "reward" not in values[0]  # no masks were sampled
    reached = [row["reward/direct"] for row in values]
    assert sum(reached[-8:]) / 8 > sum(reached[:8]) / 8 + 0.05


def test_kappa_moves_from_its_start_to_its_end(parts):
    task = make(parts, kappa=10.0, kappa_end=30.0, **MIXTURE_GROUP)
    seen = []
    for progress in (0.0, 0.5, 1.0):
        task.train_step(0, progress)
        seen.append(task.policy.kappa)
    assert seen == [10.0, 20.0, 30.0]


def test_an_entropy_target_pulls_from_both_sides(parts):
    def entropy_after(target):
        task = make(
            copy.deepcopy(parts), BinExploration(), lr=1e-2, surrogate=0.0, kl=0.0, entropy=1.0,
            entropy_target=target,
        )  # fmt: skip
        return [task.train_step(step, 0.5)["entropy"] for step in range(8)]

    start = entropy_after(0.0)[0]
    assert entropy_after(start + 0.1)[-1] > start > entropy_after(start - 0.1)[-1]


def test_batch_norm_keeps_its_statistics(parts):
    before = {k: v.clone() for k, v in parts[0].named_buffers()}
    task = make(parts, anchor=1.0, inner_epochs=2, **MIXTURE_GROUP)
    task.train_step(0, 0.5)
    assert all(torch.equal(v, before[k]) for k, v in task.model.named_buffers())


def test_a_resumed_run_repeats_the_losses(parts, tmp_path):
    settings = {"steps": 6, "best_by": "si_sdri", "say": lambda line: None}
    run(make(copy.deepcopy(parts)), tmp_path / "whole", valid_every=3, **settings)
    first = make(copy.deepcopy(parts))
    step_of = first.train_step

    def stop_at_five(step, progress):
        if step == 4:
            raise KeyboardInterrupt
        return step_of(step, progress)

    first.train_step = stop_at_five
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path / "cut", valid_every=3, **settings)
    run(make(copy.deepcopy(parts)), tmp_path / "cut", valid_every=3, **settings)
    rows = [
        [r for r in read_log(tmp_path / name / "log.csv") if r[1].startswith("train/")]
        for name in ("whole", "cut")
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    "options",
    [
        {"group": "team"},
        {"group": "mixture", "group_size": 1},
        {"group": "batch", "windowed": 0.5},
        {"choice": True},
        {"choice": True, "group": "mixture", "group_size": 4, "pathwise": 1.0},
        {"tas": "group"},
    ],
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="group"):
        PolicyOptions(**options)


def test_a_reading_has_no_hint(parts):
    options = MIXTURE_GROUP | {"replay": 1.0, "hint": 0.3}
    with pytest.raises(ValueError, match="no reading is"):
        make(parts, ReadingExploration(), **options)


def test_a_term_is_added_to_the_loss_and_logged(parts):
    def open_masks(strength):
        def term(update):
            part = torch.sigmoid(update.logits[:, 0]).mean()
            return strength * part, {"open": part.detach()}

        reward = WeightedSum({"si_sdr": (1.0, SiSdrGain())})
        options = PolicyOptions(lr=1e-2)
        task = PolicyTask(*copy.deepcopy(parts), BinExploration(), reward, options, terms=[term])
        return [task.train_step(step, 0.5)["open"] for step in range(8)]

    without, strong = open_masks(0.0), open_masks(100.0)
    assert strong[0] == without[0]
    assert strong[-1] < without[-1] - 0.1
