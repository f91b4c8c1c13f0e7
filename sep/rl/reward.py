"""Rewards of sampled masks: plain callables, batch in, (B, G) out, parts logged apart."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sep.metrics.sisdr import si_sdr

_FLOOR = 1e-5  # white noise added before embedding, so that silence can be embedded too


@dataclass
class Rollout:
    """What a reward sees.

    Attributes:
        estimates: (B, G, N) separated waveforms.
        mixture: (B, N).
        target: (B, N) clean target.
        query: (B, D) query embedding of the target; other: (B, D) that of an interferer.
        sample_rate: in Hz.
    """

    estimates: Tensor
    mixture: Tensor
    target: Tensor
    query: Tensor
    other: Tensor
    sample_rate: int


class Similarity:
    """Cosine of the separated sound with the query in an encoder's space, less that of the other.

    R = cos(phi(estimate), z) - margin * cos(phi(estimate), other query), where z is the query, or
    with `fuse` the normalised mean of the query and the clean target's embedding (MARS-Sep's
    anchor without its trained interaction term). With `normalise` it is rescaled so that the
    unprocessed mixture scores 0 and the clean target 1.

    Args:
        embed: waveforms (B, N) and rate to unit vectors (B, D).
        fuse, margin, normalise: as above.
        window_s, hop_s: with a window, score every window of so many seconds by itself and
            return (B, G, J) instead.
    """

    smallest_gap = 0.1  # of the target over the mixture, when normalising

    def __init__(
        self,
        embed: Callable[[Tensor, int], Tensor],
        *,
        fuse: bool = False,
        margin: float = 0.0,
        normalise: bool = False,
        window_s: float = 0.0,
        hop_s: float = 0.0,
    ):
        self.embed, self.fuse, self.margin, self.normalise = embed, fuse, margin, normalise
        self.window_s, self.hop_s = window_s, hop_s

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G), or (B, G, J) by window."""
        group = rollout.estimates.shape[1]
        own, other = rollout.query, rollout.other
        if self.fuse:
            clean = self._embed(rollout.target[:, None], rollout.sample_rate, 0.0)[:, 0, 0]
            own = nn.functional.normalize(own + clean, dim=-1)
        waves = [rollout.estimates]
        if self.normalise:
            waves += [rollout.mixture[:, None], rollout.target[:, None]]
        vectors = self._embed(torch.cat(waves, 1), rollout.sample_rate, self.window_s)
        direction = own - self.margin * other  # cos is linear in the anchor
        reward = torch.einsum("bgjd,bd->bgj", vectors, direction)
        if self.normalise:
            low, high = reward[:, group : group + 1], reward[:, group + 1 :]
            reward = (reward - low) / (high - low).clamp(min=self.smallest_gap)
        reward = reward[:, :group]
        return reward if self.window_s else reward[..., 0]

    def _embed(self, waves: Tensor, sample_rate: int, window_s: float) -> Tensor:
        """Embed (B, G, N) as (B, G, J, D), J windows (1 for the whole)."""
        if window_s:
            size, hop = round(window_s * sample_rate), round(self.hop_s * sample_rate)
            waves = waves.unfold(-1, size, hop)
        else:
            waves = waves[:, :, None]
        flat = waves.flatten(0, 2)
        noise = torch.randn(flat.shape[-1], generator=torch.Generator().manual_seed(0)) * _FLOOR
        return self.embed(flat + noise.to(flat.device), sample_rate).unflatten(0, waves.shape[:3])


class SiSdrGain:
    """SI-SDR improvement over the mixture in units of 10 dB, limited to +-3."""

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G); 0 where the ratio is not defined."""
        before = si_sdr(rollout.mixture, rollout.target)[:, None]
        after = si_sdr(rollout.estimates, rollout.target[:, None])
        return ((after - before) / 10).nan_to_num(0.0).clamp(-3, 3).float()


class WeightedSum:
    """Weighted sum of named rewards, each a callable from `Rollout` to (B, G).

    Args:
        parts: name to (weight, reward).
    """

    def __init__(self, parts: dict[str, tuple[float, Callable[[Rollout], Tensor]]]):
        self.parts = parts

    def __call__(self, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        """The total (B, G) and each part before weighting."""
        values = {name: reward(rollout) for name, (_, reward) in self.parts.items()}
        total = sum(weight * values[name] for name, (weight, _) in self.parts.items())
        return total, values
