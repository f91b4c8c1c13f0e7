"""A tiny experiment: three synthesised classes, their data directory and query embeddings."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from sep.data import kaldi, mixtures
from sep.data.bank import ClipBank, MixtureSampler, QueryBank
from sep.model import QueryNet
from sep.train.validation import Validation

RATE, SAMPLES = 16_000, 8_191
CLASSES = {"low tone": 300.0, "high tone": 3_000.0, "hiss": 0.0}


def synthesise(frequency: float, seed: int, seconds: float) -> np.ndarray:
    """A pulsed tone with a little vibrato, or noise for frequency 0."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    if frequency:
        wave = np.sin(2 * np.pi * frequency * (1 + 0.05 * seed) * time + np.sin(20 * time))
    else:
        wave = rng.normal(size=len(time)) * 0.3
    return 0.4 * wave * (0.6 + 0.4 * np.sin(2 * np.pi * (2 + seed) * time))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Data directory with four clips a class and eight fixed mixtures, and query embeddings."""
    home = tmp_path_factory.mktemp("corpus")
    entries = []
    for label, frequency in CLASSES.items():
        for k in range(4):
            id_ = f"{label.replace(' ', '_')}-{k}"
            wave = synthesise(frequency, k, 0.4 + 0.3 * k)
            soundfile.write(home / f"{id_}.wav", wave, RATE, subtype="PCM_16")
            entries.append(
                kaldi.Entry(id_, str(home / f"{id_}.wav"), f"a {label}", label, len(wave) / RATE)
            )
    kaldi.write(home / "data", entries)
    data = kaldi.DataDir(home / "data")
    drawn = mixtures.draw(data, 8, 0, {"train": data}, segment=SAMPLES)
    mixtures.save(home / "data" / "mixtures.jsonl", drawn)
    generator = torch.Generator().manual_seed(0)
    vector = {
        label: torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=0)
        for label in CLASSES
    }
    rows = torch.stack([vector[data.label[i]] for i in data.ids])
    tensors = {
        "text": rows[:, None].repeat(1, 3, 1).contiguous(),
        "audio": rows.clone(),
        "image": torch.zeros_like(rows),
        "has_image": torch.zeros(len(rows), dtype=torch.uint8),
    }
    metadata = {"ids": json.dumps(data.ids), "encoder": "test"}
    save_file(tensors, home / "queries.safetensors", metadata)
    return home


@pytest.fixture
def parts(corpus):
    """Fresh model, sampler, queries and validation with fixed seeds."""
    return build_parts(corpus)


def build_parts(corpus):
    """Model, sampler, queries and validation of a corpus folder."""
    torch.manual_seed(0)
    data = kaldi.DataDir(corpus / "data")
    bank = ClipBank(data)
    queries = QueryBank(corpus / "queries.safetensors", bank)
    model = QueryNet(width=2, levels=5, mask_channels=4, embed_dim=16, query_gain=4.0, floor=1e-3)
    model.amp = False
    sampler = MixtureSampler(bank, batch=4, samples=SAMPLES, seed=3)
    validation = Validation(data, queries, 4, "cpu", segment=SAMPLES)
    return model, sampler, queries, validation
