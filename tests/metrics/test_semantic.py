"""Meaning scores with an encoder and a judge whose answers are known by hand."""

import math

import pytest
import torch

from encoders.judge import Judge
from sep.metrics.semantic import embed, encoder_scores, judge_scores

RATE = 16_000


class Loudness:
    """Embeds a sound by its level alone: the angle in a plane is its mean, in radians."""

    def embed_audio(self, wave, sample_rate):
        assert sample_rate == RATE and bool((wave.abs().amax(-1) > 1e-7).all())
        angle = wave.mean(-1)
        return torch.stack([angle.cos(), angle.sin()], dim=-1)


def test_similarity_and_hits_by_hand():
    level = torch.tensor([0.2, 0.5, 1.5])
    embedding = embed(Loudness(), level[:, None].expand(3, 100), RATE)
    classes = torch.eye(2)  # at angles 0 and pi / 2
    scores = encoder_scores(embedding, classes[[0, 0, 0]], classes, torch.tensor([0, 1, 1]))
    torch.testing.assert_close(scores["encoder_similarity"], level.cos())
    assert scores["encoder_hit"].tolist() == [1, 0, 1]


def test_clips_do_not_depend_on_the_batch():
    wave = torch.rand(21, 50, generator=torch.Generator().manual_seed(0)) + 0.1
    whole = embed(Loudness(), wave, RATE)
    torch.testing.assert_close(whole[17:18], embed(Loudness(), wave[17:18], RATE))


def test_silence_has_no_meaning():
    wave = torch.stack([torch.zeros(100), torch.full((100,), 0.2)])
    embedding = embed(Loudness(), wave, RATE)
    scores = encoder_scores(embedding, torch.eye(2), torch.eye(2), torch.tensor([0, 0]))
    assert [math.isnan(v) for v in scores["encoder_similarity"]] == [True, False]
    assert [math.isnan(v) for v in scores["encoder_hit"]] == [True, False]


def test_the_judges_hits_are_its_own_classes():
    torch.manual_seed(0)
    judge = Judge(["dog", "rain", "bell"], dim=16, width=8)
    wave = 0.1 * torch.randn(4, RATE)
    wave[3] = 0
    guess = [judge.labels[i] for i in judge.classify(wave[:3], RATE)]
    wrong = next(label for label in judge.labels if label != guess[2])
    scores = judge_scores(judge, wave, RATE, [guess[0], guess[1], wrong, "dog"])
    assert scores["judge_hit"][:3].tolist() == [1, 1, 0]
    assert math.isnan(scores["judge_hit"][3]) and math.isnan(scores["judge_similarity"][3])
    expected = judge.similarity(wave[:1], RATE, guess[:1])
    assert float(scores["judge_similarity"][0]) == pytest.approx(float(expected[0]), abs=1e-5)
