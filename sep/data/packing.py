"""Packing a data directory into shards (`sep.data.shards`), each written whole or not at all."""

import hashlib
import io
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch

from sep.data.bank import QueryBank
from sep.data.kaldi import SAMPLE_RATE, DataDir
from sep.data.shards import (
    FORMATS,
    INDEX,
    VERSION,
    faulty,
    key_of,
    members,
    read_index,
    webdataset,
)
from sep.errors import DataError, OptionError
from sep.filenames import temporary_of

PLAN = "plan.json"  # which data and settings the tars of a folder are of


@dataclass(frozen=True)
class Packing:
    """How clips are packed.

    Attributes:
        clips: of a tar.
        audio: `flac`, or `wav`: larger, and faster to read.
        others: recordings of a clip's label whose embeddings serve as its audio queries.
        images: whether the pictures are packed too; training reads their embeddings alone.
        seed: of the order of the clips, and of the choice of others.
    """

    clips: int = 1000
    audio: str = "flac"
    others: int = 4
    images: bool = False
    seed: int = 0

    def __post_init__(self):
        if self.audio not in FORMATS:
            raise OptionError(f"audio '{self.audio}' is unknown; use {' or '.join(FORMATS)}")
        if self.clips < 1 or self.others < 1:
            raise OptionError("clips and others are numbers of 1 or more")


