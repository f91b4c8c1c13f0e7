"""The benchmark's plain way of separating a file does what the toolkit does."""

import importlib.util
from pathlib import Path

from sep import audio

PROGRAM = Path(__file__).parents[2] / "recipes" / "bench.py"


def test_the_plain_way_gives_what_ours_gives(model_dir, make_wav, tmp_path):
    described = importlib.util.spec_from_file_location("bench", PROGRAM)
    bench = importlib.util.module_from_spec(described)
    described.loader.exec_module(bench)
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
