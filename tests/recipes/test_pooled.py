"""Scores of several runs as those of one."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def scored(run: Path, gains: list[tuple[float, float]]) -> None:
    """Scores by text of a control and of rl, a pair a clip; clips are called alike everywhere."""
    (run / "scores").mkdir(parents=True)
    with (run / "scores/per_clip.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "system", "query", "label", "si_sdri", "sir"])
        for k, pair in enumerate(gains):
            for system, gain in zip(("control", "rl"), pair, strict=True):
                writer.writerow([f"mix{k:04d}", system, "text", "dog", gain, "" if k else 3.0])


def call(home: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "recipes/pool.py", *options]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)


def test_clips_of_all_runs_count_alike(tmp_path):
    scored(tmp_path / "exp/fold1", [(1.0, 2.0)])
    scored(tmp_path / "exp/fold2", [(3.0, 5.0), (5.0, 5.0)])
    done = call(tmp_path, "runs=[exp/fold1,exp/fold2]")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "exp/pooled/scores"
    found = json.loads((folder / "summary.json").read_text())
    of_text = found["systems"]["text"]
    assert of_text["control"]["si_sdri"]["mean"] == pytest.approx(3.0)  # of 1, 3 and 5
    assert of_text["rl"]["si_sdri"]["mean"] == pytest.approx(4.0)
    assert of_text["rl"]["sir"]["n"] == 2 and of_text["rl"]["sir"]["undefined"] == 1
    difference = found["pairs"]["rl - control"]["si_sdri"]
    assert difference["n"] == 3 and difference["mean"] == pytest.approx(1.0)
    assert "rl - supervised" not in found["pairs"]
    assert (folder / "table.md").read_text() in done.stdout
    with (folder / "per_clip.csv").open(newline="") as file:
        ids = {row["id"] for row in csv.DictReader(file)}
    assert ids == {"fold1/mix0000", "fold2/mix0000", "fold2/mix0001"}


def test_what_cannot_be_pooled_is_one_line(tmp_path):
    scored(tmp_path / "exp/fold1", [(1.0, 2.0)])
    (tmp_path / "exp/odd/scores").mkdir(parents=True)
    (tmp_path / "exp/odd/scores/per_clip.csv").write_text("id,system,query,label,sir\na,b,c,d,x\n")
    for runs, said in (
        ("exp/fold1", "name two or more"),
        ("exp/fold1,exp/fold1", "of different names"),
        ("exp/fold1,exp/fold2", "exp/fold2/scores/per_clip.csv: cannot be read"),
        ("exp/fold1,exp/odd", "exp/odd/scores/per_clip.csv: damaged"),
    ):
        done = call(tmp_path, f"runs=[{runs}]")
        assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
