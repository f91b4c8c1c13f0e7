"""Names of files: of those that are being written, and of those whose names were too long."""

import os
import socket
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

LONGEST = 255  # bytes of a file's name, on most file systems


def temporary_of(path: Path, process: int | None = None) -> Path:
    """Where a file of a process (by default this one) lies until it is complete.

    It is beside it, by a name that is never too long and says whose it is.
    """
    whose = f"{_checksum(socket.gethostname())}-{process or os.getpid()}"
    return path.with_name(f".{path.name[:40]}.{_checksum(path.name)}.{whose}.tmp")


def unfinished(paths: Iterable[Path]) -> Iterator[Path]:
    """The temporary files of `paths`, of any process, that are there."""
    names = defaultdict(set)
    for path in paths:
        names[path.parent].add(temporary_of(path).name.rsplit(".", 2)[0])
    for folder, stems in names.items():
        with suppress(OSError):
            for name in os.listdir(folder):
                if name.endswith(".tmp") and name.rsplit(".", 2)[0] in stems:
                    yield folder / name


def clear_dead(paths: Iterable[Path]) -> None:
    """Remove what dead processes of this machine, killed by -9 say, left unfinished of `paths`."""
    for path in unfinished(paths):
        machine, _, process = path.name.split(".")[-2].partition("-")
        if machine == _checksum(socket.gethostname()) and _dead(process):
            with suppress(OSError):
                path.unlink()


def shortened(name: str, *ends: str) -> str:
    """Start of a file's name, cut where it were too long with an end, and then told apart."""
    room = LONGEST - max(len(os.fsencode(end)) for end in ends)
    if len(os.fsencode(name)) <= room:
        return name
    mark = f"-{_checksum(name)}"
    while len(os.fsencode(name + mark)) > room:
        name = name[:-1]
    return name + mark


def _checksum(name: str) -> str:
    return f"{zlib.crc32(os.fsencode(name)):08x}"


def _dead(process: str) -> bool:
    """Whether a process of this machine, by its number, certainly lives no more."""
    if os.name != "posix" or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)  # which only asks, on POSIX
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, or no number of a process
        pass
    return False
