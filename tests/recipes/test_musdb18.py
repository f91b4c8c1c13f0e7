"""musdb18 on a tiny tree laid out like the original: all stages, both editions, every fault."""

import csv
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from copied import call, copied

from sep import audio, container
from sep.data import mixtures, musdb
from sep.data.kaldi import DataDir
from sep.errors import AudioFileError, DataError

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "egs" / "musdb18" / "local"
RATE = 44_100
SPLITS = ("train", "valid", "test")
TRAIN = ("Cnoc An Tùrsa - Bánnockburn", "Night, Day & Owl - So It Goes")
VALID = ("Actions - One Minute Smile", "Meaxic - Take A Step")
TEST = ("AM Contra - Heart Peripheral", "Zeno - Signs")
try:
    PROGRAM = container.ffmpeg()
except AudioFileError:
    PROGRAM = ""
needs_ffmpeg = pytest.mark.skipif(not PROGRAM, reason="ffmpeg is not installed")


def sounds(seed: int, seconds: float = 3.0) -> dict[str, np.ndarray]:
    """The parts of a song, (N, 2) each: tones, clicks, a low tone and noise, panned apart."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    waves = {
        "vocals": 0.2 * np.sin(2 * np.pi * (500 + 40 * seed) * time + 3 * np.sin(6 * time)),
        "drums": 0.3 * draw.normal(size=len(time)) * np.exp(-20 * (time % 0.25)),
        "bass": 0.2 * np.sin(2 * np.pi * (60 + 3 * seed) * time),
        "other": 0.05 * np.sign(np.sin(2 * np.pi * (1500 + 90 * seed) * time)),
    }
    pans = {"vocals": (1, 1), "drums": (1, 0.8), "bass": (1, 1), "other": (0.3, 1)}
    stereo = {name: np.outer(wave, pans[name]) for name, wave in waves.items()}
    return {"mixture": sum(stereo.values()), **stereo}


def write_folder(folder: Path, parts: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for name, wave in parts.items():
        soundfile.write(folder / f"{name}.wav", wave, RATE, subtype="PCM_16")


def write_stems(path: Path, parts: dict[str, np.ndarray]) -> None:
    """A .stem.mp4 as the original's: five AAC tracks in the order of TRACKS."""
    folder = path.with_name(f"{path.name}.parts")
    write_folder(folder, parts)
    names = [str(folder / f"{name}.wav") for name in musdb.TRACKS]
    inputs = [word for name in names for word in ("-i", name)]
    maps = [word for k in range(5) for word in ("-map", str(k))]
    command = [PROGRAM, "-v", "error", *inputs, *maps, "-c:a", "aac", "-b:a", "256k", str(path)]
    subprocess.run(command, check=True)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two songs a split; with ffmpeg the first of each subset is a .stem.mp4."""
    root = tmp_path_factory.mktemp("musdb18")
    for subset, names in (("train", (*TRAIN, *VALID)), ("test", TEST)):
        (root / subset).mkdir(parents=True)
        for k, name in enumerate(names):
            parts = sounds(len(name) + k)
            if PROGRAM and k == 0:
                write_stems(root / subset / f"{name}.stem.mp4", parts)
            else:
                write_folder(root / subset / name, parts)
    return root


@pytest.fixture
def original(published, tmp_path):
    """A copy of that for each test."""
    return shutil.copytree(published, tmp_path / "MUSDB 18")


@pytest.fixture
def recipe(tmp_path):
    return copied(tmp_path, "musdb18")


def prepare(original, data):
    command = [sys.executable, LOCAL / "prepare.py", "--musdb", original, "--data", data]
    return subprocess.run(
        [*command, "--valid-mixtures", "4", "--test-mixtures", "4"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def program(name: str):
    """A program of the recipe as a module; other recipes have some of the same name."""
    spec = importlib.util.spec_from_file_location(f"musdb18_{name}", LOCAL / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recipe_runs_to_the_scores_of_whole_songs(recipe, original):
    done = call(recipe, "musdb18", "--musdb", str(original))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "train: 2 songs of 86, 8 chunks of stems" in done.stdout
    assert "note:" not in done.stdout
    check_data(recipe / "egs" / "musdb18" / "data")
    exp = recipe / "egs" / "musdb18" / "exp" / "main"
    for system in ("supervised", "control", "rl"):
        for song in TEST:
            folder = exp / "separated" / "songs" / system / "test" / song
            assert {path.stem for path in folder.iterdir()} == set(musdb.STEMS)
            found = [soundfile.info(path) for path in folder.iterdir()]
            assert {(f.samplerate, f.channels, f.frames) for f in found} == {(RATE, 2, 3 * RATE)}
    with open(exp / "scores" / "songs.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 4 * 5  # windows and whole, songs, stems, systems
    sdr = {
        system: np.mean([float(r["sdr_images"]) for r in rows if r["system"] == system])
        for system in ("mixture", "ideal", "rl")
    }
    assert sdr["ideal"] > sdr["mixture"] + 5 and np.isfinite(sdr["rl"])
    page = (exp / "RESULTS.md").read_text(encoding="utf-8")
    for line in (
        "| SDR vocals |",
        "| ISR other |",
        "| SIR, mean of the stems |",
        "rl - control, SDR",
    ):
        assert line in page and line in done.stdout
    assert "## Excerpts" in page and "SI-SDRi" in page
    assert "nothing above 8 kHz" in page


def check_data(data: Path) -> None:
    """Songs are in their splits; excerpts are moments of songs, each stem the target in turn."""
    splits = {name: DataDir(data / name) for name in SPLITS}
    for split, names in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        assert len(splits[split]) == 4 * len(names)
        assert set(splits[split].label.values()) == set(musdb.STEMS)
    songs = (data / "songs.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in songs] == sorted(TEST)
    test = splits["test"]
    drawn = mixtures.load(test.path / "mixtures.jsonl")
    assert len(drawn) == 8 and {(m.target, m.text) for m in drawn} == set(test.text.items())
    for m in drawn:
        song = m.target.split("-")[0]
        assert {i.split("-")[0] for i in m.interferers} == {song} and len(m.interferers) == 3
        assert m.gains_db == [0.0] * 4 and len(set(m.offsets_s)) == 1
        assert m.audio_query.split("-")[0] != song and test.label[m.audio_query] == m.label
    (m,) = [m for m in drawn if m.target.startswith("Zeno") and m.label == "bass"]
    whole = torch.from_numpy(sounds(len(TEST[1]) + 1)["mixture"].mean(1))
    whole = audio.resample(whole, RATE, 16_000)
    rendered = mixtures.render(m, test, len(whole)).sum(0)
    assert (rendered - whole).square().mean() < 1e-4 * whole.square().mean()


@needs_ffmpeg
def test_a_stem_file_is_read_track_by_track_without_a_delay(original):
    songs, faults = musdb.read(original)
    assert not faults
    (song,) = [s for s in songs if s.name == TRAIN[0]]
    assert song.split == "train" and song.path.name.endswith(".stem.mp4")
    mixture, stems, rate = musdb.parts(song)
    parts = sounds(len(TRAIN[0]))
    assert rate == RATE and stems.shape == (4, 2, mixture.shape[-1])
    for name, wave in (("mixture", mixture), *zip(musdb.STEMS, stems, strict=True)):
        true = parts[name].T[:, : wave.shape[-1]]
        assert wave.shape[-1] == len(parts[name])
        error = np.square(wave.numpy() - true).sum() / np.square(true).sum()
        assert error < (0.3 if name == "drums" else 0.03), (name, error)


def test_every_fault_is_named_and_the_rest_is_used(original, tmp_path):
    train, test = original / "train", original / "test"
    (train / TRAIN[1] / "bass.wav").unlink()
    cut = train / VALID[0] / "other.wav"
    cut.write_bytes(cut.read_bytes()[:200_000])
    (train / VALID[1] / "vocals.wav").write_bytes(b"no sound")
    broken = train / "Half - Fetched.stem.mp4"
    broken.write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 500)
    write_folder(train / TEST[1], sounds(1))
    write_folder(train / "Wrong - Drums", {**sounds(2), "drums": sounds(9)["drums"]})
    quiet = sounds(3)
    quiet["mixture"], quiet["vocals"] = quiet["mixture"] - quiet["vocals"], 0 * quiet["vocals"]
    write_folder(train / "Without - Words", quiet)
    (test / "readme.txt").write_text("hello")
    (test / ".DS_Store").write_bytes(b"")
    if not PROGRAM:
        broken.unlink()
    before = sorted(path.stat().st_mtime_ns for path in original.rglob("*"))
    done = prepare(original, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    faults = [line for line in done.stdout.splitlines() if str(original) in line]
    expected = {
        f"{train / TRAIN[1]}: has no bass.wav; fetch it again",
        f"{train / VALID[0]}: other has ",
        f"{train / VALID[1] / 'vocals.wav'}: not a readable recording",
        f"{train / TEST[1]}: is in {test}, too; remove one",
        f"{test / 'readme.txt'}: is no folder of WAV files and no .stem.mp4; remove it",
        f"note: {train / 'Wrong - Drums'}: the stems add up to the mixture only to",
    }
    expected |= {f"{broken}: "} if PROGRAM else set()
    assert len(faults) == len(expected)
    for start in expected:
        assert sum(line.startswith(start) for line in faults) == 1, (start, faults)
    assert "valid: none of its songs is here; training songs validate" in done.stdout
    labels = DataDir(tmp_path / "data" / "train").label
    quiet_ids = {id_ for id_ in labels if id_.startswith("Without-Words")}
    assert {labels[id_] for id_ in quiet_ids} == {"drums", "bass", "other"}
    assert sorted(path.stat().st_mtime_ns for path in original.rglob("*")) == before


def test_it_stops_in_one_line_only_if_nothing_is_usable(original, tmp_path):
    shutil.rmtree(original / "test")
    done = prepare(original, tmp_path / "data")
    assert done.returncode == 1 and f"{original / 'test'}: is not there; fetch it" in done.stdout
    assert "test: no usable bass, drums, other, vocals" in done.stderr
    shutil.rmtree(original / "train")
    with pytest.raises(DataError, match="has no train/ and test/; give the folder of MUSDB18"):
        musdb.read(original)


def test_the_archive_is_unpacked_and_without_a_network_the_way_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    download, into = program("download"), tmp_path / "downloads" / "musdb18"
    monkeypatch.setattr(musdb, "SONGS", {"train": 1, "test": 1})
    nowhere = "http://127.0.0.1:9/musdb18hq.zip"
    with pytest.raises(DataError, match=r"put the archive at .*musdb18hq\.zip.* or give --musdb"):
        download.run(into, nowhere)
    members = [f"train/A - B/{name}.wav" for name in musdb.TRACKS]
    members += ["musdb18/test/C - D.stem.mp4"]
    with zipfile.ZipFile(into.parent / "musdb18hq.zip", "w") as archive:
        for name in (*members, "train/../vocals.wav", "README.md"):
            archive.writestr(name, b"x")
    download.run(into, nowhere)
    found = {path.relative_to(into).as_posix() for path in into.rglob("*.*") if path.is_file()}
    assert found == {name.removeprefix("musdb18/") for name in members}
