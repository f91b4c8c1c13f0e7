"""The alignment losses against cases worked out by hand, and an alignment that must learn."""

import math

import pytest
import torch
from toys import tone

import encoders
from encoders.align import info_nce, soft_labels, soft_nce
from encoders.aligner import AlignConfig, Aligner
from encoders.bank import ClipBank
from encoders.probe import embed_bank, recall_at_1, same_class_recall, snr_curve, zero_shot


def test_info_nce_of_two_pairs_is_the_hand_computed_value():
    a = torch.eye(2)
    b = torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    # S = 2 [[.6, .8], [.8, .6]]: both directions ln(e^1.2 + e^1.6) - 1.2.
    expected = math.log(math.exp(1.2) + math.exp(1.6)) - 1.2
    assert info_nce(a, b, torch.tensor([0, 1]), 2.0).item() == pytest.approx(expected, abs=1e-6)


def test_info_nce_ignores_false_negatives_of_the_same_class():
    torch.manual_seed(0)
    a, b = torch.nn.functional.normalize(torch.randn(2, 3, 4), dim=-1)
    two = info_nce(a[:2], b[:2], torch.tensor([0, 1]), 5.0)
    labels = torch.tensor([0, 1, 0])
    logits = 5.0 * a @ b.T
    # Row 1 still sees columns 0 and 2; rows 0 and 2 see only 1 beside their own.
    rows = [
        logits[0, [0, 1]].logsumexp(0) - logits[0, 0],
        logits[1].logsumexp(0) - logits[1, 1],
        logits[2, [1, 2]].logsumexp(0) - logits[2, 2],
    ]
    columns = [
        logits[[0, 1], 0].logsumexp(0) - logits[0, 0],
        logits[:, 1].logsumexp(0) - logits[1, 1],
        logits[[1, 2], 2].logsumexp(0) - logits[2, 2],
    ]
    expected = (sum(rows) + sum(columns)) / 6
    assert torch.allclose(info_nce(a, b, labels, 5.0), expected)
    assert info_nce(a, b, torch.zeros(3, dtype=torch.long), 5.0).item() == 0
    assert two > 0


def test_soft_labels_are_the_energy_shares_and_infinite_snr_is_a_lone_sound():
    labels = soft_labels(
        torch.tensor([0, 2, 1]),
        torch.tensor([1, 0, 2]),
        torch.tensor([0.0, 10.0, math.inf]),
        3,
    )
    expected = torch.tensor([[0.5, 0.5, 0.0], [1 / 11, 0.0, 10 / 11], [0.0, 1.0, 0.0]])
    assert torch.allclose(labels, expected, atol=1e-6)


def test_soft_nce_of_graded_labels_is_the_hand_computed_value():
    logits = torch.tensor([[1.0, 0.0]])
    affinity = torch.tensor([[0.75, 0.25]])
    # Row: ln(e + 1) - .75. Columns: one row each, so softmax over rows is 1 and the loss 0.
    expected = (math.log(math.e + 1) - 0.75) / 2
    assert soft_nce(logits, affinity).item() == pytest.approx(expected, abs=1e-6)


def test_soft_nce_with_one_hot_labels_is_the_clip_loss():
    torch.manual_seed(0)
    logits = torch.randn(4, 4)
    index = torch.arange(4)
    expected = (
        torch.nn.functional.cross_entropy(logits, index)
        + torch.nn.functional.cross_entropy(logits.T, index)
    ) / 2
    assert torch.allclose(soft_nce(logits, torch.eye(4)), expected)


def test_retrieval_scores_count_hits():
    audio = torch.eye(3)
    text = torch.eye(3)[[1, 0, 2]]
    label = torch.tensor([1, 0, 0])
    assert zero_shot(audio, text, label) == pytest.approx(2 / 3)
    assert recall_at_1(audio, text, [0, 1, 0], torch.tensor([1, 0, 0])) == 1.0
    near = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert same_class_recall(near, torch.tensor([0, 0, 1])) == 1.0


@pytest.fixture(scope="module")
def toy_bank():
    """Three classes that differ in pitch and in timbre."""
    generator = torch.Generator().manual_seed(0)
    waves, labels = [], []
    for label, pitch, harmonics, decay in (("hum", 110, 8, 0), ("ping", 1800, 1, 6)):
        for _ in range(4):
            shift = 1 + 0.2 * float(torch.rand((), generator=generator))
            waves.append(tone(pitch * shift, 1.0, harmonics, decay))
            labels.append(label)
    for _ in range(4):
        waves.append(0.2 * torch.randn(16_000, generator=generator))
        labels.append("hiss")
    return ClipBank(waves, labels)


def test_a_short_alignment_learns_a_toy_task(toy_bank):
    torch.manual_seed(0)
    encoder = encoders.get("small", dim=32, mels=64, hop=320, window_s=0.512)
    texts = {"hum": "a low humming engine", "ping": "a bell ringing", "hiss": "escaping steam"}
    named = [[texts[name], name] for name in toy_bank.classes]
    encoder.fit_text([text for pair in named for text in pair])
    settings = {"crop_s": 0.512, "masked": 0.0, "speed": 0.0, "stripes": 0.0}
    config = AlignConfig(steps=30, batch=16, lr=3e-3, text_lr=1e-3, **settings)
    aligner = Aligner(encoder, toy_bank, named, None, config)
    losses = [aligner.step()["loss"] for _ in range(config.steps)]
    aligner.finish()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    text = encoder.embed_text(toy_bank.classes)
    audio = embed_bank(encoder, toy_bank, encoder.window)
    assert zero_shot(audio, text, toy_bank.label) > 0.7
    curve = snr_curve(encoder, toy_bank, text, encoder.window, mixtures=24, snrs_db=(-20, 0, 20))
    assert curve["snr_-20"] < curve["snr_+20"]
    assert curve["gap"] > 0


def test_the_same_seed_gives_the_same_batches_and_losses(toy_bank):
    named = [[name] for name in toy_bank.classes]
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = encoders.get("small", dim=32, mels=32, hop=640, window_s=0.512)
        aligner = Aligner(
            encoder, toy_bank, named, None, AlignConfig(steps=2, batch=8, crop_s=0.512, seed=3)
        )
        losses.append([aligner.step()["loss"] for _ in range(2)])
    assert losses[0] == losses[1]


def test_alignment_refuses_one_class_and_missing_wordings(toy_bank):
    encoder = encoders.get("small", dim=32, mels=32, hop=640, window_s=0.512)
    lone = ClipBank([tone(200, 0.5)], ["hum"])
    with pytest.raises(encoders.EncoderError, match="two classes"):
        Aligner(encoder, lone, [["hum"]], None, AlignConfig())
    with pytest.raises(encoders.EncoderError, match="wording"):
        Aligner(encoder, toy_bank, [["hum"], [], ["ping"]], None, AlignConfig())
