"""The page of sound examples, and its credits, on tiny recordings."""

import json
import re
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import soundfile
import torch

from sep.data.kaldi import DataDir
from sep.errors import SepError

LOCAL = Path(__file__).parents[2] / "egs" / "open_sounds" / "local"
sys.path.insert(0, str(LOCAL))

import examples  # noqa: E402
from credits import Credits  # noqa: E402


def arguments(corpus, model_dir, out, **other) -> Namespace:
    shutil.copytree(corpus / "data", out.parent / "data/test", dirs_exist_ok=True)
    given = {"data": out.parent / "data", "split": "test", "model": model_dir, "out": out}
    given |= {"esc50": None, "mini": None, "count": 2, "seed": 3, "device": "cpu"}
    return Namespace(**given | other)


def test_the_page_has_everything_that_it_shows(corpus, model_dir, tmp_path):
    out = tmp_path / "examples"
    examples.run(arguments(corpus, model_dir, out))
    text = (out / "index.html").read_text()
    assert "http" not in text and "$" not in text
    assert "2 of 8 mixtures of the test split, chosen by seed\n3 " in text
    named = re.findall(r'src="([^"]+)"', text)
    assert len(named) == 6 * 5 and all((out / name).stat().st_size > 1_000 for name in named)
    homes = {Path(name).parent for name in named}
    assert {path.name for path in out.iterdir()} == {str(home) for home in homes} | {"index.html"}
    for home in homes:
        files = (out / home).glob("*.wav")
        waves = {path.stem: torch.from_numpy(soundfile.read(path)[0]) for path in files}
        rest = waves["mixture"] - waves["target"] - waves["residual"]
        assert rest.abs().max() < 1e-4
        assert (waves["mixture"] - waves["reference"]).abs().max() > 0.01


def test_a_seed_alone_chooses(corpus):
    data = DataDir(corpus / "data")
    chosen = [examples.chosen(data, 4, seed, Credits()) for seed in (0, 0, 1)]
    assert [every for _, every in chosen] == [8, 8, 8]
    first, again, other = ([asked.id for asked in found] for found, _ in chosen)
    assert first == again != other and len(set(first)) == 4


def test_no_folder_of_anything_else_is_replaced(corpus, model_dir, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(SepError, match="mine: is there and holds no examples"):
        examples.run(arguments(corpus, model_dir, tmp_path / "mine"))
    assert not any((tmp_path / "mine").iterdir())


def test_a_loss_is_said_and_words_are_no_markup():
    asked = examples.Asked("mix1", "<b>", ["a & b"], ["<i>"], torch.zeros(1, 8), 16_000)
    answer = examples.Answer(asked, {}, -0.01, -2.0, 0.1, 0.2)
    text = examples.article(answer)
    assert "<b>" not in text and "<i>" not in text and "a &amp; b" in text
    assert "SI-SDR 0.0 → -2.0 dB" in text and "worse than it went in" in text
    assert "-2.0 dB</td>" in examples.row(answer)


def test_every_clip_is_credited(tmp_path):
    heading = "file\tlabel\tlicence\tauthor\tfreesound_id\n"
    (tmp_path / "meta.tsv").write_text(f"{heading}3-77-A-0.ogg\tdog\tCC-BY\tAda\t77\n")
    clip = {"id": "dog-1", "package": "scratch", "recording": "unlisted"}
    (tmp_path / "clips.jsonl").write_text(json.dumps(clip) + "\n")
    credits = Credits(tmp_path, tmp_path)
    assert credits.of("esc-3-77-A-0-part2") == "Ada, CC-BY; Freesound 77"
    assert "LICENSE names" in credits.of("esc-4-1-A-0")
    assert "scratch" in credits.of("mini-dog-1") and "CC-BY-SA-3.0" in credits.of("mini-dog-1")
    assert "Philharmonia" in credits.of("phil-oboe-test0-00")
    assert "LICENCES.md" in Credits().of("mini-dog-1")
