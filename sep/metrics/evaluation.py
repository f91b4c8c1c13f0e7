"""The fixed test mixtures, with their query embeddings."""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from sep.data import mixtures
from sep.data.bank import QueryBank
from sep.data.kaldi import DataDir
from sep.errors import DataError, OptionError
from sep.query import away, fuse, subtract
from sep.spectrogram import Spectrogram
from sep.train.losses import target_masks

STEP = 16  # mixtures in memory at once
KINDS = ("text", "audio", "image", "omni", "ensemble", "negative")
WEIGHTS = {"text": 2.0, "audio": 1.0, "image": 2.0, "negative": 0.5}  # of OmniSep


class EvaluationSet:
    """Mixtures of `data/<split>/mixtures.jsonl`, rendered when their sound is first asked for.

    `sources` and `mixture` hold all of them in memory; those of a `part` are only its own.

    Args:
        data: folder of the data directories.
        split: which of them.
        queries: folder of the query embeddings, a file a split.
        count: take the first so many; None takes all.
        samples: N, the length of a mixture.

    Attributes:
        mixtures: the n descriptions; their ids, and labels and recordings of their targets.
        sources: (n, S, N), the target first, levels as in the mixture.
        mixture: (n, N), the sum of the sources.
    """

    def __init__(
        self,
        data: str | Path,
        split: str,
        queries: str | Path,
        count: int | None = None,
        samples: int = mixtures.SEGMENT,
    ):
        self.data, self.split, self.query_dir = Path(data), split, Path(queries)
        self._banks: dict[str, QueryBank] = {}
        self._last: tuple[list[int], EvaluationSet] | None = None
        folder = self.data / split
        self.samples, self._directory = samples, DataDir(folder)
        self.mixtures = mixtures.load(folder / "mixtures.jsonl")[:count]
        if not self.mixtures:
            raise DataError(f"{folder}/mixtures.jsonl: empty; run stage 1 again")

    def __len__(self) -> int:
        return len(self.mixtures)

    def part(self, rows: slice | Sequence[int]) -> "EvaluationSet":
        """Some of the mixtures, whose sound alone is then rendered; the last part is kept."""
        chosen = list(range(len(self))[rows] if isinstance(rows, slice) else rows)
        if self._last is None or self._last[0] != chosen:
            found = copy.copy(self)
            for name in ("sources", "mixture", "ids", "labels", "recordings"):
                found.__dict__.pop(name, None)
            found.mixtures = [self.mixtures[i] for i in chosen]
            found._last = None
            self._last = chosen, found
        return self._last[1]

    def parts(self, size: int = STEP) -> Iterator[tuple[slice, "EvaluationSet"]]:
        """All mixtures, so many at a time: their rows, and the part."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield rows, self.part(rows)

    @cached_property
    def sources(self) -> Tensor:
        drawn = [mixtures.render(m, self._directory, self.samples) for m in self.mixtures]
        return torch.stack(drawn)

    @cached_property
    def mixture(self) -> Tensor:
        return self.sources.sum(1)

    @cached_property
    def ids(self) -> list[str]:
        return [m.id for m in self.mixtures]

    @cached_property
    def labels(self) -> list[str]:
        return [m.label for m in self.mixtures]

    @cached_property
    def recordings(self) -> list[str]:
        return [m.target for m in self.mixtures]

    def queries(
        self, kind: str, weights: Mapping[str, float] = WEIGHTS, unit: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Query embeddings of one kind.

        The text query is the target's caption, the audio query another recording of its class,
        the image query a picture of its class; omni is these three, mixed by `weights`. Ensemble
        is the mean of the wordings of the text that were embedded, negative the text query turned
        away from the captions of what else is in the mixture. A mixture without that kind has a
        row of zeros.

        Args:
            kind: one of `KINDS`.
            weights: of `text`, `audio` and `image` in omni; `negative` is the factor a of
                (1 + a) q - a n.
            unit: negative queries get norm 1; without, they are as long as OmniSep has them.

        Returns:
            vectors (n, D), of norm 1 or 0 unless told otherwise, and has (n,) bool.

        Raises:
            DataError: an unknown kind, or a clip that was not embedded.
            OptionError: weights below 0, or none above.
        """
        if kind not in KINDS:
            raise DataError(f"query kind '{kind}' is unknown; use {', '.join(KINDS)}")
        if min(weights.values()) < 0 or not sum(weights[k] for k in ("text", "audio", "image")) > 0:
            raise OptionError(f"weights {dict(weights)}: give 0 or more, and one of a query above")
        if kind == "omni":
            parts, have = zip(*(self.queries(k) for k in ("text", "audio", "image")), strict=True)
            shares = torch.tensor([float(weights[k]) for k in ("text", "audio", "image")])
            has = torch.stack(have).all(0)
            return fuse(torch.stack(parts, 1), shares) * has[:, None], has
        vectors = torch.zeros(len(self), self._bank(self.split).dim)
        for i, mixture in enumerate(self.mixtures):
            found = self._query_clip(mixture, kind)
            if found is not None:
                vectors[i] = self._vector(kind, *found)
        has = vectors.any(-1)
        if kind == "negative":
            others = [[self._vector("text", self.split, c) for c in m.interferers] for m in
                      self.mixtures]  # fmt: skip
            others = torch.stack([fuse(torch.stack(clips)) for clips in others])
            factor = float(weights["negative"])
            if unit:
                vectors = subtract(vectors, others, factor / (1 + factor))
            else:
                vectors = away(vectors, others, factor)
        return vectors, has

    def _vector(self, kind: str, split: str, clip: str) -> Tensor:
        """One clip's embedding (D,): its caption, all its wordings, its sound or its picture."""
        bank = self._bank(split)
        if clip not in bank.row:
            raise DataError(
                f"{self.query_dir}/{split}.safetensors: has no clip {clip}; run stage 3 again"
            )
        row = bank.row[clip]
        if kind == "ensemble":
            return fuse(bank.text[row])
        return {"audio": bank.audio, "image": bank.image}.get(kind, bank.text[:, 0])[row]

    def _query_clip(self, mixture: mixtures.Mixture, kind: str) -> tuple[str, str] | None:
        """Split and clip whose embedding is the query of this kind, None where there is none."""
        if kind == "audio":
            if mixture.audio_query is None:
                return None
            return mixture.audio_query_split, mixture.audio_query
        if kind == "image":
            return self._pictures.get(mixture.image)
        return self.split, mixture.target

    def query_note(self) -> str:
        """One sentence on where the audio and image queries come from, and what training saw."""
        splits = Counter(m.audio_query_split for m in self.mixtures if m.audio_query)
        audio = ", ".join(f"{count} of the {split} split" for split, count in splits.most_common())
        pictures = [m.image for m in self.mixtures if m.image]
        train = self.data / "train"
        seen = set(DataDir(train).image.values()) if train.is_dir() else set()
        known = sum(picture in seen for picture in pictures)
        return (
            f"Audio queries are other recordings of the class ({audio or 'none'}); image queries "
            f"are pictures of the class ({len(pictures)}, {known} of them also seen in training)."
        )

    @cached_property
    def _pictures(self) -> dict[str, tuple[str, str]]:
        """Path of a picture to the split and clip that has its embedding, own split first."""
        found: dict[str, tuple[str, str]] = {}
        for split in (self.split, *(s for s in mixtures.SPLITS if s != self.split)):
            if (self.query_dir / f"{split}.safetensors").exists():
                for clip, path in DataDir(self.data / split).image.items():
                    found.setdefault(path, (split, clip))
        return found

    def _bank(self, split: str) -> QueryBank:
        if split not in self._banks:
            self._banks[split] = QueryBank(self.query_dir / f"{split}.safetensors")
        return self._banks[split]


def ideal_ratio_mask(sources: Tensor, spectrogram: Spectrogram) -> Tensor:
    """Ideal ratio mask of the first source, |S_0| / sum_s |S_s|, (B, S, N) -> (B, F, T).

    On the full linear grid; bins where every source is zero give 0.
    """
    spectra = spectrogram.stft(sources)
    return target_masks(spectra.abs(), spectra.sum(1).abs(), "ratio")[:, 0]


def apply_mask(mixture: Tensor, mask: Tensor, spectrogram: Spectrogram) -> Tensor:
    """Mask a mixture with its own phase: (B, N) and (B, F, T) -> (B, N)."""
    return spectrogram.istft(spectrogram.stft(mixture) * mask, mixture.shape[-1])
