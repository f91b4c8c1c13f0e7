"""Clips out of recordings: which part, at what level, and what is refused."""

import sys

import numpy as np
import pytest
import soundfile

from sep import container
from sep.data import extract, mirror
from sep.data.clips import ClipError
from sep.data.kaldi import SAMPLE_RATE
from sep.errors import AudioFileError


def test_a_segment_is_cut_around_its_centre_without_a_change_of_level():
    mono = np.arange(1, 100_001) / 100_000
    cut = extract.segment(mono, 1000, None)  # from 50,000 - 500 on
    assert cut[[0, 999]] == pytest.approx([0.49501, 0.505])
    cut = extract.segment(mono, 1000, 2.0)  # sample 32,000 is the middle
    assert cut[[0, 999]] == pytest.approx([0.31501, 0.325])
    early = extract.segment(mono, 1000, 0.025)  # 400 - 500: a hundred samples of silence first
    assert (early[:100] == 0).all() and early[100] == pytest.approx(1e-5)
    assert extract.segment(mono, 1000, 99.0)[0] == pytest.approx(0.49501)  # past the end


def test_a_short_recording_repeats_itself_and_a_loud_one_is_held():
    mono = np.array([0.25, 0.5, 2.0])
    cut = extract.segment(mono, 4, None)  # of 0.25 0.5 2 0.25 0.5 2, from the second on
    assert cut == pytest.approx([0.5, 1.0, 0.25, 0.5])


def test_silence_where_the_segment_is_cut_is_refused():
    mono = np.zeros(80_000)
    mono[:100] = 0.5
    with pytest.raises(ClipError, match="silent around its middle"):
        extract.segment(mono, 1000, None)


def test_a_clip_is_cut_out_of_the_whole_video(tmp_path):
    for name in ("wav", "images"):
        (tmp_path / name).mkdir()
    level = np.repeat([0.1, 0.2, 0.4], 10 * SAMPLE_RATE)  # 10 s of each
    wave = level * np.sin(np.arange(len(level)) * 0.3)
    soundfile.write(tmp_path / "x.wav", wave, SAMPLE_RATE)
    place = mirror.Place(sound=tmp_path / "x.wav")
    job = extract.Job("clip", tmp_path, place, start_s=10.0, samples=16_000)
    made = extract.make(job)
    assert made == extract.Made("clip", (("clip", 1.0, None),))
    cut, rate = soundfile.read(tmp_path / "wav" / "clip.wav")
    assert rate == SAMPLE_RATE and np.abs(cut).max() == pytest.approx(0.2, abs=0.001)
    late = extract.make(extract.Job("late", tmp_path, place, start_s=30.0))
    assert late.fault == f"{tmp_path}/x.wav: ends before 30 s" and not late.clips


def test_the_files_of_a_clip_are_found_in_any_layout_and_the_first_of_two_is_used(tmp_path):
    for file in ("a/X.wav", "b/X.flac", "X.mp4", "f/Y.mp4/000001.jpg", "Y/notes.txt", "c/t.tar.gz"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = mirror.look(tmp_path, lambda stem: stem if stem in "XY" else None)
    assert found.places == {
        "X": mirror.Place(sound=tmp_path / "a/X.wav", video=tmp_path / "X.mp4"),
        "Y": mirror.Place(frames=tmp_path / "f/Y.mp4"),
    }
    assert found.tars == [tmp_path / "c/t.tar.gz"]
    (fault,) = found.faults
    assert fault.startswith(f"{tmp_path}/b/X.flac: X is {tmp_path}/a/X.wav, too")


def test_a_journal_counts_where_the_job_was_the_same_and_its_files_are_there(tmp_path):
    (tmp_path / "wav").mkdir()
    train, test = extract.Job("a", tmp_path), extract.Job("a", tmp_path, samples=100)
    made = extract.Made("a", (("a-part1", 1.5, "a.jpg"), ("a-part2", 2.0, None)), note="blurred")
    journal = tmp_path / "made.jsonl"
    assert extract.earlier(journal, {"a": train}) == {}
    extract.note_down(journal, train, made)
    assert extract.earlier(journal, {"a": train}) == {}
    for k in (1, 2):
        (tmp_path / "wav" / f"a-part{k}.wav").write_bytes(b"sound")
    assert extract.earlier(journal, {"a": train}) == {"a": made}
    assert extract.earlier(journal, {"a": test}) == {}


def test_videos_without_ffmpeg_are_refused_once(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    found = mirror.Mirror(places={"a": mirror.Place(video=tmp_path / "a.mp4")})
    with pytest.raises(AudioFileError, match=r"ffmpeg is needed .*pip install"):
        extract.extract(tmp_path, found, {"a": extract.Job("a", tmp_path)}, str, 1)
