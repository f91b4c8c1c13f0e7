"""A data directory in memory: clips, labels and query embeddings gathered without a Python loop."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sep.data.kaldi import DataDir
from sep.data.mixing import active_rms, colour, level
from sep.data.scene import Scene
from sep.errors import DataError

COMPANY_DB = -10.0  # a second clip of the label in a source is down to this under the first


class Waves:
    """Clips of different lengths as one int16 tensor on the device.

    Args:
        clips: (N,) int16 each.
        device: where the samples live.

    Attributes:
        length: (n,) samples.
    """

    def __init__(self, clips: Sequence[Tensor], device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self.length = torch.tensor([len(c) for c in clips], dtype=torch.long)
        self._start = (self.length.cumsum(0) - self.length).to(self.device)
        self._length = self.length.to(self.device)
        self._samples = torch.cat([torch.zeros(0, dtype=torch.int16), *clips]).to(self.device)

    def segments(
        self, clip: Tensor, offset: Tensor, samples: int, rate: Tensor | None = None
    ) -> Tensor:
        """Cut segments: clip (M,) indices and offset (M,) in samples to waveforms (M, samples).

        An offset below zero starts the clip that many samples into the segment; beyond the end of
        a clip there is silence. With `rate` (M,), each is played so much faster.
        """
        clip, offset = clip.to(self.device), offset.to(self.device)
        step = torch.arange(samples, device=self.device)
        if rate is None:
            return self._at(clip, offset[:, None] + step)
        place = offset[:, None] + step * rate.to(self.device)[:, None]
        lower = place.floor()
        ahead, lower = place - lower, lower.long()
        return torch.lerp(self._at(clip, lower), self._at(clip, lower + 1), ahead)

    def _at(self, clip: Tensor, index: Tensor) -> Tensor:
        """Samples (M, N) of clips (M,) at index (M, N), 0 outside them."""
        inside = (index >= 0) & (index < self._length[clip][:, None])
        index = (index + self._start[clip][:, None]).clamp(0, len(self._samples) - 1)
        return self._samples[index].float().div(32768) * inside


class ClipBank(Waves):
    """All clips of a data directory in memory.

    Args:
        data: the data directory; its clips are mono at `sample_rate`.
        device: where the samples live and mixtures are made.
        sample_rate: rate in Hz.
        limit_gb: refuse data that would need more memory than this.

    Attributes:
        ids: clip ids, the order of every index below.
        labels: label names, sorted; label: (n,) index of each clip's label.
    """

    def __init__(
        self,
        data: DataDir,
        device: str | torch.device = "cpu",
        sample_rate: int = 16_000,
        limit_gb: float = 2.0,
    ):
        self.ids = list(data.ids)
        if not self.ids:
            raise DataError(f"{data.path}: no clips; run stage 1 again")
        seconds = sum(data.duration_s[i] for i in self.ids)
        if seconds * sample_rate * 2 > limit_gb * 1e9:
            raise DataError(
                f"{data.path}: {seconds / 3600:.1f} h of audio need more than {limit_gb:g} GB; "
                "raise bank_gb or use a part of the data"
            )
        clips = [_read(data.wav[i], sample_rate) for i in self.ids]
        super().__init__(clips, device)
        self.sample_rate = sample_rate
        self.labels = sorted(set(data.label[i] for i in self.ids))
        self.label = torch.tensor([self.labels.index(data.label[i]) for i in self.ids])
        self.member, self.count = members(self.label, len(self.labels))

    def __len__(self) -> int:
        return len(self.ids)


def members(group: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """What belongs to each of `count` groups, of items whose groups are (n,).

    Returns:
        (count, most) indices of items, each row filled up by repetition, and (count,) how many of a
        row are real.
    """
    mine = [torch.nonzero(group == k).flatten() for k in range(count)]
    most = max(len(m) for m in mine)
    rows = [m.repeat(-(-most // len(m)))[:most] if len(m) else m.new_zeros(most) for m in mine]
    return torch.stack(rows), torch.tensor([len(m) for m in mine])


def _read(path: str, sample_rate: int) -> Tensor:
    try:
        wave, rate = soundfile.read(path, dtype="int16", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run stage 1 again") from None
    if rate != sample_rate or wave.shape[1] != 1 or not len(wave):
        raise DataError(f"{path}: not mono at {sample_rate} Hz; run stage 1 again")
    return torch.from_numpy(wave[:, 0])


class MixtureSampler:
    """Random training mixtures as a pure function of seed, rank and step.

    Labels are drawn uniformly and differ within a mixture, then a clip of each label, then where
    it is cut. A clip shorter than the segment is placed at random, with silence around it.

    Args:
        bank: the clips.
        batch: B.
        samples: segment length N.
        sources: S.
        absent: probability that a source is silent, each but the first: its query then asks for
            what is not in the mixture.
        scene: rooms, bands, noise and loudness.
        kin: (labels, K) index of the labels that each is most easily taken for, for `scene.family`.
        gain_db: sources' levels differ by up to this much either way.
        speed: sources are played faster or slower by a factor of up to exp(speed).
        colour_db: spread of their random tone (`sep.data.mixing.colour`), 0 leaves it alone.
        seed: of the whole run.
        rank: of the process; ranks draw different mixtures.
    """

    def __init__(
        self,
        bank: ClipBank,
        batch: int,
        samples: int = 65_535,
        sources: int = 2,
        gain_db: float = 5.0,
        speed: float = 0.0,
        colour_db: float = 0.0,
        absent: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        scene: Scene | None = None,
        kin: Tensor | None = None,
    ):
        if len(bank.labels) < sources:
            raise DataError(f"{sources} labels are needed for a mixture, found {len(bank.labels)}")
        self.bank, self.batch, self.samples, self.sources = bank, batch, samples, sources
        self.gain_db, self.speed, self.colour_db = gain_db, speed, colour_db
        self.absent, self.seed, self.rank = absent, seed, rank
        self.scene, self.kin = scene or Scene(), kin

    def generator(self, step: int) -> torch.Generator:
        """The random stream of one step (CPU)."""
        generator = torch.Generator()
        generator.manual_seed((self.seed * 1_000_003 + step) * 1_009 + self.rank)
        return generator

    def choose(self, generator: torch.Generator) -> Tensor:
        """Draw clips of different labels for each mixture: indices (B, S)."""
        bank = self.bank
        label = torch.rand(self.batch, len(bank.labels), generator=generator).argsort(1)
        if self.scene.family:
            label = self._kindred(label, generator)
        label = label[:, : self.sources]
        pick = torch.rand((self.batch, self.sources), generator=generator) * bank.count[label]
        return bank.member[label, pick.long()]

    def _kindred(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """Orders of labels (B, L) in some of which one of the first's kin has become the second."""
        used, pick = torch.rand(2, len(order), generator=generator)
        near = self.kin[order[:, 0], (pick * self.kin.shape[1]).long()]
        near = torch.where(used < self.scene.family, near, order[:, 1])
        place, row = (order == near[:, None]).long().argmax(1), torch.arange(len(order))
        order[row, place] = order[:, 1]
        order[:, 1] = near
        return order

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch.

        Returns:
            clip (B, S) indices and the levelled sources (B, S, N) on the bank's device; the
            mixture is their sum and `floor`.
        """
        clip = self.choose(generator)
        shape = (self.batch, self.sources)
        place, gains = torch.rand(2, *shape, generator=generator)
        gains = (gains * 2 - 1) * self.gain_db / 2
        sources = self._played(clip.flatten(), place.flatten(), generator)
        if self.scene.company:
            sources = self._accompanied(clip.flatten(), sources, generator)
        if self.colour_db:
            sources = colour(sources, self.colour_db, generator)
        sources = self.scene.recorded(sources.unflatten(0, shape), generator)
        if self.absent:
            heard = torch.rand(shape, generator=generator) >= self.absent
            heard[:, 0] = True
            sources = sources * heard[..., None].to(sources.device)
        return clip, self.scene.louder(level(sources, gains.to(sources.device)), generator)

    def _played(self, clip: Tensor, place: Tensor, generator: torch.Generator) -> Tensor:
        """Segments (M, N) of clips (M,), cut at `place` (M,), 0 to 1 of where they can be cut."""
        rate = None
        if self.speed:
            rate = ((torch.rand(clip.shape, generator=generator) * 2 - 1) * self.speed).exp()
        # from the clip's end back to the segment's end: negative where the clip is the shorter
        span = self.samples if rate is None else (self.samples * rate).long()
        room = self.bank.length[clip] - span
        offset = (place * (room + room.sign())).long()
        return self.bank.segments(clip, offset, self.samples, rate)

    def _accompanied(self, clip: Tensor, sources: Tensor, generator: torch.Generator) -> Tensor:
        """Sources (M, N) of clips (M,), some with another clip of the label, not louder.

        A label of one clip keeps itself company, cut and played otherwise.
        """
        bank = self.bank
        used, pick, place, down = torch.rand(4, len(clip), generator=generator)
        if not len(rows := torch.nonzero(used < self.scene.company).flatten()):
            return sources
        label = bank.label[clip[rows]]
        other = bank.member[label, (pick[rows] * bank.count[label]).long()]
        second = self._played(other, place[rows], generator)
        gain = 10 ** (down[rows].to(second.device) * COMPANY_DB / 20)
        rows = rows.to(sources.device)
        gain = gain * active_rms(sources[rows]) / active_rms(second).clamp(min=1e-6)
        return sources.index_add(0, rows, second * gain[:, None])

    def floor(self, sources: Tensor, generator: torch.Generator) -> Tensor:
        """The noise of the mixtures of `sources`, drawn after them: (B, N), or (B, 1) zeros."""
        return self.scene.floor(sources, generator)

    def state(self) -> dict[str, Any]:
        """Nothing: every draw is a function of seed and step."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class QueryBank:
    """Query embeddings of a split (`exp/<tag>/queries/<split>.safetensors`) and their mix-up.

    Attributes:
        text: (n, V, D) wordings of each clip; audio: (n, D); image: (n, D), zeros where none;
        has_image: (n,) bool. Rows follow `ids`.
        pictures: (P, D) all pictures of the classes, picture_labels: (P,) their names; none where
            clips have only pictures of their own.
    """

    def __init__(self, path: str | Path, bank: ClipBank | None = None, device="cpu"):
        try:
            with safe_open(path, framework="pt") as file:
                self.ids: list[str] = json.loads(file.metadata()["ids"])
                self.encoder = file.metadata().get("encoder", "")
                names = ("text", "audio", "image", "has_image")
                values = {name: file.get_tensor(name).to(device) for name in names}
                self.picture_labels: list[str] = json.loads(file.metadata().get("pictures", "[]"))
                self.pictures = torch.zeros(0, values["image"].shape[-1], device=device)
                if self.picture_labels:
                    self.pictures = file.get_tensor("pictures").float().to(device)
        except FileNotFoundError:
            raise DataError(f"{path}: missing; run stage 3 first") from None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error}); run stage 3 again") from None
        self.text, self.audio, self.image = (values[n].float() for n in names[:3])
        self.has_image = values["has_image"].bool()
        self.row = {name: i for i, name in enumerate(self.ids)}
        self.bank = bank
        if bank is not None and bank.ids != self.ids:
            raise DataError(f"{path}: does not match the data; run stage 3 again")
        if bank is not None:
            place = {name: k for k, name in enumerate(bank.labels)}
            of = torch.tensor([place.get(name, -1) for name in self.picture_labels])
            self._picture, self._shown = members(of, len(bank.labels))

    @property
    def dim(self) -> int:
        """D."""
        return self.text.shape[-1]

    def draw(self, clip: Tensor, generator: torch.Generator, mixed: float = 0.5) -> Tensor:
        """Training queries for clips (B, S): (B, S, D), unit norm.

        With probability `mixed` a query is the convex combination of the text, audio and image
        embeddings with weights u_i / sum(u), u uniform (OmniSep's query mix-up); otherwise it is
        one of them at random. The audio query is another clip of the label where there is one, the
        picture any of the label where there is a list of them; clips without a picture use text and
        audio.
        """
        bank, device = self.bank, self.text.device
        rand = torch.rand(*clip.shape, 6, generator=generator)
        wording = (rand[..., 0] * self.text.shape[1]).long()
        label = bank.label[clip]
        other = bank.member[label, (rand[..., 1] * bank.count[label]).long()]
        image, has_image = self.image[clip.to(device)], self.has_image.cpu()[clip]
        if self.picture_labels:
            pick, shown = torch.rand(clip.shape, generator=generator), self._shown[label]
            row, listed = self._picture[label, (pick * shown).long()].to(device), shown > 0
            image = torch.where(listed.to(device)[..., None], self.pictures[row], image)
            has_image = has_image | listed
        text = self.text[clip.to(device), wording.to(device)]
        return mix_up(text, self.audio[other.to(device)], image, has_image, rand[..., 2:], mixed)


