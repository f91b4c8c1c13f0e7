"""Advantages without a value network: relative to a group of masks, or to a running baseline."""

from collections.abc import Callable

import torch
from torch import Tensor


def group_advantage(reward: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalise rewards (B, G, ...) over the G masks of each mixture: (R - mean) / (std + eps).

    The standard deviation is the population one; a group of equal rewards gets zeros.
    """
    deviation = reward - reward.mean(1, keepdim=True)
    return deviation / (deviation.square().mean(1, keepdim=True).sqrt() + eps)


def batch_advantage(
    reward: Tensor,
    baseline: float,
    everywhere: Callable[[Tensor], Tensor] = lambda value: value,
    eps: float = 1e-6,
) -> Tensor:
    """MARS-Sep's advantage: rewards (B, G) less a baseline, normalised over the whole batch.

    `everywhere` gives the mean of a number over the processes that share the batch.
    """
    advantage = reward - baseline
    advantage = advantage - everywhere(advantage.mean())
    return advantage / (everywhere(advantage.square().mean()).sqrt() + eps)


class EmaBaseline:
    """Exponential moving average of the mean reward (decay 0.92 in MARS-Sep).

    One scalar cancels in `batch_advantage`, which subtracts the batch mean; it is kept because
    the method names it and is logged.
    """

    def __init__(self, decay: float = 0.92):
        self.decay, self.value = decay, None

    def update(self, mean: float) -> float:
        """Return the baseline before this batch's mean reward, then take the mean in."""
        before = mean if self.value is None else self.value
        self.value = self.decay * before + (1 - self.decay) * mean
        return before


def spread_windows(advantage: Tensor, window: int, hop: int, frames: int) -> Tensor:
    """Windowed credit: advantages (B, G, J) of overlapping windows to frames (B, G, T).

    Window j covers frames [j hop, j hop + window); a frame gets the mean over the windows that
    cover it, and frames beyond the last window that of the last.

    Args:
        window, hop: in frames. frames: T.
    """
    frame = torch.arange(frames, device=advantage.device)
    begin = hop * torch.arange(advantage.shape[-1], device=advantage.device)
    cover = (frame[None] >= begin[:, None]) & (frame[None] < begin[:, None] + window)
    cover[-1] |= ~cover.any(0)
    cover = cover.to(advantage.dtype)
    return advantage @ (cover / cover.sum(0))
