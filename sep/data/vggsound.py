"""VGGSound's list, `vggsound.csv`: YouTube id, start in s, label, train or test; no heading."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sep.data import table
from sep.errors import DataError

COLUMNS = "YouTube id, start in seconds, label, train or test"
CLIP_S = 10.0  # length of every clip
ID = r"[\w-]{11}"
_NAME = re.compile(rf"({ID})(?:_(\d+)(?:_(\d+))?)?", re.ASCII)


@dataclass(frozen=True)
class Clip:
    """A listed clip of 10 s, and its line in the list."""

    video: str
    start_s: int
    label: str
    split: str
    line: int

    @property
    def name(self) -> str:
        """`ID_000030`, as files are called."""
        return f"{self.video}_{self.start_s:06d}"


def read(path: Path) -> tuple[list[Clip], list[str]]:
    """Read the list.

    Returns:
        the clips whose line is whole, and what is wrong with the others, as `file:line: what; fix`.

    Raises:
        DataError: there is no list, or no line of it is whole.
    """
    clips: list[Clip] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for number, fields, unread in table.bare(path):
        if number == 1 and "id" in (fields or [""])[0].lower().split("_"):
            continue  # a heading, which some copies have
        fault = unread or _fault(fields)
        if not fault:
            clip = Clip(fields[0], int(fields[1]), " ".join(fields[2].split()), fields[3], number)
            if clip.name in seen:
                fault = f"{clip.name} is in line {seen[clip.name]}, too; remove one line"
        if fault:
            faults.append(f"{path}:{number}: {fault}")
            continue
        seen[clip.name] = number
        clips.append(clip)
    if not clips:
        first = faults[0] if faults else f"{path}: is empty"
        raise DataError(f"{first}; no line has {COLUMNS}; fetch vggsound.csv again")
    return clips, faults


def _fault(fields: list[str]) -> str:
    """What is wrong with the fields of a line, an empty string if nothing."""
    if len(fields) != 4:
        return (
            f"has {len(fields)} columns, not {COLUMNS}; restore the line, "
            "with quotes around a label that has a comma"
        )
    if not re.fullmatch(ID, fields[0], re.ASCII):
        return f"{fields[0]!r} is no YouTube id of 11 characters; restore the line"
    if not (fields[1].isascii() and fields[1].isdecimal()):
        return f"{fields[1]!r} is no start in whole seconds; restore the line"
    if not fields[2]:
        return "has no label; restore the line"
    if fields[3] not in ("train", "test"):
        return f"split {fields[3]!r} is neither train nor test; restore the line"
    return ""


def name_of(stem: str) -> str | None:
    """The clip that a file is of by its name without suffix; None for other files.

    `ID_000030`, `ID_30`, `ID_30_40` and, in milliseconds, `ID_30000_40000` are `ID_000030`; `ID`
    stays without a start.
    """
    found = _NAME.fullmatch(stem)
    if not found:
        return None
    video, start, end = found.groups()
    if start is None:
        return video
    second = int(start)
    if end is not None and int(end) - second >= 1000:
        second //= 1000
    return f"{video}_{second:06d}"


class Names:
    """Finds the listed clip that a file is of, also where only one of the two names a start.

    Args:
        names: of the listed clips, with a start or without.
    """

    def __init__(self, names: Iterable[str]):
        self.names = set(names)
        videos: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            videos[name[:11]].append(name)
        self._only = {video: found[0] for video, found in videos.items() if len(found) == 1}

    def __call__(self, stem: str) -> str | None:
        """The name of the clip, None for a file of none of them."""
        name = name_of(stem)
        if name is None or name in self.names:
            return name
        if len(name) == 11:
            return self._only.get(name)
        return name[:11] if name[:11] in self.names else None
