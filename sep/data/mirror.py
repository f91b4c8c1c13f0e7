"""Where the recordings of a published list are: a folder in one of the usual layouts, or its tars.

    ID.mp4   instrument/ID.mp4   any/folders/ID_000030.mp4      videos
    ID.wav   audio/instrument/ID.wav   k/L/ID.flac              sounds
    frames/instrument/ID.mp4/000001.jpg   frames/ID/000001.jpg  frames
    part_00.tar   part_01.tar.gz   part_02.tgz                  videos or sounds in any folders

A clip may be there in several of these forms: it is heard from the sound file before the video, and
seen in the frames before the video.
"""

import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from sep.errors import DataError

SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".m4v")
PICTURES = (".jpg", ".jpeg", ".png")
TARS = (".tar", ".tar.gz", ".tgz")
UNFINISHED = (".part", ".ytdl", ".crdownload", ".tmp")


@dataclass(frozen=True)
class Place:
    """The files of a clip: its sound, its video, its folder of frames; None where there is none."""

    sound: Path | None = None
    video: Path | None = None
    frames: Path | None = None


@dataclass
class Mirror:
    """What a folder holds: places by name of clip, tars, and faults as `file: what; fix`."""

    places: dict[str, Place] = field(default_factory=dict)
    tars: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def look(folder: Path, name_of: Callable[[str], str | None]) -> Mirror:
    """Look through a folder, or take a single tar.

    Args:
        folder: with the recordings.
        name_of: file name without suffix to the name of the clip, None for others.

    Raises:
        DataError: neither a folder nor a tar.
    """
    if folder.is_file() and folder.name.endswith(TARS):
        return Mirror(tars=[folder])
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; put the videos there or name their folder")
    mirror = Mirror()
    for root, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        here = Path(root)
        stem = here.stem if here.suffix.lower() in VIDEOS else here.name
        name = name_of(stem) if here != folder else None
        if name is not None and (not files or any(f.lower().endswith(PICTURES) for f in files)):
            _take(mirror, name, "frames", here)
            continue
        for file in sorted(files):
            _file(mirror, here / file, name_of)
    return mirror


def _file(mirror: Mirror, path: Path, name_of: Callable[[str], str | None]) -> None:
    """Note a file that is a clip's, or a tar."""
    suffix = path.suffix.lower()
    if path.name.endswith(TARS):
        mirror.tars.append(path)
    elif suffix in SOUNDS + VIDEOS:
        name = name_of(path.stem)
        if name is not None:
            _take(mirror, name, "sound" if suffix in SOUNDS else "video", path)
    elif suffix in UNFINISHED and name_of(path.name.split(".")[0]) is not None:
        mirror.faults.append(f"{path}: is an unfinished download; fetch it again")


def _take(mirror: Mirror, name: str, kind: str, path: Path) -> None:
    """Note where one form of a clip is; the first one found counts."""
    place = mirror.places.get(name, Place())
    first = getattr(place, kind)
    if first is None:
        mirror.places[name] = replace(place, **{kind: path})
    else:
        mirror.faults.append(f"{path}: {name} is {first}, too, which is used; remove one")


def unpack(
    tar: Path,
    wanted: set[str],
    name_of: Callable[[str], str | None],
    into: Path,
    faults: list[str],
) -> Iterator[tuple[str, Path]]:
    """Write the wanted clips of a tar to `into`, one by one, for the caller to use and to delete.

    What is found is taken out of `wanted`; when nothing is left, the rest of the tar is not read.
    A tar that is damaged or ends early adds to `faults`.

    Yields:
        the name of a clip and its file.
    """
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                if not wanted:
                    return
                file = PurePosixPath(member.name)
                name = name_of(file.stem)
                suffix = file.suffix.lower()
                if name not in wanted or not member.isfile() or suffix not in SOUNDS + VIDEOS:
                    continue
                place = into / f"{name}{suffix}"
                with archive.extractfile(member) as source, place.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                wanted.discard(name)
                yield name, place
    except (tarfile.TarError, EOFError, zlib.error) as error:
        faults.append(f"{tar}: is damaged or cut off ({error}); fetch it again")
    except OSError as error:
        if error.errno is not None:  # of the system, such as a full disk
            raise
        faults.append(f"{tar}: is damaged or cut off ({error}); fetch it again")
