"""Test mixtures under other conditions."""

import pytest
import torch

from sep.data.mixing import active_rms
from sep.metrics.conditions import Conditions
from sep.metrics.sisdr import si_sdr

NAMES = ["bell", "dog", "rain", "wind"]
LABELS = [["bell", "dog"], ["rain", "wind"], ["dog", "rain"]]
NEAR = torch.tensor([[3, 1, 2], [0, 2, 3], [3, 0, 1], [2, 0, 1]])  # bell-wind, dog-bell, rain-wind


@pytest.fixture
def made() -> Conditions:
    noise = torch.randn(3, 2, 16_000, generator=torch.Generator().manual_seed(0))
    return Conditions(0.1 * noise * torch.tensor([1.0, 0.5])[:, None], LABELS, NAMES, NEAR)


def test_the_table_has_every_condition_and_the_same_each_time(made):
    first, again = dict(made), dict(made)
    assert len(first) == 9
    for name, (mixture, target) in first.items():
        assert mixture.shape == target.shape == (3, 16_000)
        assert torch.equal(mixture, again[name][0]) and torch.equal(target, again[name][1])


def test_quieter_and_noisier_by_as_much_as_they_say(made):
    mixture, target = made.plain()
    quiet, part = made.quieter()
    torch.testing.assert_close(quiet, mixture / 10)
    torch.testing.assert_close(part, target / 10)
    noisy, same = made.noisy()
    assert torch.equal(same, target)
    snr_db = 20 * (active_rms(mixture) / (noisy - mixture).square().mean(1).sqrt()).log10()
    torch.testing.assert_close(snr_db, torch.full((3,), 20.0), atol=0.01, rtol=0)


def test_a_band_limit_and_a_room_are_in_the_target_too(made):
    low, part = made.limited()
    power = torch.fft.rfft(torch.stack([low, part])).abs().square()
    assert power[..., 4_500:].sum() < 1e-4 * power.sum()
    heard, part = made.reverberated()
    assert (si_sdr(part, made.plain()[1]).abs() < 1).all()  # as loud as the direct sound: 0 dB
    rest = heard - part
    assert (si_sdr(rest, made.sources[:, 1]).abs() < 1).all()


def test_one_source_is_the_target(made):
    mixture, target = made.alone()
    assert torch.equal(mixture, target) and torch.equal(target, made.sources[:, 0])


def test_further_sources_are_of_further_classes_at_the_level_of_the_interferer(made):
    mixture, target = made.joined(1)
    # behind the first mixture: rain; the second: dog; the third, dog and rain: bell
    for row, (k, s) in enumerate([(1, 0), (2, 0), (0, 0)]):
        rest = mixture[row] - target[row] - made.sources[row, 1]
        level = active_rms(made.sources[row, 1]) / active_rms(made.sources[k, s])
        torch.testing.assert_close(rest, made.sources[k, s] * level, atol=1e-6, rtol=0)
    full, _ = made.joined(3)
    assert full.abs().max() == 0  # there are no five classes


def test_the_nearest_class_takes_the_place_of_the_interferer(made):
    mixture, target = made.confused()
    rest = mixture - target
    for row, (k, s) in {0: (1, 1), 2: (0, 0)}.items():  # wind, bell
        level = active_rms(made.sources[row, 1]) / active_rms(made.sources[k, s])
        torch.testing.assert_close(rest[row], made.sources[k, s] * level, atol=1e-6, rtol=0)
    assert mixture[1].abs().max() == target[1].abs().max() == 0  # no wind but its own


def test_a_sum_beyond_full_scale_is_turned_down_as_a_whole(made):
    made.sources = made.sources * 20
    mixture, target = made.joined(1)
    assert mixture.abs().amax(1) == pytest.approx(torch.full((3,), 0.9), abs=1e-5)
    scale = target / made.sources[:, 0]
    torch.testing.assert_close(scale, scale[:, :1].expand_as(scale), rtol=1e-4, atol=0)
