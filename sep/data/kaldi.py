"""Kaldi data directories: text tables of `id value` lines that describe one split of recordings.

    wav.scp    id  absolute path of a 16 kHz mono 16-bit WAV file
    text       id  caption
    utt2label  id  class
    utt2dur    id  seconds
    image.scp  id  absolute path of a picture (optional, ids without one are left out)
    pictures   absolute path <TAB> class: all pictures, as a class may have more than recordings
               (optional)

Ids are sorted in C order and are the same in every table but image.scp.
`python -m sep.data.kaldi DIR...` checks directories and names each fault by file and line.
"""

import argparse
import copy
import itertools
import math
import os
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import soundfile

from sep.errors import DataError

SAMPLE_RATE = 16_000
TABLES = ("wav.scp", "text", "utt2label", "utt2dur")
IMAGES = "image.scp"
PICTURES = "pictures"
MIXTURES = "mixtures.jsonl"
_DURATION_SLACK_S = 0.02


@dataclass(frozen=True)
class Entry:
    """One recording: `wav` and `image` are absolute paths, `duration_s` its length."""

    id: str
    wav: str
    text: str
    label: str
    duration_s: float
    image: str | None = None


class DataDir:
    """A data directory read into dictionaries keyed by id.

    Args:
        path: the directory.

    Attributes:
        ids: sorted ids; wav, text, label, duration_s: one value for each id;
        image: the ids that have a picture.

    Raises:
        DataError: a table is missing or a line cannot be read; `validate` lists every fault.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.wav = _table(self.path / "wav.scp")
        self.text = _table(self.path / "text")
        self.label = _table(self.path / "utt2label")
        durations = _table(self.path / "utt2dur")
        image = self.path / IMAGES
        self.image = _table(image) if image.exists() else {}
        self._further = set(_pictures(self.path / PICTURES))
        self.ids = sorted(self.wav)
        for name, table in (("text", self.text), ("utt2label", self.label), ("utt2dur", durations)):
            if table.keys() != self.wav.keys():
                odd = sorted(table.keys() ^ self.wav.keys())[0]
                raise DataError(
                    f"{self.path / name}: differs from wav.scp, first at id {odd}; "
                    f"run `python -m sep.data.kaldi {self.path}`"
                )
        try:
            self.duration_s = {id_: float(value) for id_, value in durations.items()}
        except ValueError as error:
            raise DataError(f"{self.path / 'utt2dur'}: {error}; run stage 1 again") from None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def listed(self) -> bool:
        """Whether there is a list of all pictures beside those of the clips."""
        return bool(self._further)

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """Sorted pairs of a picture's path and its class, those of `image` among them."""
        own = {(path, self.label[id_]) for id_, path in self.image.items() if id_ in self.label}
        return sorted(own | self._further)

    def fitting(self, sample_rate: int, limit_gb: float, seed: int = 0) -> Self:
        """What fits into memory as 16-bit samples: all of it, or about as many of every class.

        Args:
            sample_rate: of the samples in Hz.
            limit_gb: of memory.
            seed: draws which clips of a class; small classes are whole before large ones get more.

        Raises:
            DataError: nothing fits.
        """
        room = limit_gb * 1e9 / 2 / sample_rate  # seconds
        if sum(self.duration_s.values()) <= room:
            return self
        draw, groups = random.Random(seed), list(self.by_label().values())
        for group in groups:
            draw.shuffle(group)
        rounds = itertools.chain(*itertools.zip_longest(*groups))
        kept: list[str] = []
        for id_ in filter(None, rounds):
            room -= self.duration_s[id_]
            if room < 0:
                break
            kept.append(id_)
        if not kept:
            raise DataError(f"{self.path}: {limit_gb:g} GB hold no recording; raise bank_gb")
        part = copy.copy(self)
        part.ids = sorted(kept)
        for name in ("wav", "text", "label", "duration_s", "image"):
            table = getattr(self, name)
            setattr(part, name, {id_: table[id_] for id_ in part.ids if id_ in table})
        return part

    def by_label(self) -> dict[str, list[str]]:
        """Sorted labels, each with its sorted ids."""
        groups: dict[str, list[str]] = {label: [] for label in sorted(set(self.label.values()))}
        for id_ in self.ids:
            groups[self.label[id_]].append(id_)
        return groups


