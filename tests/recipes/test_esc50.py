"""esc50 on a tiny tree laid out like the original: all stages, what is held out, every fault."""

import csv
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from copied import call, copied

from sep.data import esc50, mixtures
from sep.data.kaldi import DataDir
from sep.errors import DataError

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "egs" / "esc50" / "local"
RATE = 44_100
SPLITS = ("train", "valid", "test")
CLASSES = {"dog": 600.0, "sea_waves": 0.0, "crow": 2500.0, "pig": 200.0, "siren": 1200.0}
HEADING = "filename,fold,target,category,esc10,src_file,take"


def write(path: Path, hz: float, seed: int, seconds: float = 1.0) -> None:
    """A tone or noise behind 0.3 s of silence."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * hz * (1 + 0.03 * seed) * time) if hz else 0
    wave = wave + (0.01 if hz else 0.2) * draw.normal(size=len(time))
    heard = time > 0.3
    soundfile.write(path, (heard * (wave - wave[heard].mean())).clip(-1, 1), RATE)


@pytest.fixture
def original(tmp_path):
    """Five folds; in each two clips of a class, of different sources."""
    root = tmp_path / "ESC 50"
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    rows = []
    for target, (name, hz) in enumerate(CLASSES.items()):
        for fold in range(1, 6):
            for k in range(2):
                source = 1000 * target + 10 * fold + k
                file = f"{fold}-{source}-A-{target}.wav"
                write(root / "audio" / file, hz, fold + 5 * k)
                rows.append(f"{file},{fold},{target},{name},False,{source},A")
    (root / "meta" / "esc50.csv").write_text("\n".join([HEADING, *rows]) + "\n")
    return root


@pytest.fixture
def recipe(tmp_path):
    return copied(tmp_path, "esc50")


def test_ten_classes_never_train_and_the_recipe_runs_to_scores(recipe, original):
    done = call(recipe, "esc50", "--esc50", str(original), "--zero-shot", "true", "--fold", "5")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    home = recipe / "egs" / "esc50"
    splits = {name: DataDir(home / "data/zero_shot5" / name) for name in SPLITS}
    classes = {name: set(data.label.values()) for name, data in splits.items()}
    seen = {"dog", "sea waves", "crow"}
    assert classes == {"train": seen, "valid": seen, "test": {"pig", "siren"}}
    folds = {name: {id_[0] for id_ in data.ids} for name, data in splits.items()}
    assert folds == {"train": set("2345"), "valid": {"1"}, "test": set("12345")}
    check_protocol(splits["test"])
    with open(home / "exp/main/scores/per_clip.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["query"] for row in rows} == {"text", "audio"}  # there are no pictures
    for system in ("mixture", "ideal", "supervised", "control", "rl"):
        assert sum(row["system"] == system and row["query"] == "text" for row in rows) == 20
    untouched = [float(r["sdr_images"]) for r in rows if r["system"] == "mixture"]
    assert np.allclose(untouched, 0, atol=0.01)
    assert "SI-SDRi dB by query" in done.stdout
    assert "judge: never heard pig, siren: its scores are left out" in done.stdout
    assert "- judge: was not trained on every class" in done.stdout
    assert "encoder_similarity" in rows[0] and "judge_similarity" not in rows[0]
    assert soundfile.info(home / "exp/main/separated/rl/mix0000.wav").frames == 80_000


def test_a_fold_tests_and_the_next_one_validates(original, tmp_path):
    done = prepare(original, tmp_path, "--fold", "5")
    assert done.returncode == 0, done.stderr
    splits = {name: DataDir(tmp_path / name) for name in SPLITS}
    folds = {name: {id_[0] for id_ in data.ids} for name, data in splits.items()}
    assert folds == {"train": {"2", "3", "4"}, "valid": {"1"}, "test": {"5"}}
    test, names = splits["test"], {name.replace("_", " ") for name in CLASSES}
    assert all(set(data.label.values()) == names for data in splits.values())
    assert set(test.duration_s.values()) == {1.0}  # whole; the others are trimmed
    assert max(splits["train"].duration_s.values()) < 0.75
    check_protocol(test)


def check_protocol(data: DataDir) -> None:
    """Every clip is a target once; two classes at equal energy; the query is another clip."""
    drawn = mixtures.load(data.path / "mixtures.jsonl")
    assert [m.target for m in drawn] == [i for ids in data.by_label().values() for i in ids]
    for m in drawn:
        target, other = mixtures.render(m, data, 80_000)
        assert float(target.square().sum() / other.square().sum()) == pytest.approx(1, abs=1e-3)
        assert m.interferer_labels != [m.label] and m.image is None
        assert m.audio_query_split == "test" and data.label[m.audio_query] == m.label
        assert m.audio_query.split("-")[1] != m.target.split("-")[1]  # another source
        assert m.text == f"the sound of {m.label}"


def program(name: str):
    """A program of the recipe as a module; other recipes have some of the same name."""
    spec = importlib.util.spec_from_file_location(f"esc50_{name}", LOCAL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(original, data, *arguments):
    command = [sys.executable, LOCAL / "prepare.py", "--esc50", original, "--data", data]
    return subprocess.run(
        [*command, "--valid-mixtures", "2", *arguments], capture_output=True, text=True, check=False
    )


def test_every_fault_is_named_by_file_and_line_and_the_rest_is_used(original, tmp_path):
    table, audio = original / "meta" / "esc50.csv", original / "audio"
    lines = table.read_bytes().splitlines()
    names = [line.split(b",")[0].decode() for line in lines]
    (audio / names[1]).unlink()
    (audio / names[2]).write_bytes((audio / names[2]).read_bytes()[:20_000])
    (audio / names[3]).write_bytes(b"no sound")
    soundfile.write(audio / names[4], np.zeros(RATE), RATE)
    lines[5] = lines[6]
    lines[7] = lines[7].replace(b"dog", b"dog, barking")
    lines[8] = lines[8].replace(b"dog", b'"dog, barking"')
    lines[9] = lines[9].replace(b"dog", "chien aboyé".encode())
    lines[10] = lines[10].replace(b"dog", b"chien aboy\xe9")
    lines[11] = lines[11].replace(b",1,1,", b",6,1,")
    lines[12] = lines[12].replace(b"sea_waves", b"")
    lines[13] = b"../" + lines[13]
    lines[14] = lines[14].replace(b"sea_waves", b'"sea')
    table.write_bytes(b"\n".join([*lines, b"5-4999-A-4.w"]))  # cut off
    before = sorted(path.stat().st_mtime_ns for path in original.rglob("*"))
    done = prepare(original, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    said = [line.split("esc50.csv:")[1] for line in done.stdout.splitlines() if ".csv:" in line]
    expected = {
        2: f"audio/{names[1]} is not there", 3: f"audio/{names[2]}: is cut off",
        4: f"audio/{names[3]}: not a readable", 5: f"audio/{names[4]}: is silent",
        7: "is in line 6, too", 8: "has 8 fields, the heading has 7", 11: "is not UTF-8",
        12: "fold 6 is none of 1 to 5", 13: "has no category", 14: "not the plain name",
        15: "is not comma-separated", 52: "has 1 fields",
    }  # fmt: skip
    assert {int(line.split(":")[0]) for line in said} == set(expected)
    for line, what in expected.items():
        assert any(s.startswith(f"{line}: ") and what in s for s in said), (line, said)
    assert "12 listed clips are left out; 39 are used" in done.stdout
    labels = {v for name in SPLITS for v in DataDir(tmp_path / "data" / name).label.values()}
    assert {"dog, barking", "chien aboyé"} <= labels
    assert sorted(path.stat().st_mtime_ns for path in original.rglob("*")) == before


def test_it_stops_in_one_line_only_if_nothing_is_usable(original, tmp_path):
    data = tmp_path / "data"
    shutil.rmtree(original / "audio")
    done = prepare(original, data)
    assert done.returncode == 1 and done.stdout.count("is not there; fetch it") == 50
    assert "train: 0 usable classes, two are needed" in done.stderr
    table = original / "meta" / "esc50.csv"
    table.write_text(table.read_text().replace("src_file", "source").replace("fold", "part"))
    done = prepare(original, data)
    assert done.returncode == 1 and "esc50.csv:1: has no column fold, src_file" in done.stderr
    table.unlink()
    done = prepare(original, data)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "give the folder with audio/ and meta/" in done.stderr


def test_a_fold_out_of_range_is_refused(recipe):
    done = call(recipe, "esc50", "--fold", "6")
    assert done.returncode == 2 and done.stderr.startswith("error: --fold takes 1 to 5, not 6")


def test_where_a_clip_goes():
    split_of = program("prepare").split_of
    assert len(set(program("prepare").HELD_OUT)) == 10
    clip = esc50.Clip(Path("x.wav"), "dog", "1", "5", 2)
    assert [split_of(clip, fold, False) for fold in range(1, 6)] == [
        "train", "train", "train", "valid", "test",
    ]  # fmt: skip
    assert split_of(clip, 5, True) == "train" and split_of(clip, 4, True) == "valid"


class Archive(http.server.BaseHTTPRequestHandler):
    """Serves `body`; the first connection breaks half-way."""

    body, asked = b"", []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=")[:-1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.body) - start))
        self.end_headers()
        end = len(self.body) // 2 if len(self.asked) == 1 else len(self.body)
        self.wfile.write(self.body[start:end])

    def log_message(self, *_):
        pass


def test_a_broken_download_leaves_no_half_file_and_goes_on(original, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("no_proxy", "*")
    download = program("download").run
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(original.rglob("*.*")):
            archive.write(path, f"ESC-50-master/{path.relative_to(original)}")
        archive.writestr("ESC-50-master/../../outside.wav", b"x")
    Archive.body, Archive.asked = packed.read_bytes(), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    into = tmp_path / "downloads" / "ESC-50-master"

    url = f"http://127.0.0.1:{server.server_port}/master.zip"
    try:
        with pytest.raises(DataError, match="bytes early; run again to go on"):
            download(into, url)
        assert [p.name for p in into.parent.iterdir()] == ["ESC-50-master.zip.part"]
        download(into, url)
    finally:
        server.shutdown()
        server.server_close()
    assert Archive.asked == [None, f"bytes={len(Archive.body) // 2}-"]
    assert {p.name for p in into.rglob("*.*")} == {p.name for p in original.rglob("*.*")}
    assert not (tmp_path / "outside.wav").exists()
    download(into, url)  # without a request
    assert "ESC-50 is there" in capsys.readouterr().out
    shutil.rmtree(into.parent)
    with pytest.raises(DataError, match=r"refused; run again .* or give --esc50 DIR"):
        download(into, url)  # nothing listens there any more
    assert list(into.parent.iterdir()) == []
