"""The benchmark's plain ways do what the toolkit does, and its figures fit each other."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sep import audio

PROGRAM = Path(__file__).parents[2] / "recipes" / "bench.py"


@pytest.fixture
def bench():
    described = importlib.util.spec_from_file_location("bench", PROGRAM)
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model", ["debug", "shipped"])
def test_the_network_alone_is_timed_beside_a_plain_one(bench, capsys, model):
    bench.bench_model(SimpleNamespace(seconds=2, repeats=1), model, torch.device("cpu"))
    found = json.loads(capsys.readouterr().out)
    assert found["case"] == "separate/model" and found["audio_s"] == 2
    assert found["real_time_factor"] == pytest.approx(found["seconds"] / 2, rel=1e-3)
    assert found["ratio"] == pytest.approx(found["seconds"] / found["plain_seconds"], rel=1e-3)


def test_the_plain_way_gives_what_ours_gives(bench, model_dir, make_wav, tmp_path):
    source = make_wav(seconds=2.0, rate=44_100, channels=2)
    for way, work in {"ours": bench.ours_file, "plain": bench.plain_file}.items():
        seconds, cpu, peak = work(model_dir, source, tmp_path / way, "cpu", 1)
        assert seconds > 0 and cpu > 0 and peak > 1
    for name in ("target.wav", "residual.wav"):
        (ours, rate), (plain, _) = (audio.read(tmp_path / way / name) for way in ("ours", "plain"))
        assert rate == 44_100 and ours.shape == plain.shape == (2, 88_200)
        middle = slice(4_000, -4_000)  # one wording of the query, not two, and float32
        error = (ours - plain)[:, middle].square().mean() / ours[:, middle].square().mean()
        assert float(error) < 0.01
