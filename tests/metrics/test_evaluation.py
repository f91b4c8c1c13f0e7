"""The fixed mixtures in memory: which embedding is whose query, and the ideal mask."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from sep.data import kaldi, mixtures
from sep.errors import DataError, OptionError
from sep.metrics import evaluation
from sep.metrics.evaluation import EvaluationSet, apply_mask, ideal_ratio_mask
from sep.metrics.sisdr import si_sdr
from sep.spectrogram import Spectrogram

RATE, DIM = 16_000, 4


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two classes, two recordings each in test and train; only `low` has pictures, in train."""
    root = tmp_path_factory.mktemp("evaluation")
    (root / "low.png").write_bytes(b"picture")
    for split in ("train", "test"):
        entries = []
        for label, hertz in (("low", 200), ("high", 3000)):
            for k in range(2):
                path = root / f"{split}-{label}{k}.wav"
                wave = 0.3 * np.sin(2 * np.pi * hertz * (1 + k / 10) * np.arange(5 * RATE) / RATE)
                soundfile.write(path, wave, RATE, subtype="PCM_16")
                picture = str(root / "low.png") if (split, label) == ("train", "low") else None
                entries.append(kaldi.Entry(path.stem, str(path), label, label, 5.0, picture))
        kaldi.write(root / "data" / split, entries)
    data = {s: kaldi.DataDir(root / "data" / s) for s in ("train", "test")}
    drawn = mixtures.draw(data["test"], 4, 0, data, images={"low": [str(root / "low.png")]})
    mixtures.save(root / "data" / "test" / "mixtures.jsonl", drawn)
    (root / "queries").mkdir()
    for split, directory in data.items():
        # every embedding names itself: split, row, kind
        rows = torch.arange(len(directory.ids)).float()[:, None].repeat(1, DIM)
        rows[:, 0] = {"train": 100, "test": 200}[split]
        kind = {k: rows + torch.tensor([0, 0, i, 0]) for i, k in enumerate(("text", "audio"), 1)}
        tensors = {
            "text": kind["text"][:, None].repeat(1, 3, 1),
            "audio": kind["audio"],
            "image": rows.clone() if split == "train" else torch.zeros_like(rows),
            "has_image": torch.zeros(len(rows), dtype=torch.uint8),
        }
        metadata = {"ids": json.dumps(directory.ids), "encoder": "test"}
        save_file(tensors, root / "queries" / f"{split}.safetensors", metadata)
    return root


@pytest.fixture(scope="module")
def clips(home):
    return EvaluationSet(home / "data", "test", home / "queries")


def test_mixture_is_the_sum_of_its_sources(clips, home):
    assert clips.sources.shape == (4, 2, 65_535)
    torch.testing.assert_close(clips.mixture, clips.sources[:, 0] + clips.sources[:, 1])
    short = EvaluationSet(home / "data", "test", home / "queries", samples=1_000)
    assert torch.equal(short.sources, clips.sources[..., :1_000])


def test_a_part_is_the_same_mixtures_alone(clips):
    part = clips.part(slice(1, 3))
    assert len(part) == 2 and part.ids == clips.ids[1:3] and part.labels == clips.labels[1:3]
    assert torch.equal(part.sources, clips.sources[1:3])
    assert torch.equal(part.mixture, clips.mixture[1:3])
    assert torch.equal(part.queries("text")[0], clips.queries("text")[0][1:3])
    assert clips.part([3, 1]).ids == [clips.ids[3], clips.ids[1]]
    assert torch.equal(clips.part([3, 1]).mixture, clips.mixture[[3, 1]])
    found = [(rows.start, part.ids) for rows, part in clips.parts(3)]
    assert found == [(0, clips.ids[:3]), (3, clips.ids[3:])]


def test_a_part_renders_its_own_mixtures_and_only_once(home, monkeypatch):
    clips, rendered = EvaluationSet(home / "data", "test", home / "queries"), []
    render = evaluation.mixtures.render

    def counted(mixture, *arguments):
        rendered.append(mixture.id)
        return render(mixture, *arguments)

    monkeypatch.setattr(evaluation.mixtures, "render", counted)
    for _ in range(2):
        assert len(clips.part([2, 0]).mixture) == 2
    assert rendered == [clips.ids[2], clips.ids[0]]


