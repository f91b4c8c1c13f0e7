"""Scoring a folder of files: the numbers, and one line for each fault."""

import math

import numpy as np
import pytest
import torch

from sep import audio
from sep.errors import DataError
from sep.metrics.bss import Windows, bss_eval
from sep.metrics.report import score_folder
from sep.metrics.sisdr import si_sdr

RATE = 16_000


def wave(seed: int, length: int = 4000, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(channels, length, generator=generator)


@pytest.fixture
def folders(tmp_path):
    """Two references with estimates of 20 dB and mixtures of 0 dB, as 32-bit float files."""
    for i, name in enumerate(("one", "deep/two")):
        reference, other = wave(i), wave(10 + i)
        sounds = {"ref": reference, "est": reference + 0.1 * other, "mix": reference + other}
        for kind, sound in sounds.items():
            audio.write(tmp_path / kind / f"{name}.wav", sound, RATE, subtype="FLOAT")
    return tmp_path


def test_rows_follow_names_and_hold_the_scores(folders):
    rows = score_folder(folders / "ref", folders / "est", folders / "mix")
    assert [row["id"] for row in rows] == ["deep/two", "one"]
    expected = si_sdr(wave(0) + 0.1 * wave(10), wave(0))
    assert rows[1]["si_sdr"] == pytest.approx(float(expected), abs=1e-3)
    assert rows[1]["si_sdri"] == pytest.approx(20, abs=0.5)
    assert rows[1]["sir"] == pytest.approx(20, abs=0.7) and rows[1]["sar"] > 100
    assert set(score_folder(folders / "ref", folders / "est")[0]) == {"id", "si_sdr", "sdr_images"}


def test_another_suffix_still_matches(folders):
    sound, rate = audio.read(folders / "est" / "one.wav")
    (folders / "est" / "one.wav").unlink()
    audio.write(folders / "est" / "one.flac", sound, rate, subtype="PCM_24")
    assert len(score_folder(folders / "ref", folders / "est")) == 2


def test_every_fault_has_its_line(folders):
    (folders / "est" / "deep" / "two.wav").unlink()
    audio.write(folders / "est" / "more.wav", wave(5), RATE, subtype="FLOAT")
    audio.write(folders / "est" / "one.wav", wave(6, 3990), RATE, subtype="FLOAT")
    with pytest.raises(DataError) as caught:
        score_folder(folders / "ref", folders / "est")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "deep/two.wav: has no estimate of the same name" in lines[0]
    assert "more.wav: has no reference of the same name" in lines[1]
    assert "one.wav: 3990 samples, its reference has 4000" in lines[2]


def test_different_rates_and_channels_are_refused(folders):
    audio.write(folders / "est" / "one.wav", wave(6), 44_100, subtype="FLOAT")
    audio.write(folders / "est" / "deep" / "two.wav", wave(6, channels=2), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match="44100 Hz, its reference has 16000 Hz") as caught:
        score_folder(folders / "ref", folders / "est")
    assert "2 channels, its reference has 1" in str(caught.value)


def test_a_folder_without_sounds_is_named(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no sound files"):
        score_folder(folders / "ref", tmp_path / "empty")
    with pytest.raises(DataError, match="nowhere: not a folder"):
        score_folder(folders / "ref", tmp_path / "nowhere")


def test_stereo_is_scored_and_silence_is_nan(tmp_path):
    audio.write(tmp_path / "ref" / "a.wav", wave(1, channels=2), RATE)
    audio.write(tmp_path / "est" / "a.wav", wave(2, channels=2), RATE)
    audio.write(tmp_path / "ref" / "b.wav", torch.zeros(1, 4000), RATE)
    audio.write(tmp_path / "est" / "b.wav", wave(3), RATE)
    stereo, silent = score_folder(tmp_path / "ref", tmp_path / "est")
    assert math.isfinite(stereo["si_sdr"]) and math.isnan(silent["si_sdr"])


def test_a_recording_of_the_target_alone_has_no_interference(tmp_path):
    for kind, sound in {"ref": wave(1), "est": wave(1) + 0.1 * wave(2), "mix": wave(1)}.items():
        audio.write(tmp_path / kind / "a.wav", sound, RATE, subtype="FLOAT")
    row = score_folder(tmp_path / "ref", tmp_path / "est", tmp_path / "mix")[0]
    assert row["sir"] == math.inf and row["sdr_images"] == pytest.approx(20, abs=0.5)
    assert row["sdri"] == -math.inf  # nothing could be better than the mixture


def test_windows_follow_the_rate_of_each_file(folders):
    short, hop = 0.1, 0.05  # 1600 and 800 samples of 4000: four windows
    rows = score_folder(
        folders / "ref", folders / "est", folders / "mix", window_s=short, hop_s=hop
    )
    windows = Windows(1600, 800)
    reference, other = wave(0)[0].numpy(), wave(10)[0].numpy()
    expected = bss_eval(reference, other, reference + 0.1 * other, windows)
    assert len(expected["sdr_images"]) == 4
    assert rows[1]["sdr_images"] == pytest.approx(np.median(expected["sdr_images"]), abs=1e-3)
    assert rows[1]["si_sdr"] == score_folder(folders / "ref", folders / "est")[1]["si_sdr"]
