"""Damaged files by the hundred through `sep separate`: one line each, nothing half-written."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sep import audio, cli, container
from sep.errors import AudioFileError

FORMS = [("wav", "PCM_16"), ("wav", "FLOAT"), ("wav", "PCM_U8"), ("flac", "PCM_16")]
FORMS += [("ogg", "VORBIS"), ("aiff", "PCM_16"), ("mp3", "MPEG_LAYER_III"), ("au", "PCM_16")]


def originals(folder: Path) -> list[Path]:
    """A short recording of every form."""
    draw = np.random.default_rng(0)
    paths = []
    for kind, subtype in FORMS:
        path = folder / f"{subtype}.{kind}"
        soundfile.write(path, 0.1 * draw.standard_normal((900, 2)), 16_000, subtype)
        paths.append(path)
    return paths


def containers(folder: Path) -> list[Path]:
    """Short recordings that ffmpeg reads, the second one in a video."""
    try:
        ffmpeg = container.ffmpeg()
    except AudioFileError:
        pytest.skip("ffmpeg is not installed")
    tone = "-f lavfi -i anoisesrc=r=16000:d=0.1:a=0.1:s=0".split()
    video = "-f lavfi -i color=red:s=16x16:d=0.1:r=10 -shortest".split()
    forms = [("a.m4a", []), ("b.mp4", video), ("c.mkv", []), ("d.aac", [])]
    for name, more in forms:
        command = [ffmpeg, "-v", "error", *tone, *more, "-c:a", "aac", str(folder / name)]
        subprocess.run(command, check=True)
    return [folder / name for name, _ in forms]


def mutate(content: bytes, draw: np.random.Generator) -> bytes:
    """One of the things that happen to files."""
    data = bytearray(content)
    kind = draw.integers(8)
    if kind == 0:
        return bytes(data[: draw.integers(len(data))])  # cut off
    if kind == 1:
        return bytes(data) + draw.bytes(100)
    if kind == 2:
        return draw.bytes(draw.integers(1, 500))
    if kind == 3:
        start = draw.integers(len(data))
        data[start : start + 40] = b"\0" * 40
        return bytes(data)
    if kind == 4:
        start = draw.integers(len(data))
        del data[start : start + draw.integers(1, 50)]
        return bytes(data)
    reach = 64 if kind < 7 else len(data)  # headers more often than what follows
    for _ in range(draw.integers(1, 6)):
        data[draw.integers(min(reach, len(data)))] ^= 1 << draw.integers(8)
    return bytes(data)


def mutants(folder: Path, sources: list[Path], count: int) -> list[bytes]:
    """Write seeded damaged files beside the good ones, whose contents it returns."""
    draw = np.random.default_rng(7)
    contents = [path.read_bytes() for path in sources]
    suffixes = [path.suffix for path in sources] + [".mp4", ".m4a", ".txt", ""]
    for k in range(count):
        pick = draw.integers(len(sources))
        other = draw.random() < 0.15
        suffix = suffixes[draw.integers(len(suffixes))] if other else sources[pick].suffix
        (folder / f"m{k:03d}{suffix}").write_bytes(mutate(contents[pick], draw))
    return contents


def special(folder: Path, good: bytes) -> None:
    """Write the cases that have a name."""
    (folder / "zero.wav").touch()
    (folder / "text.wav").write_text("hello\n")
    header = bytearray(good)
    header[24:28] = b"\0" * 4
    (folder / "rate0.wav").write_bytes(header)
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan, np.inf]), 16_000, "FLOAT")
    soundfile.write(folder / "huge.wav", np.array([1e30, -1e30, 1e30]), 16_000, "FLOAT")
    soundfile.write(folder / "none.wav", np.zeros((0, 1)), 16_000)
    os.mkfifo(folder / "pipe.wav")
    (folder / "link.wav").symlink_to("nowhere.wav")
    (folder / "folder.wav").mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.wav")).write_bytes(good)
    (folder / "closed.wav").write_bytes(good)
    (folder / "closed.wav").chmod(0)


def state(paths: list[Path]) -> dict[Path, str]:
    """Hashes of what can be read."""
    files = [p for p in paths if p.is_file() and os.access(p, os.R_OK)]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_damaged_files_are_named_and_nothing_is_half_written(
    model_dir, tmp_path, monkeypatch, capsys
):
    (tmp_path / "in").mkdir()
    contents = mutants(tmp_path / "in", originals(tmp_path / "in"), 300)
    special(tmp_path / "in", contents[0])
    done, failed = separated(tmp_path, model_dir, monkeypatch, capsys)
    assert done >= len(FORMS) and failed >= 8


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_containers_are_named_and_nothing_is_half_written(
    count, model_dir, tmp_path, monkeypatch, capsys
):
    (tmp_path / "in").mkdir()
    sources = containers(tmp_path / "in")
    mutants(tmp_path / "in", sources, count)
    done, failed = separated(tmp_path, model_dir, monkeypatch, capsys)
    assert done >= len(sources) and failed >= 2


def separated(home: Path, model_dir: Path, monkeypatch, capsys) -> tuple[int, int]:
    """Separate what is in `home`/in and check what is said and written; counts done and failed."""
    monkeypatch.chdir(home)
    paths = sorted(path for path in (home / "in").iterdir() if path.name != "folder.wav")
    before = state(paths)
    command = ["separate", *map(str, paths), "in/folder.wav.gone", "--text", "a bell"]
    code = cli.main([*command, "--model", str(model_dir), "-o", "out", "--summary", "s.json"])
    shown = capsys.readouterr()
    told = json.loads(Path("s.json").read_text())
    assert code == 1 and len(told["files"]) == len(paths) + 1
    errors = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == told["failed"] and "Traceback" not in shown.err + shown.out
    for entry in told["files"]:
        if entry["status"] == "failed":
            assert entry["source"] in entry["error"] and "\n" not in entry["error"]
    named = {name for entry in told["files"] for name in entry["outputs"]}
    written = {str(path.relative_to(home)) for path in (home / "out").rglob("*")}
    assert written == named
    for name in named:
        assert audio.info(name).frames > 0
    assert state(paths) == before
    return told["done"], told["failed"]