def held(
    path: str | Path, sample_rate: int, limit_gb: float, seed: int, say: Callable[[str], None]
) -> DataDir:
    """A data directory, or what memory has room for (`DataDir.fitting`), which is said."""
    whole = DataDir(path)
    part = whole.fitting(sample_rate, limit_gb, seed)
    if len(part) < len(whole):
        say(f"{path}: {len(part)} of {len(whole)} recordings are held, as bank_gb={limit_gb:g}")
    return part


def write(path: str | Path, entries: Iterable[Entry]) -> None:
    """Write a data directory, each table under a temporary name first.

    Raises:
        DataError: two entries have one id, or a value holds a line break.
    """
    path = Path(path)
    rows = sorted(entries, key=lambda e: e.id)
    for row, following in itertools.pairwise(rows):
        if row.id == following.id:
            raise DataError(f"{path}: two recordings have the id {row.id}; rename one file")
    path.mkdir(parents=True, exist_ok=True)
    columns = {
        "wav.scp": [(e.id, e.wav) for e in rows],
        "text": [(e.id, e.text) for e in rows],
        "utt2label": [(e.id, e.label) for e in rows],
        "utt2dur": [(e.id, f"{e.duration_s:.4f}") for e in rows],
        IMAGES: [(e.id, e.image) for e in rows if e.image],
    }
    for name, lines in columns.items():
        for id_, value in lines:
            if len(value.splitlines()) != 1 or len(id_.split()) != 1:
                raise DataError(f"{path / name}: id {id_!r}: empty, or with a line break")
        text = "".join(f"{id_} {value}\n" for id_, value in lines)
        temporary = path / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path / name)


def write_pictures(path: str | Path, pictures: Iterable[tuple[str, str]]) -> None:
    """Write the optional table of pictures, pairs of path and class, into a data directory."""
    path = Path(path) / PICTURES
    temporary = path.with_name(f".{PICTURES}.tmp")
    lines = sorted(f"{place}\t{label}\n" for place, label in pictures)
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, path)


def validate(path: str | Path) -> list[str]:
    """Return every fault of a data directory as `file:line: what; fix` (none: an empty list)."""
    path = Path(path)
    if not path.is_dir():
        return [f"{path}: no such directory; run stage 1"]
    faults: list[str] = []
    tables = {}
    for name in (*TABLES, IMAGES):
        if name == IMAGES and not (path / name).exists():
            tables[name] = {}
        else:
            tables[name] = _checked_table(path / name, faults)
    _check_ids(path, tables, faults)
    durations = {}
    for id_, (line, value) in tables["utt2dur"].items():
        try:
            durations[id_] = float(value)
        except ValueError:
            durations[id_] = math.nan
        if not (math.isfinite(durations[id_]) and durations[id_] > 0):
            faults.append(f"{path}/utt2dur:{line}: {value!r} is not a length; give seconds above 0")
    for id_, (line, value) in tables["wav.scp"].items():
        what = _wav_fault(value, durations.get(id_))
        if what:
            faults.append(f"{path}/wav.scp:{line}: {what}")
    for line, value in tables[IMAGES].values():
        if not Path(value).is_file():
            faults.append(f"{path}/{IMAGES}:{line}: {value} is not there; restore it or drop it")
    try:
        known = _pictures(path / PICTURES)
    except DataError as error:
        faults.append(str(error))
    else:
        for number, (place, _) in enumerate(known, 1):
            if not Path(place).is_file():
                faults.append(f"{path}/{PICTURES}:{number}: {place} is not there; restore it")
    if (path / MIXTURES).exists():
        from sep.data import mixtures

        faults += mixtures.faults(
            path / MIXTURES, {i: v for i, (_, v) in tables["utt2label"].items()}
        )
    return faults


