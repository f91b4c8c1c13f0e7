"""Evaluation mixtures: the rules of drawing, and rendering against hand-made numbers."""

import math

import numpy as np
import pytest
import soundfile
import torch

from sep.data import kaldi, mixtures
from sep.errors import DataError

RATE = 16_000


def data_dir(path, labels, seconds=1.0, recordings=2):
    """A directory of `recordings` seeded noise clips for each label."""
    path.mkdir(parents=True)
    draw = np.random.default_rng(len(labels))
    entries = []
    for label in labels:
        for k in range(recordings):
            id_ = f"{label}-{path.name}-{k}"
            wave = draw.normal(0, 0.02 + 0.1 * k, round(seconds * RATE))
            soundfile.write(path / f"{id_}.wav", wave.clip(-1, 1), RATE, subtype="PCM_16")
            wav = str(path / f"{id_}.wav")
            entries.append(kaldi.Entry(id_, wav, f"a {label}", label, seconds))
    kaldi.write(path, entries)
    return kaldi.DataDir(path)


@pytest.fixture
def dirs(tmp_path):
    labels = ["cat", "dog", "owl", "pig"]
    return {
        "train": data_dir(tmp_path / "train", labels, recordings=1),
        "test": data_dir(tmp_path / "test", labels, seconds=5.0),
    }


def test_drawing_follows_the_rules(dirs):
    drawn = mixtures.draw(dirs["test"], 40, 7, dirs)
    assert len({m.id for m in drawn}) == 40
    counts = {label: sum(m.label == label for m in drawn) for label in dirs["test"].by_label()}
    assert set(counts.values()) == {10}  # target labels are drawn evenly
    for m in drawn:
        assert m.label not in m.interferer_labels and m.seed == 7
        assert m.audio_query_split == "test" and m.audio_query != m.target
        assert dirs["test"].label[m.audio_query] == m.label
    mixtures.save(dirs["test"].path / "mixtures.jsonl", drawn)
    assert mixtures.load(dirs["test"].path / "mixtures.jsonl") == drawn
    assert kaldi.validate(dirs["test"].path) == []


def test_drawing_repeats_by_seed(dirs):
    assert mixtures.draw(dirs["test"], 8, 7, dirs) == mixtures.draw(dirs["test"], 8, 7, dirs)
    assert mixtures.draw(dirs["test"], 8, 7, dirs) != mixtures.draw(dirs["test"], 8, 8, dirs)


def test_given_pairs_are_mixed_in_their_order(dirs):
    pairs = [
        ("pig-test-1", "cat-test-0"),
        ("cat-test-0", "owl-test-1"),
        ("cat-test-0", "dog-test-1"),
    ]
    drawn = mixtures.draw(dirs["test"], None, 7, dirs, snr_db=0.0, pairs=pairs)
    assert [(m.target, *m.interferers) for m in drawn] == pairs
    assert (drawn[0].label, drawn[0].interferer_labels) == ("pig", ["cat"])
    assert drawn[0].audio_query == "pig-test-0" and drawn[1].id == "mix0001"


def test_levels_and_peak(dirs):
    for m in mixtures.draw(dirs["test"], 20, 1, dirs):
        sources = mixtures.render(m, dirs["test"])
        assert sources.shape == (2, mixtures.SEGMENT) and sources.dtype == torch.float32
        assert sources.sum(0).abs().max() == pytest.approx(mixtures.PEAK, abs=1e-3)
        levels = [mixtures.active_rms(s.numpy()) for s in sources]
        assert abs(20 * math.log10(levels[0] / levels[1])) < mixtures.LEVEL_SPREAD_DB + 0.01


def test_equal_energy_and_every_recording_a_target_once(dirs):
    drawn = mixtures.draw(dirs["test"], None, 1, dirs, 40_000, snr_db=0.0)
    assert [m.target for m in drawn] == dirs["test"].ids  # which are in order of class
    for m in drawn:
        target, other = mixtures.render(m, dirs["test"], 40_000)
        assert float(target.square().sum() / other.square().sum()) == pytest.approx(1, abs=1e-3)
    target, other = mixtures.render(
        mixtures.draw(dirs["test"], 1, 1, dirs, snr_db=6.0)[0], dirs["test"]
    )
    ratio = float(target.square().sum() / other.square().sum())
    assert 10 * math.log10(ratio) == pytest.approx(6, abs=0.01)


def test_a_lone_recording_is_a_target_without_an_audio_query(tmp_path):
    single = data_dir(tmp_path / "b", ["cat", "dog"], recordings=1)
    for m in mixtures.draw(single, None, 0, {"test": single}):
        assert m.audio_query is None and m.audio_query_split is None


def test_query_is_never_from_the_targets_recording(dirs):
    # with both test clips cut from one recording, the query comes from train
    drawn = mixtures.draw(dirs["test"], 8, 0, dirs, recording_of=lambda id_: id_.rsplit("-", 1)[0])
    for m in drawn:
        assert m.audio_query_split == "train"


def test_drawing_needs_two_labels_and_a_second_recording(tmp_path):
    lonely = data_dir(tmp_path / "a", ["cat"])
    with pytest.raises(DataError, match="two classes"):
        mixtures.draw(lonely, 1, 0, {"test": lonely})
    single = data_dir(tmp_path / "b", ["cat", "dog"], recordings=1)
    with pytest.raises(DataError, match="second recording"):
        mixtures.draw(single, 1, 0, {"test": single})


def test_render_places_and_scales(tmp_path):
    """A ramp read from 2 samples in, and one that starts 3 samples into the segment at -20 dB."""
    ramp = np.arange(8) / 16
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", ramp, RATE, subtype="FLOAT")
    entries = [
        kaldi.Entry(i, str(tmp_path / f"{i}.wav"), i, label, 8 / RATE)
        for i, label in (("a", "x"), ("b", "y"))
    ]
    kaldi.write(tmp_path / "set", entries)
    mixture = mixtures.Mixture(
        "m", "a", ["b"], [2 / RATE, -3 / RATE], [0.0, -20.0], "a", "x", ["y"], None, None, None, 0
    )
    sources = mixtures.render(mixture, kaldi.DataDir(tmp_path / "set"), segment=7)
    expected = [
        [2 / 16, 3 / 16, 4 / 16, 5 / 16, 6 / 16, 7 / 16, 0],
        [0, 0, 0, 0, 0.1 / 16, 0.2 / 16, 0.3 / 16],
    ]
    assert torch.allclose(sources, torch.tensor(expected), atol=1e-7)


def test_active_rms():
    """Half a second at amplitude 0.5, then silence: the silence does not count."""
    wave = np.zeros(RATE)
    wave[: RATE // 2] = 0.5
    assert mixtures.active_rms(wave) == pytest.approx(0.5)
    assert mixtures.active_rms(np.zeros(100)) == 0.0
