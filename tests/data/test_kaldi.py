"""Data directories: what is written is read back, and every fault is named by file and line."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from sep.data import kaldi, mixtures
from sep.errors import DataError


def clip(path, seconds=0.5, rate=16_000, channels=1):
    """Write a quiet seeded noise clip and return its path as text."""
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels))
    soundfile.write(path, noise, rate, subtype="PCM_16")
    return str(path)


@pytest.fixture
def directory(tmp_path):
    """A sound directory of three clips and two labels."""
    picture = tmp_path / "dog.png"
    picture.write_bytes(b"x")
    rows = [("b1", "dog", str(picture)), ("a1", "cat", None), ("a2", "cat", None)]
    entries = [
        kaldi.Entry(i, clip(tmp_path / f"{i}.wav"), f"a {label}", label, 0.5, image)
        for i, label, image in rows
    ]
    kaldi.write(tmp_path / "set", entries)
    return tmp_path / "set"


def append(path, text):
    """Add text to the end of a file."""
    path.write_text(path.read_text() + text)


def test_round_trip(directory):
    data = kaldi.DataDir(directory)
    assert data.ids == ["a1", "a2", "b1"] and len(data) == 3
    assert data.text["b1"] == "a dog" and data.duration_s["a1"] == 0.5
    assert list(data.image) == ["b1"]
    assert data.by_label() == {"cat": ["a1", "a2"], "dog": ["b1"]}
    assert kaldi.validate(directory) == []


def test_what_memory_has_room_for_is_an_even_share_of_every_class(tmp_path):
    entries = [
        kaldi.Entry(f"{label}{k}", f"/{label}{k}.wav", label, label, 2.0, f"/{label}{k}.png")
        for label, count in (("cat", 1), ("dog", 9), ("owl", 20))
        for k in range(count)
    ]
    kaldi.write(tmp_path / "set", entries)
    data = kaldi.DataDir(tmp_path / "set")
    second = 2 * 16_000 / 1e9  # in gigabytes
    assert data.fitting(16_000, 60.1 * second) is data
    part = data.fitting(16_000, 23 * second)  # 11 recordings
    found = {label: len(ids) for label, ids in part.by_label().items()}
    assert found == {"cat": 1, "dog": 5, "owl": 5}
    assert len(part) == 11 and part.ids == sorted(part.wav) == sorted(part.text)
    assert len(part.pictures) == 11 and len(data) == 30
    assert part.ids == data.fitting(16_000, 23 * second).ids  # whoever draws
    assert part.ids != data.fitting(16_000, 23 * second, seed=1).ids
    said = []
    assert len(kaldi.held(tmp_path / "set", 16_000, 4.5 * second, 0, said.append)) == 2
    assert "2 of 30 recordings are held, as bank_gb=" in said[0]
    with pytest.raises(DataError, match="hold no recording; raise bank_gb"):
        data.fitting(16_000, second)


def test_write_refuses_twins_and_line_breaks(tmp_path):
    entry = kaldi.Entry("a", "/a.wav", "text", "cat", 1.0)
    with pytest.raises(DataError, match="id a"):
        kaldi.write(tmp_path, [entry, entry])
    with pytest.raises(DataError, match="line break"):
        kaldi.write(tmp_path, [kaldi.Entry("a", "/a.wav", "two\nlines", "cat", 1.0)])
    with pytest.raises(DataError, match="empty"):
        kaldi.write(tmp_path, [kaldi.Entry("a", "/a.wav", "", "cat", 1.0)])


FAULTS = {
    "missing table": (lambda d: (d / "text").unlink(), "text: is missing"),
    "twice": (lambda d: append(d / "text", "b1 again\n"), "text:4: b1 is there twice"),
    "order": (lambda d: append(d / "text", "a0 early\n"), "text:4: a0 is not in order"),
    "extra id": (lambda d: append(d / "text", "zz more\n"), "text:4: zz is not in wav.scp"),
    "missing id": (
        lambda d: (d / "utt2label").write_text("a1 cat\na2 cat\n"),
        "wav.scp:3: b1 is not in utt2label",
    ),
    "empty text": (
        lambda d: (d / "text").write_text("a1 \na2 a cat\nb1 a dog\n"),
        "text:1: 'a1' has no value",
    ),
    "bad UTF-8": (
        lambda d: (d / "text").write_bytes(b"a1 \xff\na2 a cat\nb1 a dog\n"),
        "text:1: is not UTF-8",
    ),
    "cut off": (
        lambda d: (d / "text").write_text("a1 a cat\na2 a cat\nb1 a d"),
        "text:3: the last line is cut off",
    ),
    "negative length": (
        lambda d: (d / "utt2dur").write_text("a1 0.5\na2 -1\nb1 0.5\n"),
        "utt2dur:2: '-1' is not a length",
    ),
    "wrong length": (
        lambda d: (d / "utt2dur").write_text("a1 0.5\na2 0.5\nb1 0.6\n"),
        "lasts 0.500 s, utt2dur says 0.6",
    ),
    "no wav": (lambda d: (d.parent / "a2.wav").unlink(), "wav.scp:2:"),
    "wrong rate": (lambda d: clip(d.parent / "a2.wav", rate=8_000), "has 8000 Hz"),
    "stereo": (lambda d: clip(d.parent / "a2.wav", channels=2), "and 2 channels"),
    "not audio": (
        lambda d: (d.parent / "a1.wav").write_text("hello"),
        "wav.scp:1:",
    ),
    "no picture": (lambda d: (d.parent / "dog.png").unlink(), "image.scp:1:"),
    "relative": (
        lambda d: (d / "wav.scp").write_text((d / "wav.scp").read_text().replace("a1 /", "a1 ")),
        "is not an absolute path",
    ),
    "no JSON": (lambda d: (d / "mixtures.jsonl").write_text("{\n"), "mixtures.jsonl:1: is not"),
    "fields": (
        lambda d: (d / "mixtures.jsonl").write_text('{"id": "m"}\n'),
        "mixtures.jsonl:1: audio_query is missing",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named(directory, name):
    spoil, expected = FAULTS[name]
    spoil(directory)
    faults = kaldi.validate(directory)
    assert any(expected in fault for fault in faults), faults
    assert all(str(directory) in fault and "\n" not in fault for fault in faults)


def mixture(**changes):
    """A sound mixture of the directory above."""
    values = dict(
        id="m0", target="b1", interferers=["a1"], offsets_s=[0.0, -1.0], gains_db=[0.0, 1.0],
        text="a dog", label="dog", interferer_labels=["cat"], audio_query=None,
        audio_query_split=None, image=None, seed=0,
    )  # fmt: skip
    return mixtures.Mixture(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"target": "zz"}, "zz is not in wav.scp"),
        ({"label": "owl"}, "labels differ from utt2label"),
        ({"target": "a2", "label": "cat"}, "two sources have one label"),
        ({"gains_db": [0.0]}, "gains_db needs 2 numbers"),
        ({"offsets_s": [0.0, float("nan")]}, "not a number"),
        ({"interferers": []}, "no interferer"),
        ({"audio_query": "b1", "audio_query_split": "test"}, "is a source of the mixture"),
        ({"audio_query": "x", "audio_query_split": "dev"}, "audio_query_split is none of"),
        ({"text": ""}, "text is empty"),
        ({"image": "/none.png"}, "/none.png is not there"),
    ],
)
def test_mixture_faults(directory, changes, expected):
    mixtures.save(directory / "mixtures.jsonl", [mixture(), mixture(id="m1", **changes)])
    faults = kaldi.validate(directory)
    if expected is None:
        assert faults == []
    else:
        assert len(faults) == 1 and "mixtures.jsonl:2:" in faults[0] and expected in faults[0]


def test_reading_a_faulty_directory_raises_one_line(directory):
    append(directory / "text", "zz more\n")
    with pytest.raises(DataError, match=r"text: differs from wav\.scp, first at id zz"):
        kaldi.DataDir(directory)
    with pytest.raises(DataError, match="is missing"):
        kaldi.DataDir(directory / "nowhere")


def test_command_line(directory):
    command = [sys.executable, "-m", "sep.data.kaldi", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "3 recordings, 2 classes" in done.stdout
    append(directory / "text", "zz more\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "text:4: zz" in done.stderr


def test_more_pictures_than_recordings(directory):
    photo = directory.parent / "photo.png"
    photo.write_bytes(b"x")
    dog = str(directory.parent / "dog.png")
    kaldi.write_pictures(directory, [(str(photo), "dog"), (dog, "dog")])
    assert kaldi.DataDir(directory).pictures == [(dog, "dog"), (str(photo), "dog")]
    assert kaldi.validate(directory) == []
    photo.unlink()
    assert kaldi.validate(directory) == [
        f"{directory}/pictures:2: {photo} is not there; restore it"
    ]
    append(directory / "pictures", "dog.png dog\n")
    assert "pictures:3: no picture and class" in kaldi.validate(directory)[-1]
    with pytest.raises(DataError, match="pictures:3"):
        kaldi.DataDir(directory)


def test_a_table_of_pictures_that_is_no_text_is_told(directory):
    (directory / "pictures").write_bytes(b"/a.png\t\xff\n")
    assert "pictures: cannot be read" in kaldi.validate(directory)[-1]
    with pytest.raises(DataError, match="pictures: cannot be read"):
        kaldi.DataDir(directory)


def test_without_a_table_the_pictures_are_those_of_recordings(directory):
    assert kaldi.DataDir(directory).pictures == [(str(directory.parent / "dog.png"), "dog")]
