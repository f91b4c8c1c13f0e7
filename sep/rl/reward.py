"""Rewards of sampled masks: plain callables, batch in, (B, G) out, parts logged apart."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sep.metrics.overlap import hard_iou, soft_dice, soft_iou
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
        masks: (B, G, H, T) on the log-frequency grid; ideal: (B, H, T) the ideal ratio mask of the
            target; weight: (B, H, T) importance of the bins.
        label: (B,) index of the target's class.
    """

    estimates: Tensor
    mixture: Tensor
    target: Tensor
    query: Tensor
    other: Tensor
    sample_rate: int
    masks: Tensor
    ideal: Tensor
    weight: Tensor
    label: Tensor


class Similarity:
    """Cosine of the separated sound with the query in an encoder's space, less that of the other.

    R = cos(phi(estimate), z) - margin * cos(phi(estimate), other query), where z is the query, or
    with `fuse` MARS-Sep's anchor of the query and the clean target's embedding. With `normalise` it
    is rescaled so that the unprocessed mixture scores 0 and the clean target 1, or less where they
    are nearer to one another than `gap`.

    Args:
        embed: waveforms (B, N) and rate to unit vectors (B, D).
        fuse, margin, normalise, gap: as above.
        anchor: embeddings of the clean target and the query (B, D) to z (B, D), such as an
            encoder's trained `FusedAnchor`; None takes their normalised mean.
        window_s, hop_s: with a window, score every window of so many seconds by itself and
            return (B, G, J) instead.
    """

    at_once = 64  # waveforms embedded together, so that memory does not grow with G
    at_once_cpu = 32  # where more are no faster

    def __init__(
        self,
        embed: Callable[[Tensor, int], Tensor],
        *,
        fuse: bool = False,
        margin: float = 0.0,
        normalise: bool = False,
        gap: float = 0.1,
        anchor: Callable[[Tensor, Tensor], Tensor] | None = None,
        window_s: float = 0.0,
        hop_s: float = 0.0,
    ):
        self.anchor = anchor or (lambda clean, own: nn.functional.normalize(clean + own, dim=-1))
        self.embed, self.fuse, self.margin, self.normalise = embed, fuse, margin, normalise
        self.window_s, self.hop_s, self.gap = window_s, hop_s, gap

    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G), or (B, G, J) by window; differentiable in the estimates."""
        own, rate = rollout.query, rollout.sample_rate
        with torch.no_grad():
            if self.fuse:
                clean = self.vectors(rollout.target[:, None], rate)[:, 0]
                own = self.anchor(clean, own)
            anchor = own - self.margin * rollout.other  # cos is linear in the anchor
        reward = self._cosine(rollout.estimates, anchor, rate)
        if self.normalise:
            with torch.no_grad():
                ends = torch.stack([rollout.mixture, rollout.target], 1)
                low, high = self._cosine(ends, anchor, rate).split(1, dim=1)
            reward = (reward - low) / (high - low).clamp(min=self.gap)
        return reward if self.window_s else reward[..., 0]

    def vectors(self, waves: Tensor, sample_rate: int) -> Tensor:
        """Unit vectors (B, G, D) of whole waveforms (B, G, N), silent ones too."""
        return self._embed(waves, sample_rate, 0.0)[:, :, 0]

    def _cosine(self, waves: Tensor, anchor: Tensor, sample_rate: int) -> Tensor:
        """Product of anchors (B, D) with the embeddings of waves (B, G, N): (B, G, J)."""
        vectors = self._embed(waves, sample_rate, self.window_s)
        return torch.einsum("bgjd,bd->bgj", vectors, anchor)

    def _embed(self, waves: Tensor, sample_rate: int, window_s: float) -> Tensor:
        """Embed (B, G, N) as (B, G, J, D), J windows (1 for the whole)."""
        if window_s:
            size, hop = round(window_s * sample_rate), round(self.hop_s * sample_rate)
            short = max(size - waves.shape[-1], -(waves.shape[-1] - size) % hop)
            waves = nn.functional.pad(waves, (0, short)).unfold(-1, size, hop)
        else:
            waves = waves[:, :, None]
        flat = waves.flatten(0, 2)
        noise = torch.randn(flat.shape[-1], generator=torch.Generator().manual_seed(0)) * _FLOOR
        noise = noise.to(flat.device)
        parts = flat.split(self.at_once_cpu if flat.device.type == "cpu" else self.at_once)
        vectors = torch.cat([self.embed(part + noise, sample_rate) for part in parts])
        return vectors.unflatten(0, waves.shape[:3])


class ClassSimilarity(Similarity):
    """As `Similarity`, of the target's class in the space of a classifier: the reward of a critic.

    Args:
        embed: waveforms (B, N) and rate to unit vectors (B, D), differentiable.
        vectors: (C, D) unit vector of each class, in the order of the rollouts' labels.
        normalise, gap: as for `Similarity`.
    """

    def __init__(
        self,
        embed: Callable[[Tensor, int], Tensor],
        vectors: Tensor,
        *,
        normalise: bool = True,
        gap: float = 0.1,
    ):
        super().__init__(embed, normalise=normalise, gap=gap)
        self.classes = vectors

    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G), differentiable in the estimates."""
        own = self.classes[rollout.label.to(self.classes.device)]
        return super().__call__(replace(rollout, query=own, other=torch.zeros_like(own)))


