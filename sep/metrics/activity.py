"""Whether a separator is quiet while its target is, and looks where it sounds."""

import torch
from torch import Tensor

from sep.rl.shaping import active_frames, active_span


def active_part(target: Tensor) -> tuple[int, int, float]:
    """First active frame of a magnitude (F, T), the one after the last, and their part of T."""
    first, last = (int(edge) for edge in active_span(active_frames(target[None])))
    return first, last, max(last - first, 0) / target.shape[-1]


def outside_db(estimate: Tensor, first: int, last: int) -> float:
    """Energy of an estimate outside frames [first, last) relative to all of it, in dB.

    Args:
        estimate: (F, T) magnitude.

    Returns:
        At most 0; -inf where nothing is outside, NaN for silence.
    """
    power = estimate.double().square().sum(0)
    outside = power[:first].sum() + power[last:].sum()
    return float(10 * torch.log10(outside / power.sum()))
