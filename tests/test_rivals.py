"""What a separator knows beside what it is asked for."""

import pytest
import torch

from encoders import get
from sep import feedback, hub, rivals
from sep.model import QueryNet

MAPS = 3


def column(*values: float) -> torch.Tensor:
    """One frame of rows of these values, each as often as is looked at one: (1, 1, H, 1)."""
    rows = torch.tensor(values, dtype=torch.float32).repeat_interleave(rivals.ROWS)
    return rows.view(1, 1, -1, 1)


def test_what_answers_where_the_query_does_not_is_taken_away_by_hand():
    maps = torch.cat([column(4, -4), column(-1, 3)], 1)
    known = torch.eye(2)  # the first class is what is asked for, the second contradicts it
    found = rivals.against(column(4, -4), maps, known, torch.zeros(1))
    # a quarter of the rival: 3/4 (4, -4) - 1/4 (-1, 3); the mask's mean is 1/2, so it is heard
    torch.testing.assert_close(found, column(3.25, -3.75), atol=1e-5, rtol=0)
    opposite = torch.cat([column(4, -4), column(-4, 4)], 1)  # masks that add up to 1
    found = rivals.against(column(4, -4), opposite, known, torch.zeros(1))
    torch.testing.assert_close(found, column(4, -4), atol=1e-5, rtol=0)


def test_rivals_count_as_far_as_the_query_is_heard():
    maps, known = column(-3, 1), torch.ones(1, 1)
    silent = column(-6, -6)
    assert torch.equal(rivals.against(silent, maps, known, torch.zeros(1)), silent)
    # the mean of the mask lies in the middle of HEARD, so that half of SHARE counts
    half = torch.tensor(0.275).logit()
    logits = half.expand(1, 1, 2 * rivals.ROWS, 1)
    wanted = 0.875 * logits - 0.125 * (maps + 2)  # the bias is the class's, too
    torch.testing.assert_close(rivals.against(logits, maps, known, torch.tensor([2.0])), wanted)


@torch.no_grad()
def test_rivals_are_of_the_moment_and_do_not_turn_on_where_a_recording_is_cut():
    torch.manual_seed(0)
    maps, known = 3 * torch.randn(2, MAPS, 8, 600), torch.randn(40, MAPS)
    logits, bias = 2 * torch.randn(2, 2, 8, 600), torch.tensor([0.3])
    whole = rivals.against(logits, maps, known, bias)
    reach = rivals.FRAMES // 2
    part = rivals.against(logits[..., 200:500], maps[..., 200:500], known, bias)
    inner = slice(reach, 300 - reach)
    torch.testing.assert_close(part[..., inner], whole[..., 200:500][..., inner])
    one = rivals.against(logits[:1, 1:], maps[:1], known, bias)  # neither on the other queries
    torch.testing.assert_close(one[0, 0], whole[0, 1])


@pytest.mark.parametrize("kind", ["query", "prior", "reflect", "trace", "turns", "confident"])
@torch.no_grad()
def test_refined_queries_meet_the_rivals_that_the_memory_holds(kind):
    torch.manual_seed(0)
    encoder = get("small")
    options = {"width": 2, "levels": 5, "mask_channels": MAPS, "embed_dim": encoder.dim}
    plain = QueryNet(**options).eval()
    plain.amp = False
    model = hub.extend(plain, "query", recall={"count": 4, "beta": 7.0})
    model.recall.known.copy_(encoder.embed_text(["a dog", "rain", "a bell", "a train"]))
    model = hub.extend(model, kind).eval()
    model.amp = False
    magnitude = torch.rand(1, 513, 64)
    maps, query = model.maps(magnitude), encoder.embed_text(["a cat"])[None]
    logits = model.combine(maps, query)
    changed = model.against_rivals(logits, maps)
    assert changed.shape == logits.shape and not torch.allclose(changed, logits)
    assert torch.equal(plain.against_rivals(logits, plain.maps(magnitude)), logits)  # no memory
    wave = 0.1 * torch.randn(1, 20_000)
    maps, silence = model.maps(model.spectrogram.stft(wave).abs()), torch.zeros(1, 1, encoder.dim)
    wanted = model.combine(maps, model.in_context(query, silence))
    wanted = model.against_rivals(wanted, maps)
    wanted = wanted + model.evidence(torch.zeros_like(query), query)[..., None, None]
    found = feedback.logits(model, Deaf(encoder.window), wave, query)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


class Deaf:
    """An encoder to which all sound is silence, so that queries stay what they are."""

    sample_rate, dim = 16_000, 256

    def __init__(self, window: int):
        self.window = window

    def embed_audio(self, waves: torch.Tensor, sample_rate: int) -> torch.Tensor:
        return torch.zeros(len(waves), self.dim)