def kin(queries: QueryBank, count: int = 3) -> Tensor:
    """The labels whose texts are nearest to those of each label: indices (L, count or L - 1)."""
    bank, text = queries.bank, queries.text.mean(1).cpu()
    mean = torch.zeros(len(bank.labels), queries.dim).index_add_(0, bank.label, text)
    mean = torch.nn.functional.normalize(mean, dim=-1)
    cosine = (mean @ mean.T).fill_diagonal_(-2)
    return cosine.topk(min(count, len(mean) - 1)).indices


def known(queries: QueryBank) -> Tensor:
    """One query for each label: the mean of its sounds and that of its texts, together: (L, D)."""
    bank = queries.bank
    total = torch.zeros(2, len(bank.labels), queries.dim)
    for part, rows in zip(total, (queries.audio, queries.text.mean(1)), strict=True):
        part.index_add_(0, bank.label, rows.cpu())
    return torch.nn.functional.normalize(total, dim=-1).sum(0) / 2


def mix_up(
    text: Tensor, audio: Tensor, image: Tensor, has_image: Tensor, rand: Tensor, mixed: float
) -> Tensor:
    """Mix embeddings (..., D) of a clip in three modalities into queries (..., D), unit norm.

    Args:
        text, audio, image: the embeddings.
        has_image: (...,) bool, on the CPU; without a picture `image` has no part.
        rand: (..., 4) uniform, on the CPU: three weights, and below `mixed` they are all used,
            else only that of the largest.
    """
    ones = torch.ones(has_image.shape)
    weight = rand[..., :3] * torch.stack([ones, ones, has_image.float()], -1)
    single = torch.nn.functional.one_hot(weight.argmax(-1), 3).float()
    weight = torch.where((rand[..., 3] < mixed)[..., None], weight, single)
    weight = (weight / weight.sum(-1, keepdim=True).clamp(min=1e-8)).to(text.device)
    parts = torch.stack([text, audio, image], -2)
    return torch.nn.functional.normalize((weight[..., None] * parts).sum(-2), dim=-1)
