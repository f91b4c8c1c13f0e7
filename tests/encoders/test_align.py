"""The alignment losses against cases worked out by hand, and an alignment that must learn."""

import math

import pytest
import torch
from toys import tone

import encoders
from encoders.align import consistency, info_nce, rank, soft_labels, soft_nce, triplet
from encoders.aligner import AlignConfig, Aligner, Stage
from encoders.anchor import FusedAnchor
from encoders.bank import ClipBank
from encoders.probe import auc, embed_bank, recall, snr_curve, zero_shot


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


def test_triplet_takes_the_hardest_negative_of_another_class():
    anchor = torch.eye(3)
    positive = torch.tensor([[0.8, 0.6, 0.0], [0.6, 0.8, 0.0], [0.9, 0.1, 0.0]])
    labels = torch.tensor([0, 1, 0])  # row 2 is no negative of row 0, though it is the nearest
    # Rows: .2 - .8 + .6 = 0; .2 - .8 + .6 = 0; .2 - 0 + 0 = .2. With a margin of .3, .1 + .1 + .3.
    assert triplet(anchor, positive, labels, labels, 0.2).item() == pytest.approx(0.2 / 3)
    assert triplet(anchor, positive, labels, labels, 0.3).item() == pytest.approx(0.5 / 3)
    alone = torch.zeros(3, dtype=torch.long)
    assert triplet(anchor, positive, alone, alone).item() == 0


def test_rank_asks_for_a_rise_in_proportion_to_the_snr():
    cosine, other = torch.tensor([0.1, 0.3, 0.2, 0.0]), torch.tensor([0.3, 0.2, 0.2, 0.1])
    one_db, two_db = torch.tensor([0.0, 5.0, 0.0, -20.0]), torch.tensor([10.0, 0.0, 4.0, 20.0])
    # Rises of .2, .1, 0 and .1 against margins of .1, .05, .04 and .2 (20 dB at most).
    expected = (0 + 0 + 0.04 + 0.1) / 4
    assert rank(cosine, other, one_db, two_db).item() == pytest.approx(expected)
    assert rank(other, cosine, two_db, one_db).item() == pytest.approx(expected)
    # The wrong way round: a fall of .2 where .1 is asked for.
    assert rank(cosine[:1], other[:1], two_db[:1], one_db[:1]).item() == pytest.approx(0.3)


def test_consistency_is_the_mean_cosine_distance():
    a, b = torch.eye(2), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    assert consistency(a, b).item() == pytest.approx(0.2)


def test_the_untrained_anchor_is_the_mean_and_gamma_adds_the_product():
    torch.manual_seed(0)
    anchor = FusedAnchor(4, rank=2)
    a, t, v = torch.nn.functional.normalize(torch.randn(3, 5, 4), dim=-1)
    assert torch.allclose(anchor(a), a, atol=1e-6)
    mean = torch.nn.functional.normalize(a + t + v, dim=-1)
    assert torch.allclose(anchor(a, t, v), mean, atol=1e-6)
    torch.nn.init.ones_(anchor.gamma)
    parts = [anchor.into[kind](x) for kind, x in (("audio", a), ("text", t), ("image", v))]
    product = parts[0] * parts[1] * parts[2] @ anchor.out.weight.T
    expected = torch.nn.functional.normalize((a + t + v) / 3 + product, dim=-1)
    assert torch.allclose(anchor(a, t, v), expected, atol=1e-6)
    without = torch.nn.functional.normalize(
        (a + t) / 2 + parts[0] * parts[1] @ anchor.out.weight.T, dim=-1
    )
    assert torch.allclose(anchor(a, text=t), without, atol=1e-6)
    with pytest.raises(ValueError, match="needs a sound"):
        anchor()


def test_retrieval_scores_count_hits():
    audio = torch.eye(3)
    text = torch.eye(3)[[1, 0, 2]]
    label = torch.tensor([1, 0, 0])
    assert zero_shot(audio, text, label) == pytest.approx(2 / 3)
    assert recall(audio, text, label, torch.tensor([0, 1, 0])) == [1.0]
    # Sound 1 finds its class second, sound 2 has no other of its class and is not counted.
    near = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.9, 0.1]]), dim=1)
    own = torch.tensor([0, 0, 1])
    assert recall(near, near, own, own, (1, 2)) == [0.0, 1.0]
    assert math.isnan(recall(near[:1], near[:1], own[:1], own[2:])[0])


