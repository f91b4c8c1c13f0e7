"""An encoder that several tests share, built once."""

import pytest
import torch

import encoders


@pytest.fixture(scope="session")
def small():
    """A small encoder at its start, its text space centred on a few captions."""
    torch.manual_seed(0)
    encoder = encoders.get("small", dim=64, mels=32, hop=640, window_s=1.024)
    encoder.fit_text(["a dog barking", "rain falling", "a violin", "a car horn", "speech"])
    return encoder
