"""What a query may mean in a recording."""

import math

import torch
from torch.nn.functional import normalize

from sep.context import LIKENESS, SHARPNESS, in_context

KNOWN = torch.eye(3, 4)  # of four directions, three are classes


def test_a_query_is_drawn_to_what_is_like_it_and_likely_by_hand():
    query = torch.tensor([0.6, 0.5, 0.0, math.sqrt(1 - 0.61)])
    heard = torch.tensor([0.2, 0.8, 0.2, math.sqrt(1 - 0.72)])
    # cosines to the recording .2, .8, .2: mean .4, deviation sqrt(.08); scores -.707, 1.414, -.707
    weight = [math.exp(SHARPNESS * 0.6 - LIKENESS * math.sqrt(0.5)),
              math.exp(SHARPNESS * 0.5 + LIKENESS * math.sqrt(2)),
              math.exp(-LIKENESS * math.sqrt(0.5))]  # fmt: skip
    read = normalize(torch.tensor([*weight, 0.0]), dim=0)
    wanted = normalize(query + read, dim=0)
    torch.testing.assert_close(in_context(query, heard, KNOWN), wanted)
    assert read[1] > read[0]  # the second is less like the query, but it is heard


def test_silence_says_nothing_and_several_queries_share_a_recording():
    torch.manual_seed(0)
    query = normalize(torch.randn(2, 3, 4), dim=-1)
    heard = normalize(torch.randn(2, 1, 4), dim=-1)
    heard[1] = 0
    found = in_context(query, heard, KNOWN)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(found[0, 2], in_context(query[0, 2], heard[0, 0], KNOWN))
    share = torch.softmax(SHARPNESS * query[1] @ KNOWN.T, -1)
    wanted = normalize(query[1] + normalize(share @ KNOWN, dim=-1), dim=-1)
    torch.testing.assert_close(found[1], wanted)


def test_what_an_encoder_finds_alike_in_all_classes_does_not_count():
    query = normalize(torch.tensor([0.7, 0.6, 0.1, 0.2]), dim=0)
    one = in_context(query, torch.tensor([0.1, 0.4, 0.2, 0.0]), KNOWN)
    torch.testing.assert_close(one, in_context(query, torch.tensor([0.3, 0.6, 0.4, 0.0]), KNOWN))
    torch.testing.assert_close(one, in_context(query, torch.tensor([0.05, 0.2, 0.1, 0.0]), KNOWN))
