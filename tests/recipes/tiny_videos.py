"""Short real videos for tests of recipes: a moving picture and a sound of its own."""

import importlib.util
import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import soundfile

from sep import container

ROOT = Path(__file__).parents[2]
RATE = 22_050


def ffmpeg(*options: str) -> None:
    """Run ffmpeg quietly."""
    command = [container.ffmpeg(), "-nostdin", "-v", "error", "-y"]
    subprocess.run([*command, *map(str, options)], check=True)


def sound(path: Path, hz: float, seed: int, seconds: float = 1.0) -> Path:
    """A recording of a tone, or noise for 0 Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * hz * (1 + 0.02 * seed) * time) if hz else 0
    wave = wave + (0.01 if hz else 0.1) * draw.normal(size=len(time))
    soundfile.write(path, wave, RATE)
    return path


def video(path: Path, hz: float, seed: int, seconds: float = 1.0) -> Path:
    """A video of a test picture with that recording as its sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = sound(path.with_suffix(".tmp.wav"), hz, seed, seconds)
    picture = f"testsrc=size=64x48:rate=5:duration={seconds}"
    ffmpeg("-f", "lavfi", "-i", picture, "-i", wav, *"-c:v mpeg4 -c:a aac -b:a 64k".split(), path)
    wav.unlink()
    return path


def frames(folder: Path, count: int = 3) -> Path:
    """A folder of numbered frames."""
    folder.mkdir(parents=True, exist_ok=True)
    source = f"testsrc=size=64x48:rate=1:duration={count}"
    ffmpeg("-f", "lavfi", "-i", source, folder / "%06d.jpg")
    return folder


def program(name: str, stage: str) -> ModuleType:
    """A program in `local` of a recipe as a module; other recipes have some of the same name."""
    path = ROOT / "egs" / name / "local" / f"{stage}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_{stage}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(name: str, *arguments: str | Path) -> SimpleNamespace:
    """Run the preparation of a recipe alone; returns what a finished process has."""
    words = ["prepare.py", "--valid-mixtures", "2", *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", words), redirect_stdout(out), redirect_stderr(err)
    ):  # fmt: skip
        try:
            program(name, "prepare").main()
        except SystemExit as end:
            code = 1
            print(end, file=err)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
