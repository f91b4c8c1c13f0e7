"""What several rooms test with: a small model with random weights, its encoder, recordings."""

import sep  # noqa: F401, before torch: its threads then sleep while they wait

# isort: split

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from experiment import corpus, parts  # noqa: F401  (fixtures)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep tests, and the programs that they start, out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as training writes it, untrained: a narrow U-Net and a real small encoder."""
    from encoders.small import SmallEncoder
    from sep import hub
    from sep.model import QueryNet

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    encoder = SmallEncoder(dim=32, mels=64)
    encoder.fit_text(["a dog barks", "rain on a roof", "a piano chord", "wind", "a bell rings"])
    encoder.save(folder / "aligned")
    torch.manual_seed(0)
    model = QueryNet(width=4, levels=7, mask_channels=4, embed_dim=32)
    hub.save_pretrained(model, folder / "best", encoder=folder / "aligned")
    return folder / "best"


@pytest.fixture(scope="session")
def separator(model_dir: Path):
    """The Separator of `model_dir`, on the CPU."""
    from sep.separator import Separator

    return Separator.from_pretrained(model_dir, device="cpu")


@pytest.fixture
def make_wav(tmp_path: Path):
    """Write a seeded recording of noise and tones; returns its path."""

    def make(
        name: str = "mix.wav",
        seconds: float = 1.0,
        rate: int = 16_000,
        channels: int = 1,
        subtype: str = "PCM_16",
        frames: int | None = None,
    ) -> Path:
        count = round(seconds * rate) if frames is None else frames
        draw = np.random.default_rng(0)
        time = np.arange(count)[:, None] / rate
        tones = 0.3 * np.sin(2 * np.pi * np.resize([440.0, 660.0], channels) * time)
        wave = tones + 0.1 * draw.standard_normal((count, channels))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave.clip(-1, 1), rate, subtype)
        return path

    return make