def test_text_and_audio_queries_are_of_the_right_clip(clips, home):
    ids = kaldi.DataDir(home / "data" / "test").ids
    text, has_text = clips.queries("text")
    audio, has_audio = clips.queries("audio")
    assert has_text.all() and has_audio.all()
    for i, mixture in enumerate(clips.mixtures):
        row = ids.index(mixture.target)
        assert text[i].tolist() == [200, row, row + 1, row]
        assert mixture.audio_query != mixture.target
        row = ids.index(mixture.audio_query)
        assert audio[i].tolist() == [200, row, row + 2, row]


def test_a_picture_is_found_by_its_path_in_any_split(clips):
    image, has = clips.queries("image")
    assert has.tolist() == [m.label == "low" for m in clips.mixtures]
    assert (image[has][:, 0] == 100).all() and not image[~has].any()


def test_wordings_are_averaged(clips):
    # all wordings are alike here
    ensemble, has = clips.queries("ensemble")
    text = torch.nn.functional.normalize(clips.queries("text")[0], dim=-1)
    assert has.all()
    torch.testing.assert_close(ensemble, text)


def test_negative_and_mixed_queries_by_hand(home):
    clips = EvaluationSet(home / "data", "test", home / "queries")
    bank, e = clips._bank("test"), torch.eye(DIM)
    for row in range(len(bank.ids)):  # captions and sounds on axes, low ones apart from high ones
        high = bank.ids[row].startswith("test-high")
        bank.text[row], bank.audio[row] = e[0] if high else e[1], e[2]
    for row in bank.row.values():
        clips._bank("train").image[row] = e[3]
    negative, has = clips.queries("negative")
    assert has.all()
    # (1 + a) q - a n with a = 1/2 is 1.5 and -0.5 on their axes, of length sqrt(2.5)
    own = torch.tensor([m.label == "low" for m in clips.mixtures]).long()
    for query, axis in zip(negative, own, strict=True):
        wanted = (1.5 * e[axis] - 0.5 * e[1 - axis]) / 2.5**0.5
        torch.testing.assert_close(query, wanted)
    longer, _ = clips.queries("negative", unit=False)  # as OmniSep has it
    torch.testing.assert_close(longer, negative * 2.5**0.5)
    omni, has = clips.queries("omni", {"text": 2, "audio": 1, "image": 2, "negative": 0})
    assert has.tolist() == [m.label == "low" for m in clips.mixtures]  # the others lack a picture
    # 2 text + 1 sound + 2 picture over their length, 3
    torch.testing.assert_close(omni[has], ((2 * e[1] + e[2] + 2 * e[3]) / 3).expand(2, -1))
    assert not omni[~has].any()
    with pytest.raises(OptionError, match="one of a query above"):
        clips.queries("omni", {"text": 0, "audio": 0, "image": 0, "negative": 0.5})


def test_the_note_says_what_training_saw(clips):
    note = clips.query_note()
    assert "4 of the test split" in note and "(2, 2 of them also seen in training)" in note


def test_unknown_kinds_and_missing_embeddings_are_one_line(clips, home, tmp_path):
    with pytest.raises(DataError, match="kind 'smell' is unknown"):
        clips.queries("smell")
    with pytest.raises(DataError, match="stage 3"):
        EvaluationSet(home / "data", "test", tmp_path).queries("text")


def test_ideal_ratio_mask_by_hand():
    # the second source is the first, turned down by half: 1 / (1 + 0.5) in every loud bin
    grid = Spectrogram()
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    mask = ideal_ratio_mask(torch.stack([wave, 0.5 * wave], dim=1), grid)
    torch.testing.assert_close(mask, torch.full_like(mask, 2 / 3))
    torch.testing.assert_close(apply_mask(1.5 * wave, mask, grid), wave, atol=1e-4, rtol=0)


def test_the_ideal_mask_separates_two_tones(clips):
    grid = Spectrogram()
    estimate = apply_mask(clips.mixture, ideal_ratio_mask(clips.sources, grid), grid)
    assert (si_sdr(estimate, clips.sources[:, 0]) > 20).all()
