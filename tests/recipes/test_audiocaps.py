"""audiocaps on a tiny tree laid out like the original: all stages, the mixtures, every fault."""

import argparse
import csv
import functools
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from copied import call, copied

from sep.data import audiocaps, mixtures
from sep.data.kaldi import DataDir
from sep.errors import DataError

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "egs" / "audiocaps" / "local"
RATE = 32_000
HEADING = "audiocap_id,youtube_id,start_time,caption"
SPLITS = ("train", "valid", "test")
# id, start, pitch (0: noise), name of the file, captions
CLIPS = {
    "train": [
        ("-trainDog01", 30, 600, "-trainDog01.wav", ["A dog barks"]),
        ("trainDog_02", 0, 640, "YtrainDog_02.flac", ["Dogs bark, growl and bark"]),
        ("trainRain01", 10, 0, "trainRain01_10.wav", ["Rain falls on a café's roof"]),
        ("trainRain02", 10, 0, "deep/YtrainRain02_10_20.wav", ["It rains"]),
        ("trainBell01", 5, 2500, "1005.ogg", ["A bell rings"]),
        ("trainBell02", 5, 2400, "trainBell02.wav", ["Church bells chime"]),
    ],
    "val": [
        ("validDog_01", 0, 580, "validDog_01.wav", ["A dog", "A puppy yips", "Barking"]),
        ("validRain01", 0, 0, "validRain01.wav", ["Rain", "Rainfall", "It drizzles, rain"]),
        ("validBell01", 0, 2300, "validBell01.wav", ["A bell", "Bells chime", "A bell dings"]),
    ],
    "test": [
        ("test_Dog-01", 0, 620, "Ytest_Dog-01.wav", ["A dog barks", "Barking, loud", "A hound"]),
        ("test_Rain01", 0, 0, "test_Rain01.wav", ["Rain pours", "Rain, steady", "Drops of rain"]),
        ("test_Bell01", 0, 2600, "test_Bell01.wav", ["A bell tolls", "Bells", "A “ding”, bell"]),
        ("test_Both01", 0, 660, "test_Both01.wav", ["A dog barks in the rain", "Dog", "Rain"]),
    ],
}


def sound(hz: float, seed: int, seconds: float = 1.5) -> np.ndarray:
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * hz * time) if hz else 0
    return (wave + (0.01 if hz else 0.2) * draw.normal(size=len(time))).clip(-1, 1)


def table(split: str) -> list[str]:
    """The lines of a table: caption after caption, each with its own number."""
    rows, number = [], {"train": 1000, "val": 2000, "test": 3000}[split]
    for k, (id_, start, _, _, captions) in enumerate(CLIPS[split]):
        for j, caption in enumerate(captions):
            quoted = f'"{caption}"' if "," in caption else caption
            own = number + (k + 1 if j == 0 else 100 * j + k)
            rows.append(f"{own},{id_},{start},{quoted}")
    return rows


@pytest.fixture
def original(tmp_path):
    """Three tables and a folder of recordings with names as they are in use."""
    root = tmp_path / "Audio Caps"
    (root / "audio" / "deep").mkdir(parents=True)
    for split, found in CLIPS.items():
        lines = "\r\n".join([HEADING, *table(split)]) + "\r\n"
        (root / f"{split}.csv").write_bytes(lines.encode())
        for k, (_, _, hz, name, _) in enumerate(found):
            soundfile.write(root / "audio" / name, sound(hz, k), RATE)
    return root


@pytest.fixture
def recipe(tmp_path):
    return copied(tmp_path, "audiocaps")


