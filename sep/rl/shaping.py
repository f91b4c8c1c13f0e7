"""Temporal advantage shaping: which frames of a mask an advantage counts for (AVATAR).

AVATAR (arXiv 2508.03100) weighs the tokens of an answer by w = 1 + lambda (2 t - 1)^2, t running
from 0 at its first token to 1 at its last: beginning and end count most. Frames of a sound have no
such roles, so beside the literal form there is one that follows the target: t runs within each
stretch in which it sounds, which stresses onsets and offsets.

Shapes: B batch, T frame, H row of the log-frequency grid.
"""

import torch
from torch import Tensor

from sep.errors import OptionError

MODES = ("off", "u", "inv", "const", "event")


def temporal_weights(
    mode: str, active: Tensor, strength: float = 0.3, normalise: bool = False
) -> Tensor:
    """Weights of the frames.

    Args:
        mode: `off`, 1 everywhere; `u`, AVATAR's over the whole clip; `event`, that over each
            active stretch and 1 outside; the controls `inv`, upside down over the clip, and
            `const`, the mean of `u` everywhere.
        active: (B, T) bool, where the target sounds; only `event` looks at it.
        strength: lambda.
        normalise: divide by the mean over the frames.

    Returns:
        (B, T), of the default dtype.

    Raises:
        OptionError: an unknown mode.
    """
    rows, frames = active.shape
    ones = torch.ones(rows, frames, device=active.device)
    time = torch.linspace(0, 1, frames, device=active.device)
    if mode == "off":
        return ones
    if mode == "u":
        weight = ones + strength * (2 * time - 1).square()
    elif mode == "inv":
        weight = ones + strength * (1 - (2 * time - 1).square())
    elif mode == "const":
        weight = ones * (1 + strength / 3)
    elif mode == "event":
        weight = torch.where(active, 1 + strength * (2 * _progress(active) - 1).square(), ones)
    else:
        raise OptionError(f"tas '{mode}' is unknown; use {', '.join(MODES)}")
    return weight / weight.mean(-1, keepdim=True) if normalise else weight


def active_frames(magnitude: Tensor, below_db: float = 40.0) -> Tensor:
    """Frames (B, T) of a magnitude (B, H, T) at most `below_db` under the loudest one."""
    power = magnitude.square().sum(-2)
    return power > power.amax(-1, keepdim=True) * 10 ** (-below_db / 10)


def active_span(active: Tensor) -> tuple[Tensor, Tensor]:
    """First active frame and the one after the last, (B,) each, of (B, T); T and 0 without any."""
    frames = active.shape[-1]
    index = torch.arange(frames, device=active.device)
    return torch.where(active, index, frames).amin(-1), torch.where(active, index + 1, 0).amax(-1)


def _progress(active: Tensor) -> Tensor:
    """Place (B, T) of each frame in its active stretch, 0 at the first and 1 at the last frame.

    0 for a stretch of one frame; what stands outside of stretches means nothing.
    """
    frames = active.shape[-1]
    index = torch.arange(frames, device=active.device).expand_as(active)
    before = torch.where(active, -1, index).cummax(-1).values  # last silent frame so far
    after = torch.where(active, frames, index).flip(-1).cummin(-1).values.flip(-1)
    place, length = index - before - 1, after - before - 1
    return place / (length - 1).clamp(min=1)
