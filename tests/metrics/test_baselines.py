"""Baselines: what each of them is worth on mixtures where the answer is known."""

import math

import pytest
import torch

from sep.candidates import TEMPERATURE, VARIANTS
from sep.errors import OptionError
from sep.metrics import baselines
from sep.metrics.sisdr import si_sdr, si_sdr_improvement
from sep.model import QueryNet

RATE, SAMPLES = 16_000, 16_384


class Ear:
    """Hears how much of a sound's energy is below 1 kHz and how much above."""

    def embed_audio(self, wave, sample_rate):
        power = torch.fft.rfft(wave).abs().square()
        above = power[:, SAMPLES // 16 :].sum(-1) / power.sum(-1)
        angle = above * math.pi / 2
        return torch.stack([angle.cos(), angle.sin()], -1)


TONE, CLICKS = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def sounds():
    """A chord and a train of clicks, (1, N) each."""
    time = torch.arange(SAMPLES) / RATE
    chord = sum(0.1 * torch.sin(2 * math.pi * f * time) for f in (330.0, 440.0, 550.0))
    clicks = torch.zeros(SAMPLES)
    clicks[::4_000] = 1.0
    return chord[None], clicks[None]


def case(target, other, query):
    torch.manual_seed(0)
    model = QueryNet(width=2, levels=4, mask_channels=3, embed_dim=2).eval()
    model.amp = False
    sources = torch.stack([target, other], 1)
    query, everything = query.expand(len(target), -1), torch.stack([TONE, CLICKS])
    return baselines.Case(sources.sum(1), sources, query, everything, model, Ear())


@pytest.mark.parametrize("name", list(baselines.BASELINES))
def test_every_baseline_gives_one_sound_a_mixture_and_the_same_again(name):
    chord, clicks = sounds()
    both = case(torch.cat([chord, clicks]), torch.cat([clicks, chord]), TONE)
    method, note = baselines.BASELINES[name]
    with torch.inference_mode():
        estimate = method(both)
        assert torch.equal(method(both), estimate)
    assert estimate.shape == (2, SAMPLES) and estimate.isfinite().all() and note


@pytest.mark.parametrize("name", ["hpss", "nmf"])
def test_the_query_decides_which_part_is_returned(name):
    chord, clicks = sounds()
    for target, other, query in ((chord, clicks, TONE), (clicks, chord, CLICKS)):
        asked = case(target, other, query)
        estimate = baselines.BASELINES[name][0](asked)
        assert si_sdr_improvement(estimate, target, asked.mixture) > 3


def test_the_ideal_binary_mask_takes_the_louder_source_of_every_bin():
    chord, clicks = sounds()
    asked = case(chord, clicks, TONE)
    assert si_sdr(baselines.ideal_binary(asked), chord) > 20
    # one source twice as loud as its copy: |S| = 2/3 |X| is above half everywhere, 1/3 nowhere
    louder = case(2 * chord, chord, TONE)
    torch.testing.assert_close(baselines.ideal_binary(louder), 3 * chord, atol=1e-5, rtol=0)
    assert baselines.ideal_binary(case(chord, 2 * chord, TONE)).abs().max() < 1e-5


def test_the_class_agnostic_mask_is_the_mean_over_queries_whatever_is_asked():
    chord, clicks = sounds()
    asked = case(chord, clicks, TONE)
    with torch.inference_mode():
        found = baselines.agnostic(asked)
        one_by_one = [asked.model.separate(asked.mixture, q[None]) for q in asked.everything]
        torch.testing.assert_close(found, sum(one_by_one) / 2, atol=1e-6, rtol=1e-4)
        assert torch.equal(baselines.agnostic(case(chord, clicks, CLICKS)), found)


def test_candidates_weigh_by_what_the_encoder_hears():
    chord, clicks = sounds()
    asked = case(torch.cat([chord, clicks]), torch.cat([clicks, chord]), TONE)
    grid = asked.model.spectrogram
    with torch.inference_mode():
        spectrum = grid.stft(asked.mixture)
        logits = asked.model.logits(spectrum.abs(), asked.query)
        tried = [grid.istft(spectrum * grid.unwarp(v.mask(logits)), SAMPLES) for v in VARIANTS]
        heard = torch.stack([Ear().embed_audio(part, RATE) @ TONE for part in tried])
        share = torch.exp(heard / TEMPERATURE)
        expected = sum(
            s[:, None] * part for s, part in zip(share / share.sum(0), tried, strict=True)
        )
        torch.testing.assert_close(baselines.blended(asked), expected, atol=1e-6, rtol=1e-4)


def test_silence_gives_silence():
    silence = torch.zeros(1, SAMPLES)
    for name, (method, _) in baselines.BASELINES.items():
        with torch.inference_mode():
            assert not method(case(silence, silence, TONE)).any(), name


def test_an_unknown_baseline_is_refused():
    with pytest.raises(OptionError, match="baseline 'magic' is unknown; use ideal_binary"):
        baselines.check(["hpss", "magic"])
    baselines.check(list(baselines.BASELINES))
