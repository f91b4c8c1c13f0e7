"""The figure of heat map against mask, through its command line on tiny recordings."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sep import hub
from sep.model import QueryNet

PROGRAM = Path(__file__).parents[2] / "recipes/prior.py"


@pytest.fixture
def home(corpus, tmp_path):
    """A working directory with a split, its queries, and a network without and with a heat map."""
    shutil.copytree(corpus / "data", tmp_path / "data/test")
    (tmp_path / "exp/main/queries").mkdir(parents=True)
    shutil.copy(corpus / "queries.safetensors", tmp_path / "exp/main/queries/test.safetensors")
    torch.manual_seed(0)
    model = QueryNet(width=2, levels=5, mask_channels=4, embed_dim=16, query_gain=4.0, floor=1e-3)
    hub.save_pretrained(model, tmp_path / "exp/main/supervised/best")
    larger = hub.extend(model, "prior", heads=2, head_dim=4, token_dim=8, hidden=3)
    torch.nn.init.normal_(larger.decoder[-1].weight)
    hub.save_pretrained(larger, tmp_path / "exp/main/prior/best")
    return tmp_path


def call(home, *arguments):
    command = [sys.executable, PROGRAM, "tag=main", "threads=1", *arguments]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)


def test_it_writes_values_table_and_figure(home):
    done = call(home)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = home / "exp/main/prior_figure"
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary) == ["own", "wrong query", "constant"]
    constant = summary["constant"]
    assert constant["pointing"] == pytest.approx(constant["chance"], abs=1e-5)
    assert summary["own"]["chance"] == pytest.approx(constant["chance"])
    assert summary["own"]["mask"] != summary["wrong query"]["mask"]
    assert -1 <= summary["own"]["r_low"] <= summary["own"]["r"] <= summary["own"]["r_high"] <= 1
    with (folder / "per_clip.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "mask"]
    own = [float(row["value"]) for row in rows if row["prior"] == "own"]
    assert len(own) == 8
    assert sum(own) / 8 == pytest.approx(summary["own"]["mask"], rel=1e-4)
    assert (folder / "scatter.png").read_bytes()[:4] == b"\x89PNG"
    assert "| wrong query |" in done.stdout

    done = call(home, "system=supervised/best")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "supervised/best: has no heat map; train one with network={kind: prior}" in done.stderr
