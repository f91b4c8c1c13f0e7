"""How far a sound that was found speaks for what was asked."""

import math

import torch
from torch.nn.functional import normalize

from sep.presence import LESS, MORE, SCORES, evidence

KNOWN = torch.eye(4)


def test_a_sound_counts_as_far_as_it_is_like_the_query_by_hand():
    low, high = SCORES
    found = torch.tensor([0.8, 0.6, 0, 0])  # mean .35, variance (.64 + .36) / 4 - .35^2 = .1275
    for level in (0.8, 0.5, 0.2):
        asked = torch.tensor([level / 0.8, 0, math.sqrt(1 - (level / 0.8) ** 2), 0])
        score = (level - 0.35) / math.sqrt(0.1275)
        part = min(max((score - low) / (high - low), 0.0), 1.0)
        wanted = torch.tensor(part * MORE - (1 - part) * LESS)
        torch.testing.assert_close(evidence(found, asked, KNOWN), wanted)
    assert evidence(found, KNOWN[3], KNOWN) == -LESS
    torch.testing.assert_close(evidence(KNOWN[1], KNOWN[1], KNOWN), torch.tensor(MORE))


def test_what_an_encoder_finds_alike_in_all_sounds_does_not_count():
    torch.manual_seed(0)
    known, found, asked = torch.randn(9, 16), torch.randn(5, 16), torch.randn(5, 16)
    plain = evidence(normalize(found, dim=-1), normalize(asked, dim=-1), known)
    assert plain.unique().numel() > 2  # some between the ends
    # the same with 1 added to all cosines, and with a third of them
    wider = torch.eye(16, 17)
    common = torch.tensor([0.0] * 16 + [1.0])
    found, asked = (normalize(x, dim=-1) @ wider + common for x in (found, asked))
    known = known @ wider + common
    torch.testing.assert_close(evidence(found, asked, known), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(evidence(found / 3, asked, known), plain, atol=1e-5, rtol=0)


def test_silence_scores_0():
    low, high = SCORES
    silent = evidence(torch.zeros(2, 3, 4), KNOWN[:3], KNOWN)
    wanted = -LESS - (LESS + MORE) * low / (high - low)
    torch.testing.assert_close(silent, torch.full((2, 3), wanted))
