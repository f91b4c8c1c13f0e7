"""Sounds that tests make up."""

import math

import torch

RATE = 16_000


def tone(pitch_hz: float, seconds: float, harmonics: int = 1, decay: float = 0.0) -> torch.Tensor:
    """A tone (N,) with equal harmonics, decaying at `decay` per second."""
    time = torch.arange(round(seconds * RATE)) / RATE
    wave = sum(torch.sin(2 * math.pi * pitch_hz * (h + 1) * time) for h in range(harmonics))
    return 0.3 * wave / harmonics * torch.exp(-decay * time)
