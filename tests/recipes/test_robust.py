"""Scores under other conditions, through the command line on tiny recordings."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "recipes/robust.py"


@pytest.fixture
def home(corpus, tmp_path):
    """A working directory with a split."""
    shutil.copytree(corpus / "data", tmp_path / "data/test")
    (tmp_path / "words.tsv").write_text("label\twords\nhiss\ta leaking pipe\n")
    return tmp_path


def call(home, *arguments):
    command = [sys.executable, PROGRAM, "threads=1", "mixtures=4", *arguments]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)


def test_it_scores_every_condition_and_wording_of_every_model(home, model_dir):
    models = f"models=[{{one: {model_dir}}},{{two: {model_dir}}},{{one+refine: {model_dir}}}]"
    done = call(home, models, "synonyms=words.tsv", "out=found")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((home / "found/summary.json").read_text())
    assert found["as they are"]["one"]["gain"] == found["as they are"]["two"]["gain"]
    assert found["as they are"]["one+refine"]["gain"] != found["as they are"]["one"]["gain"]
    plain, quiet, alone = (found[n]["one"] for n in ("as they are", "20 dB quieter", "1 source"))
    assert plain["gain"]["n"] == 4 and alone["gain"]["n"] == 0 and alone["estimate"]["n"] == 4
    assert quiet["mixture"]["mean"] == pytest.approx(plain["mixture"]["mean"], abs=1e-4)
    change = quiet["gain"]["mean"] - plain["gain"]["mean"]
    assert quiet["change"]["mean"] == pytest.approx(change, abs=1e-6)
    assert found["4 sources"]["one"]["estimate"]["n"] == 0  # there are three classes
    # each class has one caption; other words are there for one class of three
    assert found["asked by another caption of the class"]["one"]["estimate"]["n"] == 0
    with (home / "found/per_clip.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["condition"] == "asked by other words"]
    assert {row["label"] for row in rows if row["gain"] != "nan"} <= {"hiss"}
    assert "| in a room, T60 0.5 s | 4 |" in (home / "found/table.md").read_text()


def test_a_table_of_words_that_is_none_is_one_line(home, model_dir):
    (home / "words.tsv").write_text("label,words\n")
    done = call(home, f"models=[{{one: {model_dir}}}]", "synonyms=words.tsv")
    assert done.returncode == 1 and "words.tsv: needs tab-separated columns" in done.stderr
    assert "Traceback" not in done.stderr
