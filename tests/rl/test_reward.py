"""Rewards on waveforms whose embedding is known."""

import pytest
import torch

from sep.rl.reward import (
    ClassHit,
    ClassSimilarity,
    LevelGuard,
    MaskIoU,
    MaskOverlap,
    Rollout,
    Similarity,
    SiSdrGain,
    WeightedSum,
)

RATE, SAMPLES = 16_000, 4_096
TIME = torch.arange(SAMPLES) / RATE
LOW, HIGH = torch.sin(2 * torch.pi * 250 * TIME), torch.sin(2 * torch.pi * 2_000 * TIME)


def embed(wave, sample_rate):
    """Unit vector (low, high) of the amplitudes at 250 and 2000 Hz: a real, tiny encoder."""
    time = torch.arange(wave.shape[-1]) / sample_rate
    tones = [torch.exp(2j * torch.pi * f * time) for f in (250, 2_000)]
    values = torch.stack([(wave * tone).sum(-1).abs() for tone in tones], -1)
    return torch.nn.functional.normalize(values, dim=-1)


def rollout(*estimates):
    return Rollout(
        estimates=torch.stack(estimates)[None],
        mixture=(LOW + HIGH)[None],
        target=LOW[None],
        query=torch.tensor([[1.0, 0.0]]),
        other=torch.tensor([[0.0, 1.0]]),
        sample_rate=RATE,
        masks=torch.tensor([[[[0.5, 0.0]], [[1.0, 0.2]]]]),
        ideal=torch.tensor([[[1.0, 0.0]]]),
        weight=torch.tensor([[[3.0, 1.0]]]),
        label=torch.tensor([1]),
    )


def test_similarity_is_the_cosine_with_the_query():
    reward = Similarity(embed)(rollout(LOW, HIGH, LOW + HIGH))
    torch.testing.assert_close(reward, torch.tensor([[1.0, 0.0, 0.5**0.5]]), atol=1e-3, rtol=0)


def test_margin_subtracts_the_similarity_with_the_other_query():
    reward = Similarity(embed, margin=0.5)(rollout(LOW, HIGH))
    torch.testing.assert_close(reward, torch.tensor([[1.0, -0.5]]), atol=1e-3, rtol=0)


def test_normalised_reward_is_zero_for_the_mixture_and_one_for_the_target():
    reward = Similarity(embed, margin=0.5, normalise=True)(rollout(LOW, LOW + HIGH))
    torch.testing.assert_close(reward, torch.tensor([[1.0, 0.0]]), atol=1e-4, rtol=0)


def test_fused_anchor_is_the_mean_of_query_and_clean_target():
    values = rollout(LOW)
    values.query = torch.tensor([[0.0, 1.0]])  # fused with the target's (1, 0): at 45 degrees
    assert Similarity(embed, fuse=True)(values).item() == pytest.approx(0.5**0.5, abs=1e-3)


def test_a_trained_anchor_gets_the_clean_target_and_the_query():
    values = rollout(LOW)
    values.query = torch.tensor([[0.0, 1.0]])
    weigh = torch.tensor([0.8, 0.6])  # 0.8 of the target's (1, 0), 0.6 of the query's (0, 1)
    reward = Similarity(
        embed, fuse=True, anchor=lambda clean, own: weigh[0] * clean + weigh[1] * own
    )
    assert reward(values).item() == pytest.approx(0.8, abs=1e-3)


def test_a_critic_knows_the_class_and_not_the_query():
    # the label is 1, whose vector is (1, 0): the mixture, at 45 degrees, scores 0 and LOW scores 1
    vectors = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    values = rollout(LOW, LOW + HIGH, HIGH)
    values.query = torch.tensor([[0.0, 1.0]])
    reward = ClassSimilarity(embed, vectors)(values)
    low = 0.5**0.5
    torch.testing.assert_close(
        reward, torch.tensor([[1.0, 0.0, -low / (1 - low)]]), atol=1e-2, rtol=0
    )
    plain = ClassSimilarity(embed, vectors, normalise=False)(values)
    torch.testing.assert_close(plain, torch.tensor([[1.0, low, 0.0]]), atol=1e-2, rtol=0)


