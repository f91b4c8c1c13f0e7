"""open_sounds on a tiny tree laid out like the originals, and what it holds out."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from sep.data import wording
from sep.data.kaldi import DataDir
from sep.errors import SepError

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "egs" / "open_sounds" / "local"
sys.path[:0] = [str(LOCAL), str(ROOT / "egs" / "mini_sounds" / "local")]

import corpora  # noqa: E402
import further  # noqa: E402
import packages  # noqa: E402

RATE = 16_000
ESC = {"dog": 600.0, "sea_waves": 0.0, "crow": 2500.0}


def write(path: Path, hz: float, seed: int, seconds: float = 0.8) -> None:
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * hz * (1 + 0.03 * seed) * time) if hz else 0
    wave = wave + (0.01 if hz else 0.2) * draw.normal(size=len(time))
    soundfile.write(path, wave.clip(-1, 1), RATE)


@pytest.fixture
def originals(tmp_path):
    """ESC-50 as it is published: five folds, two clips of one source in each."""
    esc, phil = tmp_path / "esc 50", tmp_path / "phil"
    for folder in (esc, phil):
        (folder / "audio").mkdir(parents=True)
    (esc / "meta").mkdir()
    heading = "filename,fold,target,category,esc10,src_file,take"
    rows = []
    for target, (name, hz) in enumerate(ESC.items()):
        for fold in range(1, 6):
            for take in "AB":
                file = f"{fold}-{1000 * target + fold}-{take}-{target}.wav"
                write(esc / "audio" / file, hz, fold)
                source = 1000 * target + fold
                rows.append(f"{file},{fold},{target},{name},False,{source},{take}")
    (esc / "meta" / "esc50.csv").write_text("\n".join([heading, *rows]) + "\n")
    lines = ["file\tlabel\tcaption\tnote", "broken.ogg\toboe\tplaying oboe\tN0"]
    (phil / "audio" / "broken.ogg").write_bytes(b"no sound")
    for label, base in (("oboe", 400.0), ("cello", 150.0)):
        for k in range(8):
            write(phil / "audio" / f"{label}_{k}.ogg", base * 1.06**k, k, 1.5)
            lines.append(f"{label}_{k}.ogg\t{label}\tplaying {label}\tN{k}")
    (phil / "meta.tsv").write_text("\n".join(lines) + "\n")
    return esc, phil


@pytest.fixture
def recipe(tmp_path):
    for name in ("open_sounds", "mini_sounds"):
        shutil.copytree(
            ROOT / "egs" / name,
            tmp_path / "egs" / name,
            ignore=shutil.ignore_patterns("downloads", "data", "exp", "__pycache__"),
        )
    (tmp_path / "egs" / "common").symlink_to(ROOT / "egs" / "common")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    return tmp_path


def show(home: Path, classes: tuple[str, ...]) -> None:
    """Put a picture where stage 0 would unpack each of the classes' clip arts."""
    with open(home / "local" / "pictures.tsv", newline="") as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t") if r["class"] in classes]
    rows = [row for row in rows if row["package"] == "openclipart-png"]
    assert {row["class"] for row in rows} == {*classes}
    for k, row in enumerate(rows):
        path = home / "downloads" / "unpacked" / row["package"] / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(k).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(blocks).resize((60, 40), Image.Resampling.NEAREST)
        picture.save(path)