def pack(
    data: DataDir,
    queries: QueryBank,
    path: str | Path,
    options: Packing,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write the shards of a data directory; returns their index.

    Clips are put in random order, so that a tar holds all kinds. A tar appears under its name when
    it is whole, and the index comes last: started again, an interrupted run goes on with the tars
    that lack. A recording that cannot be read is said, and left out.

    Args:
        data: the data directory.
        queries: its embeddings.
        path: the folder; made, or of an earlier run with the same data and options.
        options: how.
        jobs: tars written at once.
        say: takes a line of progress.

    Raises:
        DataError: the folder holds something else, the queries are of other data, or no recording
            can be read.
        OptionError: webdataset is not installed, or there are no jobs.
    """
    webdataset()
    if jobs < 1:
        raise OptionError("jobs is a number of 1 or more")
    path = Path(path)
    if queries.ids != data.ids:
        raise DataError(f"the queries do not match {data.path}; run stage 3 again")
    path.mkdir(parents=True, exist_ok=True)
    _claim(path, data, queries, options)
    for left in path.glob(".*.tmp"):  # of a run that was killed
        left.unlink()
    order = list(data.ids)
    random.Random(options.seed).shuffle(order)
    parts = [order[k : k + options.clips] for k in range(0, len(order), options.clips)]
    names = [f"{Path(data.path).name}-{k:05d}.tar" for k in range(len(parts))]
    index = read_index(path)
    present = {name for name in names if (path / name).is_file()}
    if index is not None:
        present -= set(faulty(path, index))
        if len(present) == len(names):
            say(f"{path}: packed before, {len(names)} tars")
            return index
        (path / INDEX).unlink()
    label_of = data.by_label()

    def entry(name: str, part: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Write a tar where it lacks; what the index says of it, and the ids that were left out."""
        if name not in present:
            _write(path / name, _samples(part, data, queries, label_of, options, say))
        kept = {sample["__key__"] for sample in members(path / name)}
        left_out = [id_ for id_ in part if key_of(id_) not in kept]
        size = (path / name).stat().st_size
        say(f"{path / name}: {len(kept)} clips, {size / 1e6:.1f} MB")
        return {"name": name, "clips": len(kept), "bytes": size}, left_out

    with ThreadPoolExecutor(jobs) as pool:
        try:
            done = list(pool.map(entry, names, parts))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    shards = [shard for shard, _ in done if shard["clips"]]
    if not shards:
        raise DataError(f"{data.path}: no recording can be read; run stage 1 again")
    index = {
        "version": VERSION,
        "labels": sorted(label_of),
        "sample_rate": SAMPLE_RATE,
        "encoder": queries.encoder,
        "dim": queries.dim,
        "wordings": queries.text.shape[1],
        "others": options.others,
        "left_out": [id_ for _, ids in done for id_ in ids],
        "shards": shards,
    }
    _replace(path / INDEX, json.dumps(index, ensure_ascii=False, indent=1).encode())
    return index


def _claim(path: Path, data: DataDir, queries: QueryBank, options: Packing) -> None:
    """Note whose tars the folder holds.

    Raises:
        DataError: it holds others.
    """
    rows = [(i, data.wav[i], data.text[i], data.label[i], data.image.get(i)) for i in data.ids]
    digest = hashlib.sha256(json.dumps(rows).encode())
    for values in (queries.text, queries.audio, queries.image):
        digest.update(values.numpy())
    plan = {
        "version": VERSION,
        **asdict(options),
        "encoder": queries.encoder,
        "data": digest.hexdigest(),
    }
    text = json.dumps(plan, indent=1).encode()
    found = path / PLAN
    if found.exists() and found.read_bytes() == text:
        return
    if found.exists() or any(path.glob("*.tar")):
        raise DataError(f"{path}: holds tars of other data or settings; empty it or set out=")
    _replace(found, text)


def _write(path: Path, samples: Iterator[dict[str, Any]]) -> None:
    temporary = temporary_of(path)
    try:
        with open(temporary, "wb") as file:
            writer = webdataset().TarWriter(file, encoder=False, mtime=0, format="PAX_FORMAT")
            with writer:
                for sample in samples:
                    writer.write(sample)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _samples(
    ids: Sequence[str],
    data: DataDir,
    queries: QueryBank,
    label_of: dict[str, list[str]],
    options: Packing,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """What a tar takes of each recording; says which cannot be read."""
    for id_ in ids:
        try:
            audio, frames = _encoded(data.wav[id_], options.audio)
            picture = _picture(data.image[id_]) if options.images and id_ in data.image else {}
        except DataError as error:
            say(f"{error}; {id_} is left out")
            continue
        label = data.label[id_]
        about = {"id": id_, "label": label, "text": data.text[id_], "frames": frames}
        yield {
            "__key__": key_of(id_),
            options.audio: audio,
            "json": json.dumps(about, ensure_ascii=False).encode(),
            "query.f16": _rows(id_, queries, label_of[label], options),
            **picture,
        }


def _encoded(path: str, audio: str) -> tuple[bytes, int]:
    """A recording as the bytes of a file, and its samples."""
    try:
        wave, rate = soundfile.read(path, dtype="int16", always_2d=True)
    except (OSError, soundfile.SoundFileError):
        raise DataError(f"{path}: not a readable recording") from None
    if rate != SAMPLE_RATE or wave.shape[1] != 1 or not len(wave):
        raise DataError(f"{path}: empty, or not mono at {SAMPLE_RATE} Hz")
    file = io.BytesIO()
    soundfile.write(file, wave, rate, subtype="PCM_16", format=audio.upper())
    return file.getvalue(), len(wave)


def _picture(path: str) -> dict[str, bytes]:
    try:
        return {Path(path).suffix.lower().lstrip("."): Path(path).read_bytes()}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _rows(id_: str, queries: QueryBank, same: Sequence[str], options: Packing) -> bytes:
    """The embeddings of a clip, float16; `same` are the ids of its label."""
    draw = random.Random(f"{options.seed} {id_}")
    alike = [other for other in same if other != id_] or [id_]
    others = draw.sample(alike, min(options.others, len(alike)))
    others += draw.choices(alike, k=options.others - len(others))
    row = queries.row[id_]
    parts = [queries.text[row], queries.audio[[queries.row[other] for other in others]]]
    if queries.has_image[row]:
        parts.append(queries.image[row : row + 1])
    return torch.cat(parts).numpy().astype("<f2").tobytes()


def _replace(path: Path, content: bytes) -> None:
    temporary = temporary_of(path)
    temporary.write_bytes(content)
    os.replace(temporary, path)