def prepare(original, data, *arguments):
    command = [sys.executable, LOCAL / "prepare.py", "--tables", original, "--data", data]
    return subprocess.run(
        [*command, "--audio", original / "audio", "--valid-mixtures", "3", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def write_pairs(path: Path) -> Path:
    """A list like AudioSep's: a mixture a caption, each with another clip."""
    dog, rain, bell = (f"Ytest_{name}01" for name in ("Dog-", "Rain", "Bell"))
    rows = [
        f"0,A dog barks,Bow-wow Dog,{dog}.wav,{rain}.wav",
        f'1,"Barking, loud",Bow-wow Dog,{dog}.wav,{bell}.wav',
        f'2,Rain pours,"Rain Inside, small room",{rain}.wav,{dog}.wav',
        f"3,A bell tolls,Bell,{bell}.wav,Ytest_Gone01.wav",
        f"4,Bells,Bell,{bell}.wav,{dog}.wav",
    ]
    path.write_text("\n".join(["idx,caption,labels,src_wav,noise_wav", *rows]) + "\n")
    return path


@pytest.mark.slow
def test_audioseps_mixtures_are_made_and_the_recipe_runs_to_scores(recipe, original):
    write_pairs(original / "audiocaps_eval.csv")
    words = ("--tables", str(original), "--audio", str(original / "audio"), "--captions", "all")
    done = call(recipe, "audiocaps", *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "audiocaps_eval.csv: 4 mixtures of 5 can be made" in done.stdout
    assert "audiocaps_eval.csv:5: Ytest_Gone01 is no usable clip" in done.stdout
    home = recipe / "egs" / "audiocaps"
    test = DataDir(home / "data" / "all" / "test")
    drawn = mixtures.load(test.path / "mixtures.jsonl")
    assert [(m.text, m.target, m.interferers) for m in drawn] == [
        ("A dog barks", "Ytest_Dog-01", ["Ytest_Rain01"]),
        ("Barking, loud", "Ytest_Dog-01-caption2", ["Ytest_Bell01"]),
        ("Rain pours", "Ytest_Rain01", ["Ytest_Dog-01"]),
        ("Bells", "Ytest_Bell01", ["Ytest_Dog-01"]),
    ]
    assert drawn[2].label == "Rain Inside, small room" and drawn[2].interferer_labels == [
        "Bow-wow Dog"
    ]
    with open(home / "exp/main/scores/per_clip.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for system in ("mixture", "ideal", "supervised", "control", "rl"):
        assert sum(row["system"] == system and row["query"] == "text" for row in rows) == 4
    untouched = [float(r["sdr_images"]) for r in rows if r["system"] == "mixture"]
    assert np.allclose(untouched, 0, atol=0.01)
    assert soundfile.info(home / "exp/main/separated/rl/mix0000.wav").frames == 160_000
    assert "SDR (images)" in (home / "exp/main/scores/table.md").read_text()


def test_clips_that_share_a_sound_are_not_mixed(original, tmp_path):
    done = prepare(original, tmp_path / "data", "--train-clips", "4")
    assert done.returncode == 0, done.stderr
    splits = {name: DataDir(tmp_path / "data" / name) for name in SPLITS}
    assert sorted(splits["train"].label.values()).count("bell") >= 1  # 4 of 6, from every kind
    assert len(splits["train"]) == 4 and len(set(splits["train"].label.values())) == 3
    test = splits["test"]
    assert test.label == {
        "Ytest_Dog-01": "dog", "Ytest_Rain01": "rain", "Ytest_Bell01": "bell",
        "Ytest_Both01": "dog",
    }  # fmt: skip
    assert (
        "Rain falls on a café's roof" in {clip[4][0] for clip in CLIPS["train"]}
        and test.text["Ytest_Bell01"] == "A bell tolls"
    )
    drawn = {m.target: m for m in mixtures.load(test.path / "mixtures.jsonl")}
    assert set(drawn) == set(test.ids)
    assert drawn["Ytest_Both01"].interferers == ["Ytest_Bell01"]  # neither a dog nor rain
    for m in drawn.values():
        target, other = mixtures.render(m, test, 160_000)
        assert float(target.square().sum() / other.square().sum()) == pytest.approx(1, abs=1e-3)
    assert drawn["Ytest_Dog-01"].audio_query == "Ytest_Both01"
    assert len(mixtures.load(tmp_path / "data/valid/mixtures.jsonl")) == 3


def test_every_fault_is_named_by_file_and_line_and_the_rest_is_used(original, tmp_path):
    path, sounds = original / "train.csv", original / "audio"
    lines = path.read_bytes().splitlines()
    lines[1] = lines[2].replace(b"1002", b"1001")  # the file of line 2 has no line now
    lines += [
        b"1002,trainOther1,0,A twin number",
        b"1010,trainGone01,0,Nothing there",
        b"1011,trainBell02,7,Another time",
        b"1012,test_Dog-01,0,A clip that tests",
        b"1013,trainComma1,0,A dog, a cat",
        b"1014,trainLatin1,0,Un caf\xe9",
        b"1015,trainEmpty1,0,",
        b"1016,trainStart1,soon,A dog",
        b'1017,trainQuote1,0,"A dog',
        b"1018,trainCut_01,0,A dog",
        b"1019,trainText01,0,A dog",
        b"1020,trainQuiet1,0,A dog",
        b"1021,trai",
    ]
    path.write_bytes(b"\n".join(lines))
    for name in ("trainCut_01", "trainQuiet1"):
        soundfile.write(sounds / f"{name}.wav", sound(500, 1) * (name != "trainQuiet1"), RATE)
    cut = sounds / "trainCut_01.wav"
    cut.write_bytes(cut.read_bytes()[:20_000])
    (sounds / "trainText01.wav").write_bytes(b"no sound")
    before = sorted(p.stat().st_mtime_ns for p in original.rglob("*"))
    done = prepare(original, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "train: 8 of 9 clips have a recording" in done.stdout
    assert "test: 4 of 4 clips have a recording" in done.stdout
    expected = {
        8: "audiocap_id 1002 is in train.csv:3, too", 9: "trainGone01 has no recording",
        10: "trainBell02 starts at another time in line 7", 11: "is in test.csv:2, too",
        12: "has 5 fields, the heading has 4", 13: "is not UTF-8", 14: "has no caption",
        15: "start_time soon is no time", 16: "is not comma-separated", 17: "is cut off",
        18: "not a readable recording", 19: "is silent", 20: "has 2 fields",
    }  # fmt: skip
    said = (tmp_path / "data" / "faults.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in done.stdout.splitlines() if "train.csv:" in line] == said
    found = {int(line.split("train.csv:")[1].split(":")[0]): line for line in said}
    assert set(found) == set(expected) and len(said) == len(expected)
    for number, what in expected.items():
        assert what in found[number]
    train = DataDir(tmp_path / "data" / "train")
    assert len(train) == 5 and train.text["YtrainRain01"] == "Rain falls on a café's roof"
    assert train.text["YtrainDog_02"] == "Dogs bark, growl and bark"
    assert sorted(p.stat().st_mtime_ns for p in original.rglob("*")) == before


def test_it_stops_in_one_line_only_if_nothing_is_usable(original, tmp_path):
    def fails(what):
        options = {"tables": original, "audio": original / "audio", "data": tmp_path / "data"}
        with pytest.raises(DataError, match=what) as error:
            program("prepare").run(argparse.Namespace(**options))
        assert "\n" not in str(error.value)

    path = original / "test.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("youtube_id", "id"))
    fails(r"test\.csv:1: has no column youtube_id")
    for name in ("train", "val", "test"):
        (original / f"{name}.csv").unlink()
    fails(r"has no train\.csv, val\.csv or test\.csv; put the three tables of")
    shutil.rmtree(original / "audio")
    fails(r"put the clips there as YOUTUBE_ID\.wav, or give --audio DIR")


def test_a_validation_table_without_a_column_is_a_fault_among_others(original, tmp_path):
    path = original / "val.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("youtube_id", "id"))
    done = prepare(original, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "val.csv:1: has no column youtube_id" in done.stdout
    assert len(DataDir(tmp_path / "data" / "valid")) > 0  # taken from the others


def test_a_whole_video_gives_the_ten_seconds_of_its_clip(tmp_path):
    prepare_module = program("prepare")
    wave = np.concatenate([sound(300, 1, 20), sound(3000, 2, 10), sound(300, 3, 5)])
    soundfile.write(tmp_path / "video.wav", wave, RATE)
    clip = audiocaps.Clip("Yvideo", "test", 2, 20.0, tmp_path / "video.wav", ["A tone"])
    assert prepare_module.convert((clip, tmp_path)) == [("Yvideo", 10.0)]
    cut, rate = soundfile.read(tmp_path / "Yvideo.wav")
    spectrum = np.abs(np.fft.rfft(cut))
    assert np.argmax(spectrum) * rate / len(cut) == pytest.approx(3000, abs=2)
    late = audiocaps.Clip("Ylate", "test", 2, 90.0, tmp_path / "video.wav", ["A tone"])
    assert "give a start inside the recording" in prepare_module.convert((late, tmp_path))


def test_families_are_read_off_the_words_of_captions():
    of = program("families").of
    assert of(["A man speaks while dogs bark"]) == ["dog", "man", "speech"]
    assert of(["A carpenter cares"]) == ["other sounds"]  # no car
    assert of(["Wind", "A sewing machine"])[0] == "sewing machine"


def test_tables_come_from_a_mirror_and_without_one_the_way_is_told(
    tmp_path, original, monkeypatch, capsys
):
    monkeypatch.setenv("no_proxy", "*")
    run, into = program("download").run, tmp_path / "downloads"
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=original)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(DataError, match=r"put the file at .*train\.csv, or give --tables DIR"):
            run(into, f"{url}/nowhere", f"{url}/nowhere.csv")
        run(into, url, f"{url}/nowhere.csv")
        assert {path.name for path in into.iterdir()} == {"train.csv", "val.csv", "test.csv"}
        assert "without it the mixtures are drawn anew" in capsys.readouterr().out
        write_pairs(original / "pairs.csv")
        run(into, url, f"{url}/pairs.csv")
    finally:
        server.shutdown()
        server.server_close()
    for ours, theirs in (("audiocaps_eval", "pairs"), ("val", "val")):
        assert (into / f"{ours}.csv").read_bytes() == (original / f"{theirs}.csv").read_bytes()


def program(name: str):
    """A program of the recipe as a module; other recipes have some of the same name."""
    sys.path.insert(0, str(LOCAL))
    try:
        spec = importlib.util.spec_from_file_location(f"audiocaps_{name}", LOCAL / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(LOCAL))
    return module
