"""The separator: mixture spectrogram and query in, mask logits out."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sep import rivals
from sep.backbone import BackboneUNet
from sep.context import in_context
from sep.device import autocast
from sep.errors import ModelError
from sep.joined import Joined
from sep.presence import evidence
from sep.recall import Recall
from sep.spectrogram import Spectrogram
from sep.unet import UNet, sums


class QueryNet(nn.Module):
    """Query-conditioned mask estimator of CLIPSep, OmniSep and MARS-Sep.

    A U-Net turns the log-frequency log magnitude of the mixture into K maps; the query is
    projected to K weights in (0, 1); their scaled inner product plus a bias is the mask logit:
    ``logit = sum_k scale_k * sigmoid(W q)_k * map_k + bias``. State-dict names are those of the
    published networks (`sound_net.*`, `frame_net.*`, `synth_net.*`).

    Args:
        width: U-Net width (`ngf`); 64 in OmniSep.
        levels: U-Net levels; 7 in OmniSep.
        mask_channels: K.
        embed_dim: D of the query.
        query_gain: factor on the unit-norm query before its projection; sqrt(D) gives the linear
            layer inputs of unit variance and speeds up early training, 1 is OmniSep's.
        floor: added to magnitudes before the logarithm.
        spectrogram: constructor arguments of `Spectrogram`.
        backbone: None, or `lite0` for the way down of `sep.backbone.BackboneUNet` (five levels).
        recall: None, or `count` and `beta` of the memory that queries pass (`sep.recall.Recall`).
        networks: U-Nets side by side that share the K maps (`sep.joined`).

    Subclasses add parts to it and are told apart by `kind` (`sep.hub.KINDS`); what they take beside
    the arguments above goes into `config` too.
    """

    kind = "query"
    unit_queries = True  # whether all queries have norm 1, negative ones too

    def __init__(
        self,
        width: int = 64,
        levels: int = 7,
        mask_channels: int = 32,
        embed_dim: int = 1024,
        query_gain: float = 1.0,
        floor: float = 1e-10,
        spectrogram: dict[str, int] | None = None,
        backbone: str | None = None,
        recall: dict[str, Any] | None = None,
        networks: int = 1,
    ):
        super().__init__()
        self.spectrogram = Spectrogram(**(spectrogram or {}))
        self.config: dict[str, Any] = {
            "width": width,
            "levels": levels,
            "mask_channels": mask_channels,
            "embed_dim": embed_dim,
            "query_gain": query_gain,
            "floor": floor,
            "spectrogram": self.spectrogram.config,
        }
        if backbone:
            self.config["backbone"] = backbone
        if recall:
            self.config["recall"] = dict(recall)
        if networks != 1:
            self.config["networks"] = networks
        self.levels, self.query_gain, self.floor = levels, query_gain, floor
        self.amp = True  # bfloat16 inside where the processor has it
        self.sound_net = _sound_net(backbone, width, levels, mask_channels, networks)
        self.recall = Recall(dim=embed_dim, **recall) if recall else nn.Identity()
        self.frame_net = nn.Linear(embed_dim, mask_channels)
        self.synth_net = _InnerProduct(mask_channels)
        self.to(memory_format=torch.channels_last)

    @property
    def sample_rate(self) -> int:
        """Rate of the waveforms in Hz."""
        return self.spectrogram.sample_rate

    @property
    def remembers(self) -> bool:
        """Whether there is a memory of what was learned (`sep.recall`)."""
        return isinstance(self.recall, Recall)

    def logits(self, magnitude: Tensor, query: Tensor) -> Tensor:
        """Mask logits on the log-frequency grid.

        Args:
            magnitude: (B, F, T) mixture magnitudes, any T.
            query: (B, D), one query a mixture; (B, Q, D), several for each; or (D,), one for
                all, which folds the query into the last convolution and costs least.

        Returns:
            (B, H, T), or (B, Q, H, T) for several queries; float32.
        """
        if query.dim() > 1:
            return self.combine(self.maps(magnitude), query)
        frames, x = magnitude.shape[-1], self._input(magnitude)
        with autocast(x.device, self.amp):
            logits = self.sound_net.weighted(x, self.synth_net.scale * self.prompt(query))
        return logits[..., :frames].float() + self.synth_net.bias

    def maps(self, magnitude: Tensor) -> Tensor:
        """What the U-Net makes of mixture magnitudes (B, F, T): (B, K, H, T), whatever is asked."""
        x = self._input(magnitude)
        with autocast(x.device, self.amp):
            return self.sound_net(x).float()[..., : magnitude.shape[-1]]

    def prompt(self, query: Tensor) -> Tensor:
        """Queries (..., D) to weights of the maps in (0, 1): (..., K)."""
        return torch.sigmoid(self.frame_net(self.recall(query) * self.query_gain))

    def base(self, maps: Any) -> Tensor:
        """The U-Net's own maps (B, K, H, T) in what `maps` gave, which subclasses add to."""
        return maps[:, : self.config["mask_channels"]]

    def combine(self, maps: Tensor, query: Tensor) -> Tensor:
        """Mask logits from `maps` (B, K, H, T) and queries (B, D) or (B, Q, D), as in `logits`."""
        return self._product(maps, query, self.synth_net)

    def against_rivals(self, logits: Tensor, maps: Tensor) -> Tensor:
        """Logits (B, Q, H, T) less what else is known (`sep.rivals`), where there is a memory.

        `maps` are those that `maps` gave.
        """
        if not self.remembers:
            return logits
        known = self.synth_net.scale * self.prompt(normalize(self.recall.known, dim=-1))
        return rivals.against(logits, self.base(maps), known, self.synth_net.bias)

    def in_context(self, query: Tensor, heard: Tensor) -> Tensor:
        """Queries in the light of what a recording sounds like, by the memory (`sep.context`).

        Queries and, to broadcast with them, embeddings of recordings: (..., D) of norm 1.
        """
        return in_context(query, heard, normalize(self.recall.known, dim=-1))

    def evidence(self, found: Tensor, query: Tensor) -> Tensor:
        """What sounds that were found add to their queries' logits (`sep.presence`).

        Embeddings (..., D) of norm 1 of the sounds and of the queries to (...); 0 where there is no
        memory.
        """
        if not self.remembers:
            return torch.zeros_like(found[..., 0])
        return evidence(found, self.recall(query), normalize(self.recall.known, dim=-1))

    def _product(self, maps: Tensor, query: Tensor, head: "_InnerProduct") -> Tensor:
        weight = head.scale * self.prompt(query)
        several = weight if weight.dim() == 3 else weight[:, None]
        # in float32, which on a CPU is faster than to round maps first; and queries that differ by
        # little, as those of neighbouring segments do, give masks that do
        logits = sums(maps, several) + head.bias
        return logits if weight.dim() == 3 else logits[:, 0]

    def _input(self, magnitude: Tensor) -> Tensor:
        """Log magnitudes (B, 1, H, T') on the log-frequency grid, T padded for the U-Net."""
        padded = nn.functional.pad(magnitude, (0, -magnitude.shape[-1] % 2**self.levels))
        x = torch.log(self.spectrogram.warp(padded + self.floor))[:, None]
        return x.contiguous(memory_format=torch.channels_last)

    def mask(self, magnitude: Tensor, query: Tensor) -> Tensor:
        """Mask in [0, 1] on the linear grid; shapes as in `logits` with F in place of H."""
        return self.spectrogram.unwarp(torch.sigmoid(self.logits(magnitude, query)))

    def separate(self, wave: Tensor, query: Tensor) -> Tensor:
        """Separate in a single pass: waveforms (B, N) at the model's rate to estimates (B, N).

        The mask of each query multiplies the complex mixture spectrogram (mixture phase). With
        several queries (B, Q, D) the result is (B, Q, N).
        """
        spectrum = self.spectrogram.stft(wave)
        mask = self.mask(spectrum.abs(), query)
        if mask.dim() == 4:
            spectrum = spectrum[:, None]
        return self.spectrogram.istft(spectrum * mask, wave.shape[-1])

    forward = logits


def _sound_net(
    backbone: str | None, width: int, levels: int, channels: int, networks: int
) -> nn.Module:
    if networks != 1:
        if networks < 1 or channels % networks:
            raise ModelError(f"{channels} maps cannot be shared by {networks} networks")
        own = channels // networks
        return Joined([_sound_net(backbone, width, levels, own, 1) for _ in range(networks)])
    if backbone is None:
        return UNet(width, levels, channels)
    if backbone != "lite0":
        raise ModelError(f"backbone '{backbone}' is unknown; use lite0, or none for a plain U-Net")
    if levels != BackboneUNet.levels:
        raise ModelError(f"backbone lite0 has {BackboneUNet.levels} levels, not {levels}")
    return BackboneUNet(width, channels)


class _InnerProduct(nn.Module):
    """Learned scale and bias of the inner product between query weights and maps."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(1))
