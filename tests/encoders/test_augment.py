"""Clip banks and the mixing that the encoder learns from."""

import math

import pytest
import torch
from toys import RATE, tone

from encoders import EncoderError
from encoders.augment import active_power, add_noise, colour, istft, mix, stft, stripes
from encoders.bank import ClipBank
from encoders.preprocess import LogMel


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spectrum(wave: torch.Tensor) -> torch.Tensor:
    return LogMel(RATE).spectrum(wave)


def test_active_power_leaves_the_pauses_out():
    quiet, loud = torch.zeros(1, 3, 4), torch.full((1, 3, 2), 2.0)
    frames = torch.cat([quiet, loud, quiet + 1e-3], 2).to(torch.complex64)
    assert active_power(frames).item() == pytest.approx(3 * 4.0)


def test_sources_are_mixed_at_the_snr_asked_for():
    torch.manual_seed(0)
    first, second = spectrum(0.1 * torch.randn(4, 16_000)), spectrum(torch.randn(4, 16_000))
    snr_db = torch.tensor([-10.0, 0.0, 10.0, math.inf])
    mixture, left_db = mix(first, second, snr_db, seeded())
    assert mixture.shape == first.shape
    assert left_db[:3] == pytest.approx(snr_db[:3], abs=1e-3)
    assert left_db[3] == math.inf


def test_a_lone_sound_stays_alone():
    first, second = spectrum(tone(300, 1.0)[None]), spectrum(torch.ones(1, 16_000))
    alone, _ = mix(first, second, torch.tensor([math.inf]), seeded())
    other, _ = mix(first, 5 * second.flip(2), torch.tensor([math.inf]), seeded())
    assert torch.equal(alone, other)


def test_masks_change_the_snr_that_is_reported():
    first = spectrum(tone(300, 1.0, harmonics=5).repeat(16, 1))
    second = spectrum(0.1 * torch.randn(16, 16_000, generator=seeded()))
    _, plain = mix(first, second, torch.zeros(16), seeded(1))
    mixture, masked = mix(first, second, torch.zeros(16), seeded(1), masked=1.0)
    assert masked.mean() > plain.mean() + 1  # masks lean to the first source
    assert torch.isfinite(mixture.abs()).all() and torch.isfinite(masked).all()


def test_the_transform_is_inverted():
    wave = torch.randn(2, 5_000, generator=seeded())
    torch.testing.assert_close(istft(stft(wave), 5_000), wave, atol=1e-5, rtol=0)


def test_colour_is_smooth_and_bounded():
    flat = torch.ones(32, 513, 3, dtype=torch.complex64)
    gain_db = 20 * torch.log10(colour(flat, seeded()).abs()[..., 0].clamp_min(1e-6))
    assert gain_db.max() <= 12.01 and gain_db[:, :100].min() >= -12.01
    low_passed = (gain_db[:, -1] < -60).float().mean()
    assert 0.2 < low_passed < 0.6


def test_noise_stays_at_least_20_db_below():
    clean = spectrum(tone(300, 1.0).repeat(8, 1))
    ratio_db = 10 * torch.log10(
        active_power(clean) / active_power(add_noise(clean, seeded()) - clean)
    )
    assert (ratio_db > 19.9).all() and (ratio_db < 60.1).all()


def test_stripes_hide_at_most_two_bands_of_each_axis():
    kept = stripes((5, 40, 60), seeded(), 0.1)
    assert kept.shape == (5, 40, 60)
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    assert (kept.amax(2).sum(1) >= 40 - 2 * 5).all()
    assert (kept.amax(1).sum(1) >= 60 - 2 * 7).all()


@pytest.fixture(scope="module")
def bank():
    ramp = torch.linspace(-1, 1, 4000)
    return ClipBank([torch.ones(100) * 0.5, ramp, -0.25 * torch.ones(10)], ["b", "a", "b"])


def test_a_bank_sorts_clips_by_class(bank):
    assert bank.classes == ["a", "b"]
    assert bank.label.tolist() == [1, 0, 1]
    assert len(bank) == 3


def test_long_clips_are_cut_and_short_ones_repeated_with_gaps_or_alone(bank):
    cut = bank.segments(torch.tensor([1, 1, 1]), 1000, seeded())
    steps = cut.diff(dim=-1)
    assert (steps >= 0).all() and steps.max() < 0.01  # a piece of the ramp, unbroken
    short = bank.segments(torch.tensor([2] * 50), 100, seeded())
    heard = (short != 0).sum(-1)
    assert set(short.unique().mul(4).round().tolist()) == {-1.0, 0.0}
    assert (heard >= 10).all()
    assert (heard == 10).any() and (heard > 20).any()
    assert bank.head(torch.tensor([2]), 25)[0].tolist() == pytest.approx([-0.25] * 25, abs=1e-4)


def test_speed_plays_clips_faster_and_slower(bank):
    cut = bank.segments(torch.tensor([1] * 40), 1000, seeded(), speed=0.2)
    rate = cut.diff(dim=-1).mean(-1) / (2 / 3999)  # the ramp rises by 2 in 3,999 steps
    assert 0.81 < rate.min() < 0.95 and 1.05 < rate.max() < 1.23


def test_all_classes_are_drawn_before_one_comes_again(bank):
    assert sorted(bank.draw_classes(2, seeded()).tolist()) == [0, 1]
    assert bank.draw_others(torch.tensor([0, 1, 1]), seeded()).tolist() == [1, 0, 0]
    clips = bank.draw_clips(torch.tensor([1, 1, 0, 1]), seeded())
    assert clips[2] == 1 and set(clips[[0, 1, 3]].tolist()) <= {0, 2}


def test_a_bank_refuses_empty_clips_unknown_labels_and_unreadable_files(tmp_path):
    with pytest.raises(EncoderError, match="empty"):
        ClipBank([torch.zeros(0)], ["a"])
    with pytest.raises(EncoderError, match="without a class: z"):
        ClipBank([torch.ones(3)], ["z"], ["a"])
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFFnothing")
    with pytest.raises(EncoderError, match=r"broken\.wav"):
        ClipBank.read([broken], ["a"], 16_000)
