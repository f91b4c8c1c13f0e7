"""run.sh from recordings to scores, with tiny networks, on clips that the test makes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

ROOT = Path(__file__).parents[2]
RATE = 16_000


def make_sounds(root: Path) -> None:
    """Three classes of six clips: chirps, filtered noise and beats; one class has a picture."""
    draw = np.random.default_rng(0)
    for name in ("bird", "rain", "drum"):
        (root / name).mkdir(parents=True)
        for k in range(6):
            time = np.arange(round((1 + 0.2 * k) * RATE)) / RATE
            noise = draw.normal(0, 0.2, len(time))
            wave = {
                "bird": 0.5 * np.sin(2 * np.pi * (2_000 + 50 * k + 800 * np.sin(9 * time)) * time),
                "rain": noise,
                "drum": np.convolve(noise, np.ones(40) / 20, "same") * np.exp(-9 * (time % 0.4)),
            }[name]
            soundfile.write(root / name / f"{k}.wav", wave.clip(-1, 1), RATE)
    Image.new("RGB", (64, 64), "green").save(root / "bird" / "bird.png")


@pytest.fixture
def recipe(tmp_path):
    """A copy of the recipe's scripts beside links to the programs, so that egs/ stays untouched."""
    (tmp_path / "egs").mkdir()
    shutil.copytree(
        ROOT / "egs" / "mini_sounds",
        tmp_path / "egs" / "mini_sounds",
        ignore=shutil.ignore_patterns("downloads", "data", "exp", "__pycache__"),
    )
    (tmp_path / "egs" / "common").symlink_to(ROOT / "egs" / "common")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    make_sounds(tmp_path / "sounds")
    (tmp_path / "sounds" / "rain" / "broken.wav").write_bytes(b"not a recording")
    return tmp_path


def call(recipe, *arguments):
    environment = {
        **os.environ,
        "SEP_VENV": "none",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["egs/mini_sounds/run.sh", "--sounds", "sounds", "--debug", "--device", "cpu"]
    return subprocess.run(
        [*command, *arguments], cwd=recipe, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def data_of(exp: Path) -> str:
    """The data directory that a run of `--sounds` made."""
    return str(next((exp.parents[1] / "data").glob("sounds-*")))


def test_recipe_runs_from_recordings_to_scores(recipe):
    done = call(recipe)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "broken.wav: not a readable recording" in done.stdout
    assert "SI-SDR" in done.stdout and "separated sounds" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    exp = recipe / "egs/mini_sounds/exp/main"
    assert sorted(p.name for p in (exp / ".done").iterdir()) == list("234567")
    for system in ("supervised", "control", "rl"):
        for name in ("config.json", "model.safetensors"):
            assert (exp / system / "best" / name).is_file()
        config = json.loads((exp / system / "best" / "config.json").read_text())
        assert len(config["provenance"]["labels"]) > 1
        waves = sorted((exp / "separated" / system).glob("*.wav"))
        assert len(waves) == 4
        for wave in waves:
            assert soundfile.info(wave).frames == 65_535
    for name in ("per_clip.csv", "summary.json", "table.md"):
        assert (exp / "scores" / name).stat().st_size > 0
    program = [sys.executable, recipe / "recipes/assess.py", "data=" + data_of(exp), "mixtures=8"]
    done = subprocess.run(program, cwd=exp.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "image-text R@5" in done.stdout and "| monotone |" in done.stdout
    assert {p.name for p in (exp / "assess").iterdir()} == {"table.md", "assess.csv", "snr.png"}
    tune = [sys.executable, recipe / "recipes/rl.py", "data=" + data_of(exp), "rl=debug", "steps=1"]
    tune += ["out=own", "valid_mixtures=2", "rl.options.tas=event", "rl.explore=copula"]
    mine = "rl.rewards={mine: {_target_: sep.rl.reward.MaskIoU, weight: 0.5}}"
    done = subprocess.run(
        [*tune, mine], cwd=exp.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "train/reward/mine" in (exp / "own" / "log.csv").read_text()
    for wrong, said in (
        ("rl.rewards={mine: {_target_: sep.rl.reward.Nothing}}", "rl.rewards.mine"),
        ("+rl.reward.applause=1", "reward 'applause' is unknown"),
        ("rl.explore=pixel", "explore 'pixel' is unknown"),
    ):
        done = subprocess.run(
            [*tune, wrong], cwd=exp.parents[1], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    again = call(recipe)
    assert again.returncode == 0 and again.stdout.count("done before, skipped") == 7
    assert "SI-SDR" in again.stdout
