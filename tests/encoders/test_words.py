"""More words for an aligned encoder."""

import pytest
import torch

from encoders.base import EncoderError
from encoders.small import SmallEncoder
from encoders.words import KNOWN, learn_words

KNOWN_TEXTS = [["a dog barking", "dog"], ["rain falling", "rain"], ["a violin", "violin"]]
FURTHER = [["a pooch", "some hound bays"], ["it pours down", "drizzle"], []]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = SmallEncoder(dim=32, mels=32, hop=640, window_s=0.512, pretrained=False)
    made.fit_text([text for texts in KNOWN_TEXTS for text in texts])
    return made


def centres(encoder) -> torch.Tensor:
    means = [encoder.embed_text(texts).mean(0) for texts in KNOWN_TEXTS]
    return torch.nn.functional.normalize(torch.stack(means), dim=-1)


def test_further_words_come_to_their_class_and_known_ones_stay(encoder):
    known = [text for texts in KNOWN_TEXTS for text in texts]
    before, goal = encoder.embed_text(known), centres(encoder)
    words = FURTHER[0] + FURTHER[1]
    aim = goal[[0, 0, 1, 1]]
    far = (encoder.embed_text(words) * aim).sum(-1)
    wave = torch.randn(1, 8192) * 0.1
    heard = encoder.embed_audio(wave, 16_000)
    learn_words(encoder, KNOWN_TEXTS, FURTHER, decay=0.01)
    assert far.max() < 0.9
    assert ((encoder.embed_text(words) * aim).sum(-1) > 0.98).all()
    assert ((encoder.embed_text(known) * before).sum(-1) > 0.99).all()
    assert torch.equal(encoder.embed_audio(wave, 16_000), heard)


def test_the_change_is_the_ridge_solution_counted_by_hand(encoder, monkeypatch):
    """One direction only: D = (w (t - Wx) + (t' - Wx')) / (w x^2 + x'^2 + decay)."""
    monkeypatch.setattr(encoder, "text_features", lambda texts: torch.eye(384)[[0] * len(texts)])
    with torch.no_grad():
        encoder.text_mean.zero_()
        encoder.text_head.weight.zero_()
        encoder.text_head.weight[0, 0], encoder.text_head.weight[1, 0] = 3.0, 4.0
    learn_words(encoder, [["a"]], [["b"]], decay=2.0)
    weight = KNOWN + 1  # both texts are x = e_0, both targets (.6, .8)
    head, target = torch.tensor([3.0, 4.0]), torch.tensor([0.6, 0.8])
    wanted = head + weight * (target - head) / (weight + 2.0)
    torch.testing.assert_close(encoder.text_head.weight[:2, 0], wanted)
    assert not encoder.text_head.weight[:, 1:].any()


def test_a_class_without_a_known_text_is_told(encoder):
    with pytest.raises(EncoderError, match="give each class one"):
        learn_words(encoder, [["a dog"], []], [[], []])
