"""Whether what was found is what was asked."""

import math

import torch
from torch.nn.functional import normalize

from sep.presence import SCORES, presence

KNOWN = torch.eye(4)


def test_a_sound_is_there_as_far_as_it_is_like_the_query_by_hand():
    low, high = SCORES
    found = torch.tensor([0.8, 0.6, 0, 0])  # mean .35, variance (.64 + .36) / 4 - .35^2 = .1275
    for level in (0.8, 0.5, 0.2, -0.3):
        asked = torch.tensor([level / 0.8, 0, math.sqrt(1 - (level / 0.8) ** 2), 0])
        score = (level - 0.35) / math.sqrt(0.1275)
        wanted = min(max((score - low) / (high - low), 0.0), 1.0)
        torch.testing.assert_close(presence(found, asked, KNOWN), torch.tensor(wanted))
    assert presence(found, KNOWN[3], KNOWN) == 0 and presence(KNOWN[1], KNOWN[1], KNOWN) == 1


def test_what_an_encoder_finds_alike_in_all_sounds_does_not_count():
    torch.manual_seed(0)
    known, found, asked = torch.randn(9, 16), torch.randn(5, 16), torch.randn(5, 16)
    plain = presence(normalize(found, dim=-1), normalize(asked, dim=-1), known)
    # the same with an offset of all cosines, .5, and a scale of them, 1/3
    common = torch.zeros(5, 17)
    common[:, 16] = 1
    found, asked = (normalize(x, dim=-1) @ torch.eye(16, 17) + common for x in (found, asked))
    known = torch.cat([known, torch.ones(9, 1)], 1)
    torch.testing.assert_close(presence(found, asked, known), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(presence(found / 3, asked, known), plain, atol=1e-5, rtol=0)
    assert 0 < plain.min() < 1 or 0 < plain.max() < 1


def test_silence_is_neither_there_nor_known_not_to_be():
    low, high = SCORES
    silent = presence(torch.zeros(2, 3, 4), KNOWN[:3], KNOWN)
    torch.testing.assert_close(silent, torch.full((2, 3), -low / (high - low)))
