"""A whole score run in memory: what each line holds, and that nothing else changes a score."""

import math
import os

import numpy as np
import pytest
import torch
from experiment import RATE, SAMPLES

from encoders.judge import Judge
from sep import audio
from sep.errors import DataError
from sep.metrics import bss, scoring
from sep.metrics.evaluation import EvaluationSet
from sep.metrics.listening import Panel
from sep.metrics.sisdr import si_sdr
from sep.spectrogram import Spectrogram

WINDOWS = bss.Windows(2000, 1500)


class Bands:
    """Embeds a sound by the loudness of 16 bands, a text by its letters."""

    dim = 16

    def embed_audio(self, wave, sample_rate):
        assert sample_rate == RATE and bool((wave.abs().amax(-1) > 1e-7).all())
        power = torch.fft.rfft(wave.double()).abs().square()[:, :4096]
        bands = power.unflatten(-1, (16, 256)).sum(-1).log1p()
        return torch.nn.functional.normalize(bands, dim=-1).float()

    def embed_text(self, texts):
        counts = [[text.count(chr(97 + k)) for k in range(16)] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(counts).float(), dim=-1)


@pytest.fixture(scope="module")
def clips(corpus, tmp_path_factory):
    """Eight mixtures; without pictures, every second without an audio query."""
    home = tmp_path_factory.mktemp("scoring")
    for folder, file in (("data", "data"), ("queries", "queries.safetensors")):
        (home / folder).mkdir()
        suffix = ".safetensors" if folder == "queries" else ""
        os.symlink(corpus / file, home / folder / f"train{suffix}")
    found = EvaluationSet(home / "data", "train", home / "queries", samples=SAMPLES)
    for mixture in found.mixtures[::2]:
        object.__setattr__(mixture, "audio_query", None)
    return found


@pytest.fixture(scope="module")
def folder(clips, tmp_path_factory):
    """A system's files: the target, some of the rest and noise; the first mixture is silent."""
    home = tmp_path_factory.mktemp("system")
    noise = 0.02 * torch.randn(clips.mixture.shape, generator=torch.Generator().manual_seed(0))
    for i, id_ in enumerate(clips.ids):
        wave = 0.9 * clips.sources[i, 0] + 0.2 * clips.sources[i, 1] + noise[i]
        audio.write(home / f"{id_}.wav", wave if i else 0 * wave, RATE, subtype="FLOAT")
    return home


def lines(clips, folder):
    outputs = scoring.given(clips, Spectrogram())
    for kind in ("text", "audio"):
        if clips.queries(kind)[1].any():
            outputs.append(scoring.of_folder("rl", kind, folder, clips, RATE))
    return outputs


def scored(clips, folder, jobs=1, windows=None, labels=()):
    torch.manual_seed(0)
    judge = Judge(sorted({*clips.labels, *labels, "dog"}), dim=8, width=8)
    panel = Panel(clips, Bands(), judge, {"clap": Bands()}, RATE, torch.device("cpu"), labels)
    outputs = lines(clips, folder)
    scoring.score(clips, outputs, panel, jobs=jobs, windows=windows)
    return outputs


@pytest.fixture(scope="module")
def outputs(clips, folder):
    return scored(clips, folder)


def test_scoring_holds_no_more_than_a_batch_of_mixtures(clips, folder):
    asked = clips.part(range(len(clips)))
    scored(asked, folder)
    assert not {"mixture", "sources"} & vars(asked).keys()  # those of the whole set


def rows(outputs, clips):
    return [str(row) for output in outputs for row in output.rows(clips)]  # NaN equals itself


def test_lines_hold_what_they_say(clips, outputs):
    mixture, ideal, reference, text, by_audio = outputs
    torch.testing.assert_close(mixture.scores["sdri"], torch.zeros(8).double())
    assert (ideal.scores["sdri"] > 5).all()
    assert not {"si_sdr", "sir"} & reference.scores.keys()
    torch.testing.assert_close(reference.scores["clap_audio"], torch.ones(8))
    expected = si_sdr(text.read([3]), clips.sources[3, :1])
    assert float(text.scores["si_sdr"][3]) == pytest.approx(float(expected))
    gain = text.scores["sdr_images"] - mixture.scores["sdr_images"]
    torch.testing.assert_close(text.scores["sdri"][1:], gain[1:])
    assert by_audio.has.tolist() == [False, True] * 4
    found = by_audio.rows(clips)
    assert [row["id"] for row in found] == clips.ids[1::2]
    assert found[1]["si_sdri"] == float(text.scores["si_sdri"][3])  # the same file
    assert found[1]["judge_similarity"] == pytest.approx(text.rows(clips)[3]["judge_similarity"])


