"""Training mixtures of clips that stream out of shards, behind the face of `sep.data.bank`."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sep.data.bank import MixtureSampler, Waves, mix_up
from sep.data.clip_stream import ClipStream
from sep.data.shards import Clip, ShardSet
from sep.errors import OptionError
from sep.train import distributed


class ShardBank(Waves):
    """The clips of one batch out of shards, and what is known of all.

    Args:
        shards: the folder; its number of clips is the length of this.
        clips: of the batch.
        device: where their samples and queries live.

    Attributes:
        labels: label names of the shards, sorted; label: (n,) index of each clip's label.
        text: (n, V, D) wordings; audio: (n, A, D) other recordings of the label; image: (n, D),
        zeros where none; has_image: (n,) bool, on the CPU like `label`.
    """

    def __init__(
        self, shards: ShardSet, clips: Sequence[Clip] = (), device: str | torch.device = "cpu"
    ):
        super().__init__([torch.from_numpy(clip.samples) for clip in clips], device)
        self.shards, self.labels = shards, shards.labels
        self.label = torch.tensor([clip.label for clip in clips], dtype=torch.long)
        counts = [shards.wordings, shards.others, 1]
        rows = torch.zeros(len(clips), sum(counts), shards.dim)
        for row, clip in zip(rows, clips, strict=True):
            row[: len(clip.query)] = torch.from_numpy(clip.query)
        self.has_image = torch.tensor([len(clip.query) == sum(counts) for clip in clips])
        self.text, self.audio, image = rows.to(self.device).split(counts, 1)
        self.image = image[:, 0]

    def __len__(self) -> int:
        return len(self.shards)


class ShardSampler(MixtureSampler):
    """Random training mixtures in which each clip of the shards comes once an epoch.

    Labels come as often as they do in the shards, and differ within a mixture. Unlike those of a
    bank in memory, the clips of a step depend on all draws before it: `state` says where they are.

    Args:
        shards: the folder.
        batch: B, of this process.
        device: where mixtures are made.
        workers, buffer: as in `ClipStream`.
        options: as in `MixtureSampler`.

    Raises:
        OptionError: `scene.family` or `scene.company`, for which all clips have to be at hand.
    """

    def __init__(
        self,
        shards: ShardSet,
        batch: int,
        device: str | torch.device = "cpu",
        workers: int = 2,
        buffer: int = 2048,
        **options: Any,
    ):
        super().__init__(ShardBank(shards, device=device), batch, **options)
        for name in ("family", "company"):
            if getattr(self.scene, name):
                raise OptionError(f"scene.{name} chooses among clips in memory; use 0 or tars=null")
        # as much of a clip as the fastest playing needs
        most = math.ceil(self.samples * math.exp(self.speed)) + 1
        world, ahead = distributed.world(), 2 * batch * self.sources
        self.stream = ClipStream(shards, self.rank, world, workers, buffer, most, self.seed, ahead)
        self._of = f"{shards.digest} {self.seed} {world} {workers} {buffer}"

    def choose(self, generator: torch.Generator) -> Tensor:
        """Take the next clips off the stream: indices (B, S) into the bank, which holds them."""
        groups = self.stream.groups(self.batch, self.sources)
        clips = [clip for group in groups for clip in group]
        self.bank = ShardBank(self.bank.shards, clips, self.bank.device)
        order = torch.rand(self.batch, self.sources, generator=generator).argsort(1)
        return torch.arange(self.batch)[:, None] * self.sources + order

    def state(self) -> dict[str, Any]:
        """Where every process is in its shards; all processes have to call it."""
        return {"of": self._of, "ranks": distributed.collected(self.stream.state())}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        With other shards, another seed or another number of readers its places mean nothing: then
        the next epoch begins.
        """
        if state.get("of") == self._of:
            self.stream.restore(state["ranks"][self.rank])
        elif state:
            epoch = 1 + max(epoch for rank in state["ranks"] for epoch, _ in rank["places"])
            self.stream.begin(epoch)
            warnings.warn("other shards or readers than before: a new epoch begins", stacklevel=2)


class ShardQueries:
    """Query embeddings of the clips that a sampler drew last, and their mix-up."""

    def __init__(self, sampler: ShardSampler):
        self.sampler, shards = sampler, sampler.bank.shards
        self.encoder, self.dim = shards.encoder, shards.dim

    def draw(self, clip: Tensor, generator: torch.Generator, mixed: float = 0.5) -> Tensor:
        """Training queries for clips (B, S): (B, S, D), unit norm; as `QueryBank.draw`.

        The audio query is one of those that were packed with the clip, the picture its own.
        """
        bank = self.sampler.bank
        rand = torch.rand(*clip.shape, 6, generator=generator)
        has_image, device = bank.has_image[clip], bank.device
        wording = (rand[..., 0] * bank.text.shape[1]).long().to(device)
        other = (rand[..., 1] * bank.audio.shape[1]).long().to(device)
        clip = clip.to(device)
        text, audio, image = bank.text[clip, wording], bank.audio[clip, other], bank.image[clip]
        return mix_up(text, audio, image, has_image, rand[..., 2:], mixed)