def call(recipe, *arguments):
    environment = {
        **os.environ,
        "SEP_VENV": "none",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["egs/open_sounds/run.sh", "--stage", "1", "--debug", "--device", "cpu", "--mini="]
    return subprocess.run(
        [*command, *arguments], cwd=recipe, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_the_recipe_runs_from_the_published_layout_to_scores(recipe, originals):
    esc, phil = originals
    show(recipe / "egs" / "open_sounds", ("dog", "crow", "oboe", "cello"))
    done = call(recipe, "--esc50", str(esc), "--philharmonia", str(phil))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "broken.ogg: not a readable recording" in done.stdout
    home = recipe / "egs" / "open_sounds"
    splits = {name: DataDir(home / "data" / name) for name in ("train", "valid", "test")}
    assert set(splits["train"].label.values()) == {"dog", "sea waves", "crow", "oboe", "cello"}
    folds = {name: {i.split("-")[1] for i in d.ids if i[:3] == "esc"} for name, d in splits.items()}
    assert folds == {"train": {"1", "4", "5"}, "valid": {"2"}, "test": {"3"}}
    assert len(set(splits["train"].text.values())) > 5  # several wordings a class
    for stage in ("start", "text", "audio", "image"):
        assert (home / "exp/main/stages" / stage / "model.safetensors").is_file()
    with open(home / "exp/main/assess/assess.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["encoder"] for row in rows} == {"start", "text", "audio", "image", "pictures"}
    assert json.loads((home / "exp/main/encoder/config.json").read_text())["image_rank"] == 2
    assert {"all: by text", "all: by sound", "monotone_10"} <= {row["name"] for row in rows}
    assert "| all: by text |" in done.stdout and "the encoder" in done.stdout
    assert len((home / "data/test/mixtures.jsonl").read_text().splitlines()) == 4
    assert "SI-SDRi dB by query" in done.stdout and "level when absent" in done.stdout
    assert "similarity, referee" in done.stdout
    assert "fold 3 of 3" in done.stdout and (home / "exp/main/unseen.safetensors").is_file()


def test_recordings_for_fine_tuning_alone_are_a_split_of_their_own(recipe, originals):
    esc, phil = originals
    words = ["--esc50", str(esc), "--philharmonia", str(phil), "--tune", "0.4", "--stop-stage", "1"]
    done = call(recipe, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    data = recipe / "egs" / "open_sounds" / "data"
    tune, train = (DataDir(data / name) for name in ("tune", "train"))
    sources = [{i.split("-")[2] for i in split.ids if i[:3] == "esc"} for split in (tune, train)]
    assert len(sources[0]) == 3 and len(sources[1]) == 6 and not sources[0] & sources[1]
    assert "oboe" in tune.label.values()


def test_nothing_to_train_on_is_one_line(recipe, tmp_path):
    done = call(recipe)
    assert done.returncode == 1 and "error: no corpus: give --esc50" in done.stdout
    done = call(recipe, "--esc50", str(tmp_path))
    assert done.returncode == 1 and "has no meta.tsv and no meta/esc50.csv" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def items(label: str, sources: int, takes: int = 2, folds: str = "4") -> list[corpora.Item]:
    return [
        corpora.Item(Path(f"{label}-{fold}-{s}-{t}.wav"), label, f"{fold}{s}", fold)
        for fold in folds
        for s in range(sources)
        for t in range(takes)
    ]


def test_sources_stay_together_and_classes_of_several_folds_are_split_by_fold():
    many, one, few, lone = items("a", 2, folds="1234"), items("b", 8), items("c", 2), items("d", 1)
    corpora.hold_out([*many, *one, *few, *lone], "3", "2")
    assert {(i.fold, i.split) for i in many} == {
        ("1", "train"), ("2", "valid"), ("3", "test"), ("4", "train"),
    }  # fmt: skip
    for group in (one, few, lone):
        split = {}
        for item in group:
            assert split.setdefault(item.source, item.split) == item.split
    count = Counter(item.split for item in one)
    assert count == {"test": 4, "valid": 2, "train": 10}  # of 8 sources: 2, 1 and 5
    assert Counter(item.split for item in few) == {"test": 2, "train": 2}
    assert {item.split for item in lone} == {"train"}
    corpora.hold_out([*many, *one], "3", "")
    assert "valid" not in {item.split for item in [*many, *one]}
    assert Counter(item.split for item in one)["test"] == 4


def test_a_share_of_the_training_sources_is_kept_for_fine_tuning():
    many, one, few = items("a", 3, folds="1234"), items("b", 8), items("c", 2)
    corpora.hold_out([*many, *one, *few], "3", "2", tune=0.34)
    count = Counter(item.split for item in many)
    assert count == {"test": 6, "valid": 6, "tune": 4, "train": 8}  # of 6 sources to train on: 2
    assert Counter(item.split for item in one) == {"test": 4, "valid": 2, "tune": 4, "train": 6}
    assert "tune" not in {item.split for item in few}
    for group in (many, one):
        split = {}
        for item in group:
            assert split.setdefault(item.source, item.split) == item.split


def test_a_listed_file_that_is_not_there_is_named(originals):
    esc, phil = originals
    (phil / "audio" / "oboe_3.ogg").unlink()
    with pytest.raises(SepError, match=r"oboe_3\.ogg is listed but not there"):
        corpora.read(phil)
    (phil / "meta.tsv").write_text("name\tlabel\nx\toboe\n")
    with pytest.raises(SepError, match="no column 'file'"):
        corpora.read(phil)
    assert len(corpora.read(esc)) == 30
    write(esc / "audio" / "1-4211-A-12.wav", 300.0, 0)
    table = esc / "meta" / "esc50.csv"
    table.write_text(table.read_text() + "1-4211-A-12.wav,1,12,crackling_fire,True,4211,A\n")
    assert len(corpora.read(esc)) == 30  # a copy of a recording that tests is left out


def test_further_recordings_train_and_short_ones_are_joined(tmp_path, monkeypatch, capsys):
    names = ["dog/bark.wav", "fox/bark.wav", "keys/1.wav", "keys/2.wav", "gone.wav", "bad.wav"]
    for k, name in enumerate(names):
        path = tmp_path / "unpacked" / "zoo-data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "bad.wav":
            path.write_bytes(b"no sound")
        elif name != "gone.wav":
            write(path, 400.0, k, 0.5)
    rows = [
        {"class": "typing" if "keys" in name else "dog", "package": "zoo-data", "path": name,
         "joined": "keyboard" if "keys" in name else ""}
        for name in names
    ]  # fmt: skip
    rows.append({"class": "cat", "package": "never-fetched", "path": "cat.wav", "joined": ""})
    monkeypatch.setattr(packages, "read", lambda name: rows)
    wav = tmp_path / "wav"
    wav.mkdir()
    made = further.convert(tmp_path / "unpacked", wav, lambda parts: iter([np.concatenate(parts)]))
    assert [(id_, label, round(seconds, 1)) for id_, label, seconds in made] == [
        ("more-dog-zoo-bark", "dog", 0.5), ("more-dog-zoo-bark-2", "dog", 0.5),
        ("more-typing-zoo-keyboard-00", "typing", 1.0),
    ]  # fmt: skip
    assert {path.stem for path in wav.iterdir()} == {id_ for id_, _, _ in made}
    said = capsys.readouterr().out
    assert "gone.wav" in said and "bad.wav: not a readable recording" in said
    assert "not fetched: the recordings of never-fetched" in said


def test_every_listed_package_has_a_size_and_a_licence_and_every_sound_a_class():
    rows = packages.read("sounds")
    with open(LOCAL.parents[1] / "mini_sounds" / "local" / "classes.tsv", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        mini = {row["class"] for row in reader}
    labels = corpora.labels()
    also = {other for label in labels.values() for other in label.also}
    assert {row["class"] for row in rows} <= set(labels) | (mini - also)
    assert len({(row["package"], row["path"]) for row in rows}) == len(rows)
    listed = {package.name: package for package in packages.packages()}
    assert {row["package"] for row in rows} <= listed.keys()
    assert all(p.size_mb > 0 and p.licence and p.wanted for p in listed.values())


def test_the_tables_are_whole():
    labels = corpora.labels()
    assert len(labels) == 65 and all(label.captions for label in labels.values())
    also = [other for label in labels.values() for other in label.also]
    assert len(also) == len(set(also))
    with open(LOCAL / "pictures.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert {row["split"] for row in rows} == {"train", "test"}
    with open(LOCAL.parents[1] / "mini_sounds" / "local" / "classes.tsv", newline="") as file:
        mini = {
            row["class"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        }
    assert {row["class"] for row in rows} <= set(labels) | (mini - set(also))
    shown = Counter((row["package"], row["path"], row["class"]) for row in rows)
    assert max(shown.values()) == 1


def test_words_to_train_on_are_none_of_those_to_test_with():
    table = wording.read(LOCAL / "wordings.tsv")
    with open(LOCAL / "synonyms.tsv", newline="") as file:
        held_out = {
            row["words"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        }
    words = [word for name, own in table.items() for word in own]
    assert len(table) == 125 and wording.ANY in table
    assert len(words) == len(set(words))
    assert not held_out & set(words)
    assert min(len(own) for own in table.values()) >= 4
