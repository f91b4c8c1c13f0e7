"""Levels against hand-computed ones and the standard's reference tone."""

import math

import pytest
import torch

from sep.level import Level, k_filter


def level(wave: torch.Tensor, rate: int = 48_000, block: int = 7_001) -> Level:
    measured = Level(len(wave), rate)
    for part in wave.split(block, -1):
        measured.push(part)
    return measured


def test_peak_rms_and_clipping_by_hand():
    measured = level(torch.tensor([[0.5, -1.0, 0.5, 0.0], [0.5, 1.0, 0.5, 0.0]]), block=3)
    assert (measured.peak_db, measured.clipped) == (0.0, 2)
    assert measured.rms_db == pytest.approx(10 * math.log10((4 * 0.25 + 2) / 8))
    assert math.isnan(measured.loudness)  # too short to say


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_full_scale_sine_of_997_hz_has_the_loudness_of_the_standard(rate):
    time = torch.arange(5 * rate) / rate
    sine = torch.sin(2 * torch.pi * 997 * time)[None]
    assert level(sine, rate).loudness == pytest.approx(-3.01, abs=0.05)
    # Silence is gated: a second of it changes nothing; a second channel adds 3 dB.
    padded = torch.cat([sine, torch.zeros(1, rate)], -1)
    assert level(padded, rate).loudness == pytest.approx(-3.01, abs=0.25)
    assert level(sine.repeat(2, 1), rate).loudness == pytest.approx(0.0, abs=0.05)


def test_the_filter_has_the_coefficients_of_the_standard_at_48_khz():
    (shelf, shelf_a), (high, high_a) = k_filter(48_000)
    assert shelf == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285])
    assert shelf_a == pytest.approx([1, -1.69065929318241, 0.73248077421585])
    assert high == pytest.approx([1, -2, 1])
    assert high_a == pytest.approx([1, -1.99004745483398, 0.99007225036621])


def test_silence_has_no_level():
    measured = level(torch.zeros(1, 48_000))
    assert measured.peak_db == measured.rms_db == measured.loudness == -math.inf
