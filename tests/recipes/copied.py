"""A copy of a recipe's scripts beside links to the programs, so that egs/ stays untouched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copied(home: Path, name: str) -> Path:
    """Copy the recipe egs/`name` into `home`, and return that."""
    shutil.copytree(
        ROOT / "egs" / name,
        home / "egs" / name,
        ignore=shutil.ignore_patterns("downloads", "data", "exp", "__pycache__"),
    )
    (home / "egs" / "common").symlink_to(ROOT / "egs" / "common")
    (home / "recipes").symlink_to(ROOT / "recipes")
    return home


def call(home: Path, name: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run the tiny form of the recipe in this environment; what it prints is kept."""
    environment = {
        **os.environ,
        "SEP_VENV": "none",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [f"egs/{name}/run.sh", "--debug", "--device", "cpu", *arguments]
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, check=False
    )
