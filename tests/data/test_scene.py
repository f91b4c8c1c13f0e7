"""Rooms, bands, noise floors and loudness of training mixtures."""

import pytest
import torch

from sep.data.mixing import active_rms
from sep.data.scene import BAND_HZ, NOISE_DB, Scene, convolve, hiss, low_pass, room
from sep.errors import OptionError

RATE = 16_000


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_convolution_by_hand():
    wave, response = torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.5]])
    found = convolve(wave, response)
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0, 0.5, 1.0]]), atol=1e-6, rtol=0)
    late = torch.zeros(1, 4_096)
    late[0, -1] = 1.0
    assert convolve(late, response)[0, :-1].abs().max() < 1e-6  # its end does not come round


def test_a_room_dies_away_in_its_time_and_is_as_loud_as_asked():
    t60_s = torch.tensor([0.2, 0.6]).repeat_interleave(50)
    responses = room(t60_s, torch.full((100,), 3.0), seeded())
    assert responses.shape == (100, round(0.6 * RATE))
    assert (responses[:, 0] == 1).all() and responses[:, 1:32].abs().max() == 0
    tail = responses[:, 1:].square()
    assert 10 * tail.sum(1).log10() == pytest.approx(torch.full((100,), -3.0), abs=0.01)
    for k, seconds in enumerate((0.2, 0.6)):
        power = tail[50 * k :][:50].mean(0)
        early, late = (power[round(p * seconds * RATE) :][:480].mean() for p in (0.25, 0.75))
        fall_db = float(10 * (late / early).log10())
        assert fall_db == pytest.approx(-30, abs=1.5)  # half of 60 dB in half of the time
    assert responses[:50, round(0.2 * RATE) :].abs().max() == 0


def test_a_low_pass_keeps_what_is_below_and_takes_what_is_above():
    time = torch.arange(RATE) / RATE
    low, high = (torch.sin(2 * torch.pi * hz * time) for hz in (1_000.0, 6_000.0))
    found = low_pass(torch.stack([low + high, low + high]), torch.tensor([4_000.0, 7_900.0]))
    middle = slice(1_000, -1_000)
    assert (found[0] - low)[middle].abs().max() < 0.01
    assert (found[1] - low - high)[middle].abs().max() < 0.01


def test_hiss_is_white_or_brown():
    made = hiss(torch.tensor([0.0, 1.0]), 16_384, seeded())
    assert made.square().mean(1) == pytest.approx(torch.ones(2))
    power = torch.fft.rfft(made).abs().square()
    octaves_db = 10 * (power[:, 2_048:4_096].mean(1) / power[:, 512:1_024].mean(1)).log10()
    assert octaves_db[0] == pytest.approx(0, abs=0.7)
    assert octaves_db[1] == pytest.approx(-12, abs=0.7)  # 6 dB an octave, two of them


def test_what_is_off_changes_nothing_and_draws_nothing():
    scene, sources, generator = Scene(), noise(3, 2, 5_000), seeded()
    before = generator.get_state()
    assert scene.louder(scene.recorded(sources, generator), generator) is sources
    assert torch.equal(sources.sum(1) + scene.floor(sources, generator), sources.sum(1))
    assert torch.equal(generator.get_state(), before)


def test_as_many_mixtures_are_varied_as_asked():
    sources = noise(200, 2, 4_096)
    for name in ("room", "band"):
        found = Scene(**{name: 0.3}).recorded(sources, seeded())
        changed = (found != sources).any(-1)
        assert torch.equal(changed[:, 0], changed[:, 1])  # all sources of a mixture
        assert changed[:, 0].float().mean() == pytest.approx(0.3, abs=0.08)
        again = Scene(**{name: 0.3}).recorded(sources, seeded())
        assert torch.equal(found, again)


def test_bands_end_where_they_should_and_half_of_the_mixtures_have_one():
    found = Scene(band=1.0).recorded(noise(100, 2, 8_192), seeded())
    power = torch.fft.rfft(found).abs().square().unflatten(-1, (1, -1))[..., 0, 1:]
    loud = power.unflatten(-1, (-1, 32)).mean(-1)  # in stretches of 62.5 Hz
    end_hz = 62.5 * (loud > 0.1 * loud[..., :32].mean(-1, keepdim=True)).sum(-1)
    assert BAND_HZ[0] - 200 < end_hz.min() and end_hz.max() <= BAND_HZ[1]
    alike = (end_hz[:, 0] - end_hz[:, 1]).abs() <= 62.5
    assert alike.float().mean() == pytest.approx(0.5, abs=0.15)


def test_the_noise_floor_lies_as_far_down_as_it_should():
    sources = noise(100, 2, 8_192)
    floor = Scene(noise=0.5).floor(sources, seeded())
    used = floor.abs().amax(1) > 0
    assert used.float().mean() == pytest.approx(0.5, abs=0.12)
    snr_db = 20 * (active_rms(sources.sum(1)) / floor.square().mean(1).sqrt())[used].log10()
    assert NOISE_DB[0] - 0.1 < snr_db.min() < NOISE_DB[0] + 5
    assert NOISE_DB[1] - 5 < snr_db.max() < NOISE_DB[1] + 0.1


def test_loudness_is_that_of_the_whole_mixture_and_never_beyond_full_scale():
    sources = noise(100, 2, 4_096)
    gain = Scene(loudness_db=20).louder(sources, seeded()) / sources
    each = gain.mean((1, 2))
    torch.testing.assert_close(gain, each[:, None, None].expand_as(gain), rtol=1e-4, atol=0)
    assert 20 * each.min().log10() == pytest.approx(-20, abs=2)
    assert each.max() > 1.5
    assert Scene(loudness_db=40).louder(sources, seeded()).sum(1).abs().max() <= 1 + 1e-6


def test_impossible_settings_are_named():
    with pytest.raises(OptionError, match=r"scene\.room=1\.5"):
        Scene(room=1.5)
    with pytest.raises(OptionError, match=r"scene\.loudness_db=-3"):
        Scene(loudness_db=-3)