def test_a_silent_output_has_no_scores_and_leaves_the_others(clips, outputs):
    row, *others = outputs[3].rows(clips)
    scores = [value for value in row.values() if isinstance(value, float)]
    assert len(scores) == 14 and all(math.isnan(value) for value in scores)
    assert all(math.isfinite(v) for o in others for v in o.values() if isinstance(v, float))


def test_nothing_depends_on_the_number_of_processes_or_of_clips_at_once(
    clips, folder, outputs, monkeypatch
):
    assert rows(scored(clips, folder, jobs=3), clips) == rows(outputs, clips)
    monkeypatch.setattr(scoring, "STEP", 3)
    for few, many in zip(scored(clips, folder, jobs=2), outputs, strict=True):
        for name, values in many.scores.items():
            torch.testing.assert_close(few.scores[name], values, equal_nan=True)


def test_parts_that_are_written_join_to_the_whole(clips, folder, outputs, tmp_path):
    paths = [tmp_path / "0.npz", tmp_path / "1.npz"]
    for k, rows in enumerate((slice(0, 1), slice(1, 8))):  # the first has no audio query
        part = scored(clips.part(rows), folder, labels=clips.labels)
        assert len(part) == 4 + k
        scoring.save(paths[k], part, 0.5 - k / 4)
    whole = lines(clips, folder)
    assert scoring.load(paths, whole) == 0.5 and len(list(tmp_path.iterdir())) == 2
    for joined, once in zip(whole, outputs, strict=True):
        assert list(joined.scores) == list(once.scores)
        for name, values in once.scores.items():
            torch.testing.assert_close(joined.scores[name], values, equal_nan=True)
        torch.testing.assert_close(joined.embedding, once.embedding, equal_nan=True)


def test_all_of_it_agrees_with_museval(clips, folder, outputs):
    assert scoring.check_against_museval(clips, outputs, scoring.spread(8, 3)) < 1e-3
    windowed = scored(clips, folder, windows=WINDOWS)
    assert scoring.check_against_museval(clips, windowed, [0, 7], WINDOWS) < 1e-3
    estimate = windowed[3].read([5])[0].numpy()
    expected = bss.bss_eval(*clips.sources[5].numpy(), estimate, WINDOWS)
    assert len(expected["sir"]) == 5
    assert float(windowed[3].scores["sir"][5]) == pytest.approx(np.median(expected["sir"]))
    assert windowed[3].scores["sir"][5] != outputs[3].scores["sir"][5]


def test_a_judge_without_the_classes_is_left_out(clips):
    panel = Panel(clips, Bands(), Judge(["dog"], dim=8, width=8), {}, RATE, torch.device("cpu"))
    assert panel.unknown == sorted(set(clips.labels))
    found, embedding = panel.hear(clips.mixture[:2], [0, 1])
    assert found.keys() == {"encoder_similarity", "encoder_hit"} and embedding.shape == (2, 16)


def test_a_referee_hears_beside_the_judge(clips):
    torch.manual_seed(0)
    judge, referee = (Judge(sorted(set(clips.labels)), dim=8, width=8) for _ in range(2))
    asked = {"sample_rate": RATE, "device": torch.device("cpu"), "guests": {}}
    panel = Panel(clips, Bands(), judge, referee=referee, **asked)
    found, _ = panel.hear(clips.mixture[:2], [0, 1])
    alone, _ = Panel(clips, Bands(), referee, **asked).hear(clips.mixture[:2], [0, 1])
    for what in ("similarity", "hit"):
        torch.testing.assert_close(found[f"referee_{what}"], alone[f"judge_{what}"])
    assert not torch.equal(found["judge_similarity"], found["referee_similarity"])


def test_files_that_do_not_fit_are_named(clips, folder, tmp_path):
    audio.write(tmp_path / f"{clips.ids[0]}.wav", torch.zeros(1, 100), RATE)
    output = scoring.of_folder("rl", "text", tmp_path, clips, RATE)
    with pytest.raises(DataError, match=f"{clips.ids[0]}.wav: 1 channels of 100 samples at 16000"):
        output.read([0])