def test_auc_counts_ordered_pairs():
    assert auc(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0, 2.0])) == pytest.approx(4.5 / 6)


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
    aligner = Aligner(encoder, toy_bank, named, None, AlignConfig(batch=16, **settings))
    aligner.begin(Stage("text", steps=30, lr=3e-3, text_lr=1e-3, audio=0.5))
    losses = [aligner.step()["loss"] for _ in range(30)]
    aligner.finish()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    text = encoder.embed_text(toy_bank.classes)
    audio = embed_bank(encoder, toy_bank, encoder.window)
    assert zero_shot(audio, text, toy_bank.label) > 0.7
    curve = snr_curve(encoder, toy_bank, text, encoder.window, mixtures=24, snrs_db=(-20, 0, 20))
    assert curve["snr_-20"] < curve["snr_+20"]
    assert curve["gap"] > 0 and curve["auc"] > 0.5
    assert curve["gap_interferer"] > curve["gap"] and curve["auc_interferer"] > curve["auc"]
    assert 0.5 < curve["rising"] <= 1 and 0.5 < curve["monotone"] <= 1


def test_the_same_seed_gives_the_same_batches_and_losses(toy_bank):
    named = [[name] for name in toy_bank.classes]
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = encoders.get("small", dim=32, mels=32, hop=640, window_s=0.512)
        config = AlignConfig(batch=8, crop_s=0.512, seed=3)
        aligner = Aligner(encoder, toy_bank, named, None, config)
        aligner.begin(Stage("text", steps=2))
        losses.append([aligner.step()["loss"] for _ in range(2)])
    assert losses[0] == losses[1]


def _later_stage(toy_bank, **weights):
    """An aligner with two pictures of two of the three classes, about to take a step."""
    torch.manual_seed(0)
    encoder = encoders.get("small", dim=32, mels=32, hop=640, window_s=0.512)
    encoder.class_text.normal_()  # stands for the names of the ImageNet classes
    images = (torch.randn(4, 1280), torch.rand(4, 1000)), torch.tensor([0, 0, 2, 2])
    config = AlignConfig(batch=12, crop_s=0.512)
    aligner = Aligner(encoder, toy_bank, [[name] for name in toy_bank.classes], images, config)
    aligner.begin(Stage("later", steps=2, **weights))
    return aligner


def _moved(aligner) -> set[str]:
    before = {k: v.clone() for k, v in aligner.encoder.state_dict().items()}
    aligner.step()
    after = aligner.encoder.state_dict()
    return {k.split(".")[0] for k in after if not torch.equal(before[k], after[k])}


def test_the_audio_stage_keeps_the_texts_where_they_are(toy_bank):
    aligner = _later_stage(toy_bank, audio=0.5, triplet=0.5, consistency=0.5)
    assert _moved(aligner) == {"audio", "logit_scale"}
    assert set(aligner.losses(aligner.batch())) == {"text", "audio", "triplet", "consistency"}


def test_the_image_stage_moves_pictures_and_anchor(toy_bank):
    aligner = _later_stage(toy_bank, image=0.5, image_triplet=0.5, anchor=0.5)
    assert _moved(aligner) == {"audio", "logit_scale", "image_head", "anchor"}
    names = {"text", "image", "image_triplet", "anchor"}
    assert set(aligner.losses(aligner.batch())) == names


def test_second_views_are_cuts_of_the_same_recordings(toy_bank):
    aligner = _later_stage(toy_bank, consistency=1.0)
    drawn = []
    segments = toy_bank.segments
    toy_bank.segments = lambda index, *rest: (drawn.append(index), segments(index, *rest))[1]
    try:
        batch = aligner.batch()
    finally:
        del toy_bank.segments
    pairs = batch.pairs
    assert batch.views == pairs == 3 and len(batch.patch) == 12
    assert torch.equal(drawn[0][:pairs], drawn[0][2 * pairs : 3 * pairs])
    lone = batch.labels[: 3 * pairs]
    assert torch.equal(lone.amax(1), torch.ones(3 * pairs))  # no second source in any of them


def test_twins_are_the_same_two_sounds_at_other_levels(toy_bank):
    aligner = _later_stage(toy_bank, rank=1.0)
    batch = aligner.batch()
    assert batch.twins == 3 and len(batch.patch) == 12
    for field in (batch.first, batch.second):
        assert torch.equal(field[-6:-3], field[-3:])
    step_db = (batch.snr_db[-6:-3] - batch.snr_db[-3:]).abs()
    assert (step_db > 0).all() and torch.isinf(batch.snr_db[:-6]).all()
    assert "rank" in aligner.losses(batch)


def test_alignment_refuses_one_class_and_missing_wordings(toy_bank):
    encoder = encoders.get("small", dim=32, mels=32, hop=640, window_s=0.512)
    lone = ClipBank([tone(200, 0.5)], ["hum"])
    with pytest.raises(encoders.EncoderError, match="two classes"):
        Aligner(encoder, lone, [["hum"]], None, AlignConfig())
    with pytest.raises(encoders.EncoderError, match="wording"):
        Aligner(encoder, toy_bank, [["hum"], [], ["ping"]], None, AlignConfig())
