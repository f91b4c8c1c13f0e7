"""MUSIC's lists, such as `MUSIC21_solo_videos.json`: {"videos": {instrument: [YouTube ids]}}."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from sep.data.vggsound import ID
from sep.errors import DataError

_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


@dataclass(frozen=True)
class Video:
    """A listed solo: its id, its instrument in words, and where it is listed."""

    name: str
    label: str
    list: Path
    line: int


def label_of(instrument: str) -> str:
    """`acoustic_guitar` as words."""
    return " ".join(instrument.replace("_", " ").split())


def read(path: Path) -> tuple[list[Video], list[str]]:
    """Read a list of solos.

    Returns:
        the videos, and what is wrong with others, as `file:line: what; fix`.

    Raises:
        DataError: no such file, not JSON (half of a download is not), or without any video.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        whole = json.loads(text)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the list") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8; fetch it again") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: is not JSON ({error.msg}); fetch it again"
        ) from None
    listed = whole.get("videos") if isinstance(whole, dict) else None
    if not isinstance(listed, dict):
        raise DataError(f'{path}:1: has no "videos" with instruments; fetch the list again')
    lines = _lines(text)
    videos: dict[str, Video] = {}
    faults: list[str] = []
    for instrument, names in listed.items():
        at = f"{path}:{lines[instrument][0]}"
        if not label_of(instrument) or not isinstance(names, list):
            faults.append(f"{at}: {instrument!r} is no instrument with a list of ids; restore it")
            continue
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(ID, name, re.ASCII):
                at = f"{path}:{(lines[name] if isinstance(name, str) else lines[instrument])[0]}"
                faults.append(f"{at}: {name!r} is no YouTube id of 11 characters; remove it")
                continue
            line = lines[name].pop(0) if len(lines[name]) > 1 else lines[name][0]
            if name in videos:
                other = videos[name]
                faults.append(
                    f"{path}:{line}: {name} is in line {other.line}, too, as {other.label}; "
                    "remove one line"
                )
                continue
            videos[name] = Video(name, label_of(instrument), path, line)
    if not videos:
        raise DataError(f"{path}: lists no video; fetch it again")
    return list(videos.values()), faults


def _lines(text: str) -> dict[str, list[int]]:
    """The lines on which each string of a JSON text stands."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(text.split("\n"), 1):
        for match in _STRING.finditer(line):
            found[json.loads(match[0])].append(number)
    return found