def _pictures(path: Path) -> list[tuple[str, str]]:
    """Pairs of path and class, one a line; none where there is no such table."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run stage 1 again") from None
    pairs = []
    for number, line in enumerate(lines, 1):
        place, _, label = line.partition("\t")
        if not place.startswith("/") or not label.strip():
            raise DataError(f"{path}:{number}: no picture and class; write `/path<TAB>class`")
        pairs.append((place, label.strip()))
    return pairs


def _table(path: Path) -> dict[str, str]:
    faults: list[str] = []
    table = {id_: value for id_, (_, value) in _checked_table(path, faults).items()}
    if faults:
        raise DataError(faults[0])
    return table


def _checked_table(path: Path, faults: list[str]) -> dict[str, tuple[int, str]]:
    """Read `id value` lines into {id: (line number, value)}, adding what is wrong to `faults`."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        faults.append(f"{path}: is missing; run stage 1 again")
        return {}
    if lines[-1]:
        faults.append(f"{path}:{len(lines)}: the last line is cut off; end it with a line break")
    else:
        lines.pop()
    table: dict[str, tuple[int, str]] = {}
    previous = ""
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            faults.append(f"{path}:{number}: is not UTF-8; save the file as UTF-8")
            continue
        id_, _, value = line.partition(" ")
        value = value.strip()
        if not id_ or not value:
            what = f"{id_!r} has no value" if id_ else "has no id"
            faults.append(f"{path}:{number}: {what}; write `id value`")
            continue
        if id_ in table:
            faults.append(f"{path}:{number}: {id_} is there twice; remove one line")
            continue
        if id_ < previous:
            faults.append(f"{path}:{number}: {id_} is not in order; sort with `LC_ALL=C sort`")
        previous = id_
        table[id_] = (number, value)
    return table


def _check_ids(path: Path, tables: dict, faults: list[str]) -> None:
    """Every table has the ids of wav.scp; image.scp has some of them."""
    wanted = tables["wav.scp"]
    if not wanted:
        faults.append(f"{path}/wav.scp: lists no recording; run stage 1 again")
    for name in (*TABLES[1:], IMAGES):
        for id_, (line, _) in tables[name].items():
            if id_ not in wanted:
                faults.append(f"{path}/{name}:{line}: {id_} is not in wav.scp; remove it")
        if name != IMAGES:
            for id_, (line, _) in wanted.items():
                if id_ not in tables[name]:
                    faults.append(f"{path}/wav.scp:{line}: {id_} is not in {name}; add a line")


def _wav_fault(value: str, duration_s: float | None) -> str | None:
    if not value.startswith("/"):
        return f"{value} is not an absolute path; run stage 1 again"
    if not Path(value).is_file():
        return f"{value} is not there; restore it or run stage 1 again"
    try:
        head = soundfile.info(value)
    except (soundfile.SoundFileError, OSError):
        return f"{value} is not a readable recording; run stage 1 again"
    if head.samplerate != SAMPLE_RATE or head.channels != 1:
        return (
            f"{value} has {head.samplerate} Hz and {head.channels} channels; "
            f"make it {SAMPLE_RATE} Hz mono"
        )
    if not head.frames:
        return f"{value} has no samples; run stage 1 again"
    seconds = head.frames / head.samplerate
    if duration_s is not None and abs(seconds - duration_s) > _DURATION_SLACK_S:
        return f"{value} lasts {seconds:.3f} s, utt2dur says {duration_s:g}; run stage 1 again"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Check directories given on the command line; 1 when any has a fault."""
    parser = argparse.ArgumentParser(prog="python -m sep.data.kaldi", description="Check data.")
    parser.add_argument("directory", nargs="+", type=Path)
    bad = False
    for directory in parser.parse_args(arguments).directory:
        faults = validate(directory)
        for fault in faults:
            print(fault, file=sys.stderr)
        if not faults:
            data = DataDir(directory)
            hours = sum(data.duration_s.values()) / 3600
            labels = len(data.by_label())
            print(f"{directory}: ok, {len(data)} recordings, {labels} classes, {hours:.2f} h")
        bad = bad or bool(faults)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
