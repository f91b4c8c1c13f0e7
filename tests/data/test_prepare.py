"""Preparation of mini_sounds: cleaning, containers, splits, melodies and your own folder."""

import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from sep.data import clips, kaldi, mixtures

LOCAL = Path(__file__).parents[2] / "egs" / "mini_sounds" / "local"
sys.path.insert(0, str(LOCAL))

import containers  # noqa: E402
import folder  # noqa: E402
import melody  # noqa: E402
import prepare  # noqa: E402
import splits  # noqa: E402
import tables  # noqa: E402

RATE = 16_000


def tone(seconds, rate=RATE, hz=440.0):
    """A sine at half scale, (N, 1)."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)[:, None]


def test_clean_trims_levels_and_resamples():
    quiet = np.zeros((22_050, 1))
    wave = 0.05 + np.concatenate([quiet, tone(0.5, 22_050), quiet])
    (clip,) = clips.clean(np.repeat(wave, 2, axis=1), 22_050)
    assert len(clip) / RATE == pytest.approx(0.5, abs=0.06)
    assert np.abs(clip).max() == pytest.approx(10 ** (-3 / 20), abs=1e-4)
    (whole,) = clips.clean(wave, 22_050, trim=False)
    assert len(whole) / RATE == pytest.approx(2.5, abs=0.001)


def test_clean_cuts_long_recordings():
    parts = clips.clean(tone(70), RATE)
    assert [len(p) / RATE for p in parts] == [20.0, 20.0, 20.0]
    assert len(clips.clean(tone(25), RATE)) == 2


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (np.zeros((RATE, 1)), "silent"),
        (np.full((RATE, 1), np.nan), "NaN"),
        (tone(0.1), "less than 0.2 s"),
    ],
)
def test_clean_refuses(wave, reason):
    with pytest.raises(clips.ClipError, match=reason):
        clips.clean(wave, RATE)


def test_decode_refuses_what_is_not_audio():
    with pytest.raises(clips.ClipError, match="not a readable recording"):
        clips.decode(b"hello")


def test_zip_and_cat(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pk3", "w") as archive:
        archive.writestr("sound/x.ogg", b"inside")
    assert containers.read_bytes(tmp_path, "a.pk3!/sound/x.ogg") == b"inside"
    entries = [b"\x03one" + b"first", b"\x02ii" + b"second"]
    table, at = b"", 16
    for entry in entries:
        name = 1 + entry[0]
        table += struct.pack("<II", at, len(entry) - name)
        at += len(entry)
    (tmp_path / "b.cat").write_bytes(table + b"".join(entries))
    assert containers.read_bytes(tmp_path, "b.cat#1") == b"second"
    for missing in ("a.pk3!/y", "b.cat#2", "c.wav"):
        with pytest.raises(containers.ContainerError):
            containers.read_bytes(tmp_path, missing)


def test_qt_resources(tmp_path):
    """A bundle of a folder with a stored and a zlib-packed file, written by hand."""

    def name(text):
        return struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")

    packed = struct.pack(">I", 5) + zlib.compress(b"world")
    names = [name("dir"), name("a.txt"), name("b.txt")]
    at = [0, len(names[0]), len(names[0]) + len(names[1])]
    payload = struct.pack(">I", 5) + b"hello" + struct.pack(">I", len(packed)) + packed
    nodes = [
        struct.pack(">IHII", 0, 2, 1, 1),  # the root: one child, node 1
        struct.pack(">IHII", at[0], 2, 2, 2),  # dir: two children from node 2
        struct.pack(">IHHHI", at[1], 0, 0, 0, 0),
        struct.pack(">IHHHI", at[2], 1, 0, 0, 9),
    ]
    tree = b"".join(node + b"\0" * 8 for node in nodes)  # version 2 adds a time to each node
    head = struct.pack(">4sIIII", b"qres", 2, 20, 20 + len(tree), 20 + len(tree) + len(payload))
    (tmp_path / "x.rcc").write_bytes(head + tree + payload + b"".join(names))
    assert containers.read_bytes(tmp_path, "x.rcc!/dir/a.txt") == b"hello"
    assert containers.read_bytes(tmp_path, "x.rcc!/dir/b.txt") == b"world"


def made(label, package, recording, seconds=3.0, split=None):
    id_ = f"{label}-{package}-{recording}"
    return splits.Clip(id_, "", label, "", package, f"{package}:{recording}", seconds, split=split)


def test_splits_share_no_package_or_recording():
    dogs = [("a", "x", 9), ("a", "y", 9), ("b", "x", 5), ("c", "x", 3), ("d", "x", 1)]
    found = [made("dog", package, name, seconds) for package, name, seconds in dogs]
    found += [made("cat", "a", r, s) for r, s in [("x", 5), ("x", 5), ("y", 4)]]
    found += [made("owl", "a", "only")]
    found += [made("flute", "font", "p", split="train"), made("flute", "real", "x")]
    splits.assign(found, {})
    side = {}
    for clip in found:
        key = (clip.label, clip.package if clip.label == "dog" else clip.recording)
        assert side.setdefault(key, clip.split) == clip.split
    assert {p: side["dog", p] for p in "abcd"} == dict(a="train", b="test", c="valid", d="train")
    assert side["cat", "a:x"] == "train" and side["cat", "a:y"] == "test"
    assert side["owl", "a:only"] == "train" and side["flute", "real:x"] == "test"


def test_a_class_can_name_its_test_package():
    found = [made("speech", p, "x", s) for p, s in [("a", 9), ("b", 5), ("c", 3)]]
    splits.assign(found, {"speech": "c"})
    assert [clip.split for clip in found] == ["train", "valid", "test"]


def test_committed_tables_agree():
    classes = tables.classes()
    sounds = tables.read("sounds")
    packages = {p.name: p for p in tables.packages(full=True)}
    base = {p.name for p in tables.packages(full=False)}
    assert sum(p.size_mb for p in tables.packages(full=False)) <= 295
    assert {row["class"] for row in sounds} <= set(classes)
    assert {row["package"] for row in sounds} <= set(packages)
    assert {i.name for i in tables.instruments()} <= set(classes)
    assert all(row["recording"].startswith(row["package"] + ":") for row in sounds)
    recordings = {}
    for row in sounds:
        if row["package"] in base:
            recordings.setdefault(row["class"], set()).add(row["recording"])
    targets = {c for c, found in recordings.items() if len(found) > 1}
    assert sum(classes[c].group == "env" for c in targets) >= 40
    assert len(tables.instruments()) >= 15
    shown = [c for c in recordings if classes[c].pictures]
    assert len(shown) >= 40 and all(classes[c].captions[0] for c in shown)


@pytest.mark.parametrize("instrument", tables.instruments(), ids=lambda i: i.name)
def test_phrases_are_playable_and_repeat(instrument):
    notes = melody.compose(instrument, "seed", 6.0)
    assert notes == melody.compose(instrument, "seed", 6.0)
    assert notes != melody.compose(instrument, "other", 6.0)
    assert len(notes) >= 5
    drums = instrument.style == "drums"
    for start, length, key, velocity in notes:
        assert 0 <= start < 6 and length > 0 and 1 <= velocity <= 127
        assert key in instrument.programs if drums else instrument.low <= key <= instrument.high


@pytest.mark.parametrize(
    ("count", "train", "valid", "test"),
    [(1, 1, 0, 0), (2, 1, 0, 1), (3, 1, 1, 1), (10, 7, 1, 2), (100, 70, 10, 20)],
)
def test_files_are_shared_out(count, train, valid, test):
    shares = folder.split_files(count, "seed")
    assert [shares.count(s) for s in ("train", "valid", "test")] == [train, valid, test]


def own_sounds(root, classes=("dog", "church_bell", "wind"), files=6):
    """Class folders of tones, one rate and container a class, and a picture."""
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(files):
            rate = (16_000, 44_100, 22_050)[k % 3]
            end = ("wav", "flac", "ogg")[k % 3]
            wave = tone(1.0 + 0.1 * i, rate, hz=200.0 * (1 + k) + 10 * i)
            soundfile.write(root / name / f"clip {i}.{end}", wave, rate)
    Image.new("RGB", (30, 20), "red").save(root / classes[0] / "picture.png")


def prepare_own(tmp_path, capsys, monkeypatch):
    command = ["prepare.py", "--sounds", str(tmp_path / "in"), "--data", str(tmp_path / "data")]
    command += ["--mixtures", "20"]
    monkeypatch.setattr(sys, "argv", command)
    status = prepare.main()
    return status, capsys.readouterr()


def test_own_sounds(tmp_path, capsys, monkeypatch):
    own_sounds(tmp_path / "in")
    (tmp_path / "in" / "dog" / "broken.wav").write_bytes(b"RIFF____WAVE")
    (tmp_path / "in" / "dog" / "broken.png").write_bytes(b"no")
    (tmp_path / "in" / "dog" / "silent.wav").write_bytes(_silence())
    status, said = prepare_own(tmp_path, capsys, monkeypatch)
    assert status == 0, said.err
    lines = [x for x in said.out.splitlines() if x.endswith("left out")]
    assert len(lines) == 3 and all("/in/dog/" in line for line in lines)
    for split in splits.SPLITS:
        assert kaldi.validate(tmp_path / "data" / split) == []
    test = kaldi.DataDir(tmp_path / "data" / "test")
    assert sorted(test.by_label()) == ["church bell", "dog", "wind"]
    drawn = mixtures.load(tmp_path / "data" / "test" / "mixtures.jsonl")
    assert len(drawn) == 20
    assert any(m.image for m in drawn if m.label == "dog")
    assert not any(m.image for m in drawn if m.label == "wind")


def test_own_sounds_need_two_classes(tmp_path, capsys, monkeypatch):
    own_sounds(tmp_path / "in", classes=("dog",))
    status, said = prepare_own(tmp_path, capsys, monkeypatch)
    assert status == 1 and said.err.startswith("error: --sounds") and "two classes" in said.err


def test_own_sounds_all_broken(tmp_path, capsys, monkeypatch):
    (tmp_path / "in" / "dog").mkdir(parents=True)
    (tmp_path / "in" / "dog" / "a.wav").write_bytes(b"no")
    status, said = prepare_own(tmp_path, capsys, monkeypatch)
    assert status == 1 and "found 0" in said.err and "a.wav: not a readable" in said.out


def test_own_sounds_missing_folder(tmp_path, capsys, monkeypatch):
    status, said = prepare_own(tmp_path, capsys, monkeypatch)
    assert status == 1 and "no such folder" in said.err


def _silence():
    file = io.BytesIO()
    soundfile.write(file, np.zeros(8_000), RATE, format="WAV")
    return file.getvalue()
