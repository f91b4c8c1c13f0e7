"""AudioSep's evaluation sets, on trees laid out like its download."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sep.data import audiosep
from sep.errors import DataError, OptionError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "recipes"))

from audiosep import averaged, sdr, si_sdr  # noqa: E402  the program


def sounds(mixture: Path, target: Path, seed: int, frames: int = 20_000) -> None:
    draw = np.random.default_rng(seed)
    time = np.arange(frames) / 32_000
    wave = 0.3 * np.sin(2 * np.pi * (300 + 100 * seed) * time)
    for path in (mixture, target):
        path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(target, wave, 32_000)
    soundfile.write(mixture, wave + 0.2 * draw.normal(size=frames).clip(-2, 2), 32_000)


@pytest.fixture
def esc50(tmp_path) -> tuple[Path, Path]:
    """Three mixtures, of which the last is not there."""
    table, folder = tmp_path / "esc50_eval.csv", tmp_path / "data" / "esc50"
    table.write_text("idx,caption,src_wav,noise_wav\n0,dog,a,b\n1,chirping birds,c,d\n2,dog,e,f\n")
    for k in range(2):
        sounds(folder / f"mixture-{k}.wav", folder / f"segment-{k}.wav", k)
    return table, folder


def program(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "recipes" / "audiosep.py"), "device=cpu", *words]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_the_scores_are_those_that_audiosep_computes():
    target = torch.tensor([3.0, -4.0])
    estimate = torch.tensor([3.0, -2.0])
    assert sdr(estimate, target) == pytest.approx(10 * math.log10(25 / 4))
    # a = (9 + 8) / 25 = .68: (2.04, -2.72) of power 11.56, and an error of (.96, .72), 1.44
    assert si_sdr(estimate, target) == pytest.approx(10 * math.log10(11.56 / 1.44), abs=1e-5)
    assert sdr(torch.zeros(2), target) == pytest.approx(0)  # silence has a score
    assert si_sdr(torch.zeros(2), target) == pytest.approx(0, abs=1e-6)


def test_averages_are_over_clips_means_or_medians_of_classes():
    values = {"dog": [1.0, 2.0, 6.0], "bell": [5.0]}
    rows = [{"text": text, "sdri": v} for text, found in values.items() for v in found]
    means = {over: averaged(rows, "sdri", over)["mean"] for over in ("clips", "classes", "medians")}
    assert means == {"clips": 3.5, "classes": 4.0, "medians": 3.5}


def test_a_part_of_a_set_is_scored_and_stands_beside_the_published_numbers(
    esc50, model_dir, tmp_path
):
    table, folder = esc50
    words = ["set=esc50", f"table={table}", f"folder={folder}", f"separator={model_dir}", "exp=exp"]
    done = program(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "1 of 3 mixtures are not there; left out" in done.stdout
    assert "| esc50, 2 of 3 mixtures | SDRi dB | SI-SDR dB | SI-SDRi dB |" in done.stdout
    assert "| AudioSep (published) | 10.04 | 8.81 | - |" in done.stdout
    home = tmp_path / "exp" / "audiosep" / "esc50"
    with open(home / "per_clip.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["text"]) for row in rows] == [("0", "dog"), ("1", "chirping birds")]
    mean = sum(float(row["sdri"]) for row in rows) / 2
    assert f"| {model_dir} | {mean:.2f} ± " in (home / "table.md").read_text()
    refined = program(tmp_path, *words, "refine=true", "candidates=2", "most=1")
    assert "2 candidates and refined queries" in refined.stdout


def test_what_does_not_fit_is_one_line(esc50, model_dir, tmp_path):
    table, folder = esc50
    empty, other = tmp_path / "empty", tmp_path / "other.csv"
    empty.mkdir()
    other.write_text("a,b\n1,2\n")
    soundfile.write(folder / "segment-1.wav", np.ones(100) / 2, 32_000)
    for words, said in (
        (["set=esc50", f"folder={folder}"], "table=: say which"),
        (["set=speech", f"folder={folder}", f"table={table}"], "set 'speech' is unknown; use"),
        (["set=esc50", "folder=nowhere", f"table={table}"], "nowhere: not a folder"),
        (["set=esc50", f"folder={folder}", f"table={other}"], "other.csv: has no column caption"),
        (["set=esc50", f"folder={empty}", f"table={table}"], "holds none of the 3 mixtures"),
        (["set=esc50", f"folder={folder}", f"table={table}"], "segment-1.wav 100"),
    ):
        done = program(tmp_path, *words, f"separator={model_dir}", "exp=exp")
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "exp").exists()


def test_the_six_sets_are_laid_out_as_published(tmp_path):
    folder, table = tmp_path / "data", tmp_path / "list.csv"
    table.write_text(
        "file_id,mix_wav,s0_wav,s0_text,s1_wav,s1_text\n"
        'a+++b,data/mix_wav/a+++b.wav,data/s0_wav/a+++b.wav,"dove, cooing",x,whale\n'
    )
    folder.mkdir()
    found = audiosep.read("vggsound", table, folder)
    assert found == [
        audiosep.Case(
            "a+++b", "dove, cooing",
            folder / "data/mix_wav/a+++b.wav", folder / "data/s0_wav/a+++b.wav",
        )
    ]  # fmt: skip
    table.write_text('index,mid,display_name\n0,/m/1,Speech\n1,/m/2,"Child speech, kid"\n')
    for name in [f"clip{k:02d}" for k in range(12)]:
        home = folder / "class_id=1"
        sounds(home / f"{name},mixture.wav", home / f"{name},source.wav", 1, frames=100)
    found = audiosep.read("audioset", table, folder)
    assert [case.id for case in found] == [f"1/clip{k:02d}" for k in range(10)]
    assert found[3].text == "Child speech, kid" and found[3].target.is_file()
    table.write_text("idx,caption,labels,a,b\n7,a dog barks,dog,x,y\n")
    for name in ("audiocaps", "clotho", "music", "esc50"):
        (case,) = audiosep.read(name, table, folder)
        assert case.text == "a dog barks" and case.mixture == folder / "mixture-7.wav"
    table.write_text("idx,caption\n7,\n")
    with pytest.raises(DataError, match=r"list.csv:2: says nothing to ask for"):
        audiosep.read("esc50", table, folder)
    with pytest.raises(OptionError, match="use esc50, clotho"):
        audiosep.read("dcase", table, folder)
