"""Every block of the README is run: what a newcomer types must work."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageDraw

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
LONG = {"egs/mini_sounds/run.sh\n", "tests/run.sh\n"}  # the recipe; and what runs this very test
SERVE = "sep serve\n"  # ends when it is told to
SHORT = [code for language, code in BLOCKS if language == "bash" and code not in {*LONG, SERVE}]


def run(code: str, home: Path, **environment: str) -> str:
    """Run a block with bash in `home`; returns what it prints."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=home,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the files that the README names, seen from a clone with its environment."""
    home = tmp_path_factory.mktemp("readme")
    (home / ".venv").symlink_to(sys.prefix)
    (home / "egs").symlink_to(ROOT / "egs")
    rng = np.random.default_rng(0)
    time = np.arange(2 * 44_100) / 44_100
    bark = np.sin(2 * np.pi * 500 * time) * (np.sin(2 * np.pi * 2 * time) > 0.6) * 0.3
    street = np.stack([bark + rng.normal(size=len(time)) * 0.05] * 2, 1)
    soundfile.write(home / "bark.wav", bark, 44_100)
    soundfile.write(home / "street.wav", street, 44_100)
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((8, 8, 56, 56), fill="brown")
    picture.save(home / "dog.png")
    for name in ("references", "estimates"):
        (home / name).mkdir()
        soundfile.write(home / name / "street.wav", street[:, 0] + 0.01 * (name < "f"), 44_100)
    return home


def test_the_readme_has_the_two_commands():
    assert LONG <= {code for language, code in BLOCKS if language == "bash"}
    assert len(SHORT) >= 3


@pytest.mark.parametrize("code", SHORT, ids=lambda code: code.split("\n")[-2][:40])
def test_shell_blocks_run(code, home, model_dir):
    assert run(code, home, SEP_MODEL=str(model_dir))


def test_files_that_a_separation_prints_exist_and_add_up(home):
    mixture, rate = soundfile.read(home / "street.wav")
    parts = [
        soundfile.read(home / "separated" / f"street.{part}.wav")[0]
        for part in ("target", "residual")
    ]
    assert rate == 44_100
    np.testing.assert_array_equal(parts[0] + parts[1], mixture)


def test_the_page_is_served_until_it_is_stopped(home, model_dir):
    pytest.importorskip("gradio", reason="gradio is not installed (extra ui)")
    assert ("bash", SERVE) in BLOCKS
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    process = subprocess.Popen(
        ["bash", "-c", f"exec {SERVE.strip()} --port {port}"],
        cwd=home,
        env={**os.environ, "SEP_MODEL": str(model_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    first = process.stdout.readline()
    process.terminate()
    rest = process.communicate(timeout=60)[0]
    assert first.startswith(f"http://127.0.0.1:{port}/") and process.returncode == 0, first + rest


def test_python_block_runs(home, model_dir):
    (code,) = [code for language, code in BLOCKS if language == "python"]
    (home / "block.py").write_text(code)
    assert "44100" in run(f"{sys.executable} block.py", home, SEP_MODEL=str(model_dir))


@pytest.mark.slow
def test_the_recipe_ends_with_a_table_and_its_programs_run_alone():
    printed = run("egs/mini_sounds/run.sh\n", ROOT)
    assert "| rl" in printed and "separated sounds" in printed
    for code in (code for language, code in BLOCKS if language == "sh"):
        run(code, ROOT / "egs" / "mini_sounds", PATH=f"{sys.prefix}/bin:{os.environ['PATH']}")