class SiSdrGain:
    """SI-SDR improvement over the mixture in units of 10 dB, limited to +-3."""

    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G), differentiable in the estimates; 0 for a silent target or estimate."""
        target, mixture = rollout.target[:, None], rollout.mixture[:, None]
        sounding = target.abs().amax(-1) > 0  # a division by silence has no gradient
        target = torch.where(sounding[..., None], target, mixture)
        before = si_sdr(mixture, target)
        heard = rollout.estimates.detach().abs().amax(-1) > 0
        safe = torch.where(heard[..., None], rollout.estimates, mixture)
        gain = ((si_sdr(safe, target) - before) / 10).clamp(-3, 3)
        return torch.where(heard & sounding & gain.isfinite(), gain, 0.0).float()


class MaskIoU:
    """Weighted soft IoU of mask and ideal ratio mask."""

    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G) in [0, 1], differentiable in the masks."""
        return soft_iou(rollout.masks, rollout.ideal[:, None], rollout.weight[:, None])


class MaskOverlap:
    """CoPRS's reward of a mask: .5 soft IoU + .2 Dice + .3 hard IoU with the ideal ratio mask."""

    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G) in [0, 1]; the hard part has no gradient."""
        given = rollout.masks, rollout.ideal[:, None], rollout.weight[:, None]
        return 0.5 * soft_iou(*given) + 0.2 * soft_dice(*given) + 0.3 * hard_iou(*given)


class LevelGuard:
    """1 where the estimate has a plausible share of the mixture's energy, else 0.

    Against empty masks and masks that let everything pass; not differentiable.

    Args:
        low, high: bounds of the share.
    """

    def __init__(self, low: float = 0.02, high: float = 0.98):
        self.low, self.high = low, high

    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G), 0 or 1."""
        energy = rollout.estimates.detach().square().sum(-1)
        share = energy / rollout.mixture.square().sum(-1, keepdim=True).clamp(min=1e-12)
        return ((share >= self.low) & (share <= self.high)).float()


class ClassHit:
    """1 where the class whose text is nearest to the estimate is the target's; no gradient.

    Args:
        embed: waveforms (B, N) and rate to unit vectors (B, D).
        text: (C, D) unit vector of each class.
    """

    def __init__(self, embed: Callable[[Tensor, int], Tensor], text: Tensor):
        self.similarity, self.text = Similarity(embed), text

    @classmethod
    def by_text(cls, encoder, labels: list[str]) -> "ClassHit":
        """The classes called `labels`, named by an encoder of text and audio."""
        text = encoder.embed_text([f"the sound of {name}" for name in labels])
        return cls(encoder.embed_audio, text)

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> Tensor:
        """Rewards (B, G), 0 or 1."""
        nearest = self.nearest(rollout.estimates, rollout.sample_rate)
        return (nearest == rollout.label[:, None].to(nearest.device)).float()

    def nearest(self, waves: Tensor, sample_rate: int) -> Tensor:
        """Index of the nearest class (B, G) of waveforms (B, G, N)."""
        return (self.similarity.vectors(waves, sample_rate) @ self.text.T).argmax(-1)


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
