"""Shards: a data directory as WebDataset tars of clips in random order, read from end to end.

    index.json       labels, sizes and what the queries are; written last: without it, unfinished
    train-00000.tar  for each clip KEY.flac (or KEY.wav), KEY.json, KEY.query.f16

`json` holds id, label, text and frames. `query.f16` holds float16 rows (V + A + I, D), low byte
first: embeddings of V wordings of the clip, of A other recordings of its label, and of its picture
where it has one (I = 1). KEY is the id with dots, slashes and letters beyond ASCII as %XX.
`recipes/shard.py` packs.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile

from sep.errors import DataError, OptionError

INDEX = "index.json"
VERSION = 1  # of the layout
FORMATS = ("flac", "wav")
_KEYS = ("version", "labels", "sample_rate", "encoder", "dim", "wordings", "others", "left_out")
_READ = (".json", ".query.f16", *(f".{kind}" for kind in FORMATS))
_AGAIN = "delete it and run recipes/shard.py again"


@dataclass
class Clip:
    """A clip of a shard.

    Attributes:
        samples: (N,) int16.
        label: index of its label.
        query: (V + A + I, D) float32.
        place: epoch in which it was read, shard, member; names it for ever.
    """

    samples: np.ndarray
    label: int
    query: np.ndarray
    place: tuple[int, int, int]


class ShardSet:
    """What a folder of shards holds; nothing of it but the index is in memory.

    Args:
        path: the folder.

    Attributes:
        labels: label names, sorted; names, counts: tars and how many clips each has;
        sample_rate: in Hz; encoder: fingerprint of that of the queries; dim: D; wordings: V;
        others: A; digest: changes with any of this; damaged: (tar, member) of clips that were found
        damaged and are left out.

    Raises:
        DataError: packing was not finished, or a tar is missing or has another size.
        OptionError: webdataset is not installed.
    """

    def __init__(self, path: str | Path):
        webdataset()
        self.path = Path(path)
        index = read_index(self.path)
        if index is None:
            raise DataError(f"{self.path / INDEX}: missing; run recipes/shard.py (again)")
        self.labels, self.sample_rate = index["labels"], index["sample_rate"]
        self.names = [shard["name"] for shard in index["shards"]]
        self.counts = [shard["clips"] for shard in index["shards"]]
        self.encoder, self.dim = index["encoder"], index["dim"]
        self.wordings, self.others = index["wordings"], index["others"]
        self.digest = hashlib.sha256(json.dumps(index).encode()).hexdigest()[:16]
        self.damaged: set[tuple[int, int]] = set()
        self._label = {name: k for k, name in enumerate(self.labels)}
        if bad := faulty(self.path, index):
            more = f" ({len(bad)} such tars)" if len(bad) > 1 else ""
            raise DataError(f"{self.path / bad[0]}: missing or cut off{more}; run recipes/shard.py")

    def __len__(self) -> int:
        return sum(self.counts)

    def members(self, shard: int) -> Iterator[dict[str, Any]]:
        """The clips of a tar in their order, undecoded: suffix to bytes.

        Raises:
            DataError: the tar is damaged, or ends too early.
        """
        path, count = self.path / self.names[shard], 0
        for sample in members(path):
            count += 1
            if count > self.counts[shard]:
                break
            yield sample
        if count != self.counts[shard]:
            raise DataError(
                f"{path}: {count} clips, not {self.counts[shard]}, can be read; {_AGAIN}"
            )

    def clip(
        self, sample: dict[str, Any], place: tuple[int, int, int], start: float, most: int
    ) -> Clip:
        """Decode a clip; of a long one `most` samples from `start`, 0 to 1 of what is left.

        Raises:
            DataError: the clip is damaged; the message names tar and clip.
        """
        kind = next((kind for kind in FORMATS if kind in sample), None)
        try:
            about = json.loads(sample["json"])
            query = (
                np.frombuffer(sample["query.f16"], "<f2").astype(np.float32).reshape(-1, self.dim)
            )
            with soundfile.SoundFile(io.BytesIO(sample[kind])) as file:
                if (file.samplerate, file.channels) != (self.sample_rate, 1):
                    raise ValueError(f"not mono at {self.sample_rate} Hz")
                frames = about["frames"]
                if frames > most:
                    file.seek(int(start * (frames - most + 1)))
                samples = file.read(most, dtype="int16")
            if len(samples) != min(frames, most):
                raise ValueError(f"{len(samples)} samples of {min(frames, most)}")
            if len(query) not in (self.wordings + self.others, self.wordings + self.others + 1):
                raise ValueError(f"{len(query)} queries")
            return Clip(samples, self._label[about["label"]], query, place)
        except (KeyError, TypeError, ValueError, EOFError, soundfile.SoundFileError) as error:
            path = self.path / self.names[place[1]]
            raise DataError(f"{path}: clip {sample['__key__']}: damaged ({error})") from None


def members(path: Path) -> Iterator[dict[str, Any]]:
    """The clips of a tar in their order: `__key__`, and suffix to bytes, without pictures.

    Raises:
        DataError: the tar is damaged.
    """
    from tarfile import TarError

    tars = webdataset().tariterators
    try:
        with open(path, "rb") as file:
            source = [{"url": str(path), "stream": file}]
            files = tars.tar_file_expander(source, select_files=lambda name: name.endswith(_READ))
            yield from tars.group_by_keys(files, keys=lambda name: tuple(name.split(".", 1)))
    except (TarError, OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error.args[0]).partition(" @ ")[0]
        raise DataError(f"{path}: damaged ({reason}); {_AGAIN}") from None


def key_of(id_: str) -> str:
    """The name of a clip in a tar: without dots, which would end it, slashes and non-ASCII."""
    return quote(id_, safe="").replace(".", "%2E")


def read_index(path: Path) -> dict[str, Any] | None:
    """The index of a folder, or None where there is none.

    Raises:
        DataError: it is damaged.
    """
    try:
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        [index[name] for name in _KEYS]
        if index["version"] != VERSION:
            raise DataError(f"{path}: packed by another version; run recipes/shard.py with out=")
        [(shard["name"], shard["clips"], shard["bytes"]) for shard in index["shards"]]
        return index
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path / INDEX}: damaged ({error}); {_AGAIN}") from None


def faulty(path: Path, index: dict[str, Any]) -> list[str]:
    """Names of tars that are not there or have another size than the index says."""

    def size(name: str) -> int:
        return (path / name).stat().st_size if (path / name).is_file() else -1

    return [shard["name"] for shard in index["shards"] if size(shard["name"]) != shard["bytes"]]


def webdataset() -> ModuleType:
    """The package, imported when it is needed.

    Raises:
        OptionError: it is not installed.
    """
    try:
        import webdataset

        return webdataset
    except ImportError:
        raise OptionError(
            "shards need webdataset; run: pip install webdataset (extra: shards)"
        ) from None