def test_windows_score_each_stretch_by_itself():
    half = SAMPLES // 2
    switched = torch.cat([LOW[:half], HIGH[half:]])
    reward = Similarity(embed, window_s=half / RATE, hop_s=half / RATE)(rollout(switched))
    torch.testing.assert_close(reward, torch.tensor([[[1.0, 0.0]]]), atol=1e-2, rtol=0)


def test_silence_gets_a_finite_reward():
    values = rollout(torch.zeros(SAMPLES))
    assert torch.isfinite(Similarity(embed)(values)).all()
    assert SiSdrGain()(values).item() == 0


def test_si_sdr_gain_by_hand():
    # the mixture holds target and interferer at equal power: 0 dB; a tenth of the interferer's
    # amplitude is left: 20 dB, so the gain is 2 in units of 10 dB
    assert SiSdrGain()(rollout(LOW + 0.1 * HIGH)).item() == pytest.approx(2.0, abs=0.01)


def test_weighted_sum_logs_its_parts_before_weighting():
    total, parts = WeightedSum({"one": (2.0, Similarity(embed)), "two": (0.5, SiSdrGain())})(
        rollout(LOW + 0.1 * HIGH)
    )
    assert total.item() == pytest.approx(2 * parts["one"].item() + 0.5 * parts["two"].item())


def test_iou_by_hand():
    # 3 x .5 / 3 x 1, and 3 x 1 / (3 x 1 + 1 x .2)
    reward = MaskIoU()(rollout(LOW, HIGH))
    torch.testing.assert_close(reward, torch.tensor([[0.5, 3 / 3.2]]))


def test_the_level_guard_refuses_empty_and_full_masks():
    quiet, half, whole = 0.1 * LOW, LOW, LOW + HIGH  # 0.5 %, 50 % and all of the energy
    assert LevelGuard()(rollout(quiet, half, whole)).tolist() == [[0.0, 1.0, 0.0]]


def test_a_class_is_hit_where_its_text_is_nearest():
    text = torch.eye(2).flip(0)  # class 0 is the high tone, class 1 the low one
    reward = ClassHit(embed, text)(rollout(LOW + 0.2 * HIGH, HIGH))
    assert reward.tolist() == [[1.0, 0.0]]  # the target is of class 1


def test_overlap_is_the_published_blend():
    # ideal (1, 0), weights 3 and 1: mask (.5, 0) has J 1.5 / 3, Dice 3 / 3.75, hard IoU 0 / 3
    # and mask (1, .2) has J 3 / 3.2, Dice 6 / 6.04, hard IoU 3 / 3
    found = MaskOverlap()(rollout(LOW, LOW))
    second = 0.5 * 3 / 3.2 + 0.2 * 6 / 6.04 + 0.3
    torch.testing.assert_close(found, torch.tensor([[0.25 + 0.2 * 0.8, second]]))


def test_waveforms_are_embedded_a_few_at_a_time():
    counts = []

    def counted(wave, sample_rate):
        counts.append(len(wave))
        return embed(wave, sample_rate)

    reward = Similarity(counted)
    whole = reward(rollout(*[LOW, HIGH] * 4))
    reward.at_once_cpu = 3
    torch.testing.assert_close(reward(rollout(*[LOW, HIGH] * 4)), whole)
    assert counts == [8, 3, 3, 2]


def test_windows_cover_the_end_of_the_clip():
    size_s = 1024 / RATE
    values = rollout(LOW)
    values.estimates = values.estimates[..., :-1]  # one sample short of four windows
    reward = Similarity(embed, window_s=size_s, hop_s=size_s)(values)
    assert reward.shape == (1, 1, 4)
    torch.testing.assert_close(reward, torch.ones(1, 1, 4), atol=2e-2, rtol=0)
    values.estimates = values.estimates[..., :500]  # shorter than a window
    assert Similarity(embed, window_s=size_s, hop_s=size_s)(values).shape == (1, 1, 1)


def test_a_silent_target_gives_no_gain_and_no_gradient():
    values = rollout(LOW, HIGH)
    values.target = torch.zeros(1, SAMPLES)
    values.estimates.requires_grad_()
    reward = SiSdrGain()(values)
    reward.sum().backward()
    assert reward.abs().max() == 0 and values.estimates.grad.isfinite().all()
