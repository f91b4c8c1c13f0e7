"""The held-out judge: what it says, that it learns, and what it refuses."""

import pytest
import torch
from toys import tone

from encoders import EncoderError
from encoders.bank import ClipBank
from encoders.judge import Judge
from encoders.judging import JudgeConfig, JudgeTrainer, accuracy

RATE = 16_000


@pytest.fixture(scope="module")
def bank():
    hums = [tone(100 + 10 * i, 1.5, harmonics=8) for i in range(4)]
    pings = [tone(2000 + 100 * i, 1.5, decay=3) for i in range(4)]
    return ClipBank(hums + pings, ["hum"] * 4 + ["ping"] * 4)


def test_a_short_training_learns_a_toy_task(bank):
    trainer = JudgeTrainer(bank, JudgeConfig(steps=40, batch=8))
    for _ in range(40):
        trainer.step()
    judge = trainer.judge.eval()
    scores = accuracy(judge, bank, mixtures=8)
    assert scores["solo"] == 1.0
    assert scores["gap"] > 0
    wave = torch.stack([tone(125, 2.0, harmonics=8), tone(2150, 2.0, decay=3)])
    own = judge.similarity(wave, RATE, ["hum", "ping"])
    other = judge.similarity(wave, RATE, ["ping", "hum"])
    assert (own > other).all()
    assert judge.classify(wave, RATE).tolist() == [0, 1]


def test_similarity_is_a_cosine_and_silence_has_one():
    torch.manual_seed(0)
    judge = Judge(["a", "b"])
    wave = torch.cat([torch.zeros(1, 50_000), 0.1 * torch.randn(1, 50_000)])
    value = judge.similarity(wave, RATE, ["a", "b"])
    assert value.shape == (2,)
    assert (value.abs() <= 1 + 1e-6).all()


def test_hearing_is_embedding_with_a_gradient():
    torch.manual_seed(0)
    judge = Judge(["a", "b"])
    wave = (0.1 * torch.randn(2, 50_000)).requires_grad_()
    heard = judge.hear(wave, RATE)
    torch.testing.assert_close(heard.detach(), judge.embed(wave, RATE))
    assert not judge.embed(wave, RATE).requires_grad
    (heard @ judge.vectors[0]).sum().backward()
    assert wave.grad.abs().amax(-1).min() > 0


def test_save_and_load_give_the_same_judgement(tmp_path):
    torch.manual_seed(0)
    judge = Judge(["a", "b", "c"])
    judge.save(tmp_path / "judge", {"seed": 0})
    loaded = Judge.load(tmp_path / "judge")
    wave = 0.1 * torch.randn(3, 30_000)
    assert loaded.labels == judge.labels
    assert torch.equal(
        loaded.similarity(wave, RATE, ["a", "b", "c"]),
        judge.similarity(wave, RATE, ["a", "b", "c"]),
    )


def test_the_judge_refuses_labels_it_does_not_know_and_nan(tmp_path):
    judge = Judge(["a", "b"])
    with pytest.raises(EncoderError, match="does not know the labels z"):
        judge.similarity(torch.ones(1, 100), RATE, ["z"])
    with pytest.raises(EncoderError, match="as many labels"):
        judge.similarity(torch.ones(2, 100), RATE, ["a"])
    with pytest.raises(EncoderError, match="NaN"):
        judge.classify(torch.full((1, 100), torch.nan), RATE)
    with pytest.raises(EncoderError, match="does not exist"):
        Judge.load(tmp_path)
