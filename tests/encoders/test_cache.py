"""The cache of embeddings: nothing twice, nothing stale, nothing lost."""

import multiprocessing

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.nn.functional import normalize

from encoders.base import Encoder, EncoderError
from encoders.cache import EmbeddingCache


class Counting(Encoder):
    """Embeds by simple statistics and counts what it was asked to embed."""

    name, dim, sample_rate, window, licence = "counting", 4, 8_000, 800, "none"
    device = torch.device("cpu")

    def __init__(self, weights: str = "a"):
        self.weights, self.asked = weights, []

    @property
    def fingerprint(self):
        return self.weights

    def embed_text(self, texts):
        self.asked += texts
        return normalize(torch.tensor([[len(t), t.count("a"), 1.0, 2.0] for t in texts]), dim=-1)

    def embed_audio(self, wave, sample_rate, window_s=None):
        self.asked += [tuple(wave.shape)]
        low, high = wave.amin(1), wave.amax(1)
        return normalize(torch.stack([low, high, high - low, wave.std(1)], 1), dim=-1)

    def embed_image(self, images):
        self.asked += images
        values = [[*np.asarray(Image.open(i)).mean((0, 1)).tolist(), 1.0] for i in images]
        return normalize(torch.tensor(values), dim=-1)

    def to(self, device):
        return self

    def save(self, folder):
        raise NotImplementedError


def write(path, seconds: float, pitch: float):
    time = np.arange(round(8_000 * seconds)) / 8_000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * time), 8_000)
    return path


def test_texts_are_embedded_once_and_come_back_in_order(tmp_path):
    encoder = Counting()
    texts = ["a cat", "rain", "a cat", "banana"]
    first = EmbeddingCache(tmp_path, encoder).text(texts)
    torch.testing.assert_close(first, Counting().embed_text(texts))
    assert encoder.asked == ["a cat", "rain", "banana"]
    again = EmbeddingCache(tmp_path, encoder).text(["banana", "a cat", "new"])
    assert encoder.asked == ["a cat", "rain", "banana", "new"]
    torch.testing.assert_close(again[:2], first[[3, 0]])


def test_another_encoder_or_kind_shares_nothing(tmp_path):
    EmbeddingCache(tmp_path, Counting("a")).text(["rain"])
    other = Counting("b")
    EmbeddingCache(tmp_path, other).text(["rain"])
    assert other.asked == ["rain"]


def test_files_are_known_by_content_not_by_name(tmp_path):
    sound, picture = write(tmp_path / "a.wav", 0.05, 440), tmp_path / "a.png"
    Image.new("RGB", (4, 4), (10, 20, 30)).save(picture)
    cache = EmbeddingCache(tmp_path / "cache", Counting())
    before = cache.audio([sound]), cache.image([picture])
    sound, picture = sound.rename(tmp_path / "b.wav"), picture.rename(tmp_path / "b.png")
    encoder = Counting()
    cache = EmbeddingCache(tmp_path / "cache", encoder)
    torch.testing.assert_close((cache.audio([sound]), cache.image([picture])), before)
    assert encoder.asked == []
    write(sound, 0.05, 880)
    cache.audio([sound])
    assert encoder.asked == [(1, 800)]  # changed, and tiled to a window


def test_sounds_of_one_length_are_embedded_together(tmp_path):
    lengths = [0.05, 0.3, 0.1, 0.3, 0.2]
    paths = [write(tmp_path / f"{k}.wav", s, 200 + 50 * k) for k, s in enumerate(lengths)]
    encoder = Counting()
    vectors = EmbeddingCache(tmp_path / "cache", encoder).audio(paths)
    assert sorted(encoder.asked) == [(1, 1600), (2, 800), (2, 2400)]
    alone = [EmbeddingCache(tmp_path / f"c{k}", Counting()).audio([p]) for k, p in enumerate(paths)]
    torch.testing.assert_close(vectors, torch.cat(alone))


def test_an_interrupted_run_keeps_what_it_had(tmp_path):
    paths = [write(tmp_path / f"{k}.wav", 0.1, 200 + 50 * k) for k in range(4)]
    soundfile.write(tmp_path / "3.wav", np.zeros(100), 8_000)
    said = []
    cache = EmbeddingCache(tmp_path / "cache", Counting(), said.append, batch=1, every_s=0)
    with pytest.raises(EncoderError, match=r"3\.wav: the audio is silent"):
        cache.audio(paths)
    assert "embed: audio 3/4" in said
    write(tmp_path / "3.wav", 0.1, 900)
    encoder = Counting()
    EmbeddingCache(tmp_path / "cache", encoder).audio(paths)
    assert encoder.asked == [(1, 800)]


def _fill(folder, start):
    EmbeddingCache(folder, Counting(), batch=2, every_s=0).text(
        [f"text {k}" for k in range(start, start + 30)]
    )


def test_several_processes_fill_one_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_fill, args=(tmp_path, 20 * k)) for k in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    encoder = Counting()
    texts = [f"text {k}" for k in range(70)]
    vectors = EmbeddingCache(tmp_path, encoder).text(texts)
    assert encoder.asked == []
    torch.testing.assert_close(vectors, Counting().embed_text(texts))


def test_a_damaged_shard_and_a_missing_file_are_named(tmp_path):
    cache = EmbeddingCache(tmp_path, Counting())
    with pytest.raises(EncoderError, match=r"absent\.png: cannot be read"):
        cache.image([tmp_path / "absent.png"])
    cache.text(["rain"])
    shard = next(cache.folder.glob("*.safetensors"))
    shard.write_bytes(b"not a shard")
    with pytest.raises(EncoderError, match="is damaged"):
        EmbeddingCache(tmp_path, Counting()).text(["rain"])
