"""AudioCaps as it is published: `train.csv`, `val.csv`, `test.csv`, and a folder of recordings.

A line of a table is one caption of a clip: audiocap_id, youtube_id, start_time, caption. Recordings
are found at any depth, by the names YOUTUBE_ID, YOUTUBE_ID_START (with or without a Y in front, as
AudioSet's tools write it, and with _END behind) or AUDIOCAP_ID, with any suffix of a recording.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sep import audio, container
from sep.data.table import lines
from sep.errors import DataError

COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
TABLES = {"train": "train.csv", "valid": "val.csv", "test": "test.csv"}
PAIRS = ("caption", "labels", "src_wav", "noise_wav")  # of AudioSep's audiocaps_eval.csv
CLIP_S = 10
MISSING = "put the three tables of github.com/cdjkim/audiocaps there"


@dataclass
class Clip:
    """A clip with its captions; `line` is its first one in the table of `split`."""

    id: str  # as its file is called in AudioSep's lists: Y and the YouTube id
    split: str
    line: int
    start_s: float
    path: Path | None = None
    captions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """A line of AudioSep's list: the mixture of two clips, what is asked for, and its classes."""

    target: str
    interferer: str
    caption: str
    labels: str
    line: int


def recordings(folder: Path) -> dict[str, Path]:
    """Recordings below a folder by their name without suffix.

    Raises:
        DataError: not a folder, or one without recordings.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: not there; put the clips there as YOUTUBE_ID.wav, or give --audio DIR"
        )
    suffixes = {*audio.SUFFIXES, *container.SUFFIXES}
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes)
    found = {path.stem: path for path in paths if path.is_file() and path.name[0] != "."}
    if not found:
        raise DataError(f"{folder}: holds no recordings ({', '.join(sorted(suffixes))})")
    return found


def read(tables: Path, found: dict[str, Path]) -> tuple[list[Clip], list[str]]:
    """Read the three tables.

    Args:
        tables: their folder.
        found: recordings by name.

    Returns:
        the clips, `path` None where there is no recording, and what is wrong, that included, as
        `file:line: what; fix`. A clip in two tables belongs to test before valid before train.

    Raises:
        DataError: none of the tables is there, or that of train or test lacks a column.
    """
    there = {split: tables / name for split, name in TABLES.items() if (tables / name).is_file()}
    if not there:
        raise DataError(f"{tables}: has no train.csv, val.csv or test.csv; {MISSING}")
    faults = [f"{tables / n}: not there; {MISSING}" for s, n in TABLES.items() if s not in there]
    clips: dict[str, Clip] = {}
    seen: dict[str, str] = {}
    for split in ("test", "valid", "train"):
        if split not in there:
            continue
        path = there[split]
        try:
            rows = list(lines(path, COLUMNS, MISSING))
        except DataError as error:  # without a column, the others do all the same
            if split != "valid":
                raise
            faults.append(str(error))
            continue
        for number, row, fault in rows:
            fault = fault or _fault(row, split, number, clips, seen)
            if fault:
                faults.append(f"{path}:{number}: {fault}")
                continue
            seen[row["audiocap_id"]] = f"{path.name}:{number}"
            id_ = f"Y{row['youtube_id']}"
            if id_ not in clips:
                clips[id_] = Clip(id_, split, number, float(row["start_time"]))
            clip = clips[id_]
            clip.path = clip.path or _recording(row, found)
            clip.captions.append(" ".join(row["caption"].split()))
    for clip in clips.values():
        if clip.path is None:
            faults.append(
                f"{there[clip.split]}:{clip.line}: {clip.id[1:]} has no recording; fetch it or "
                "remove the line"
            )
    return list(clips.values()), faults


def read_pairs(path: Path, known: Iterable[str]) -> tuple[list[Pair], list[str]]:
    """Read AudioSep's list of mixtures.

    Args:
        known: ids of the clips that can be used.

    Returns:
        the pairs of which both clips are known, and what is wrong with the others.

    Raises:
        DataError: there is no list, or it lacks a column.
    """
    known, pairs, faults = set(known), [], []
    for number, row, fault in lines(path, PAIRS, "give --pairs none to draw mixtures"):
        ids = [] if fault else [Path(row[name]).stem for name in ("src_wav", "noise_wav")]
        missing = [id_ for id_ in ids if id_ not in known]
        if missing:
            fault = f"{missing[0]} is no usable clip of test.csv"
        if fault:
            faults.append(f"{path}:{number}: {fault}")
            continue
        pairs.append(Pair(*ids, " ".join(row["caption"].split()), row["labels"], number))
    return pairs, faults


def _fault(
    row: dict[str, str], split: str, number: int, clips: dict[str, Clip], seen: dict[str, str]
) -> str:
    """What is wrong with a line, an empty string if nothing."""
    youtube, own = row["youtube_id"], row["audiocap_id"]
    if len(youtube.split()) != 1 or "/" in youtube:
        return f"{youtube!r} is no YouTube id; restore the line"
    if not row["start_time"].replace(".", "", 1).isdecimal():
        return f"start_time {row['start_time']} is no time in seconds; restore the line"
    if own in seen:
        return f"audiocap_id {own} is in {seen[own]}, too; remove one line"
    clip = clips.get(f"Y{youtube}")
    if clip and clip.split != split:
        return f"{youtube} is in {TABLES[clip.split]}:{clip.line}, too; remove one line"
    if clip and clip.start_s != float(row["start_time"]):
        return f"{youtube} starts at another time in line {clip.line}; restore the line"
    return ""


def _recording(row: dict[str, str], found: dict[str, Path]) -> Path | None:
    """The recording of a line by the names that are in use."""
    id_, start = row["youtube_id"], row["start_time"]
    names = [f"{y}{id_}" for y in ("", "Y")]
    times = ["", f"_{start}", f"_{start}_{float(start) + CLIP_S:g}"]
    names = [f"{name}{time}" for name in names for time in times]
    return next((found[n] for n in (*names, row["audiocap_id"]) if n in found), None)
