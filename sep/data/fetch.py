"""Files from the web: downloads that go on where they broke, members that appear whole."""

import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sep.errors import DataError

PROGRESS_S = 5
TIMEOUT_S = 30


def download(url: str, place: Path, otherwise: str) -> None:
    """Fetch a file to `place`, from where an earlier try ended; nothing is done if it is there.

    Args:
        url: what to fetch.
        place: appears when it is whole; until then `<place>.part` grows.
        otherwise: what to put where without a network, for the error.

    Raises:
        DataError: no network, or a connection that broke.
    """
    if place.is_file():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.part")
    try:
        _fetch(url, partial)
    except (http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url}: {reason}; run again to go on, or {otherwise}") from None
    partial.rename(place)


@dataclass(frozen=True)
class Source:
    """A list: where it goes, where it comes from, and the option that names another file."""

    place: Path
    url: str
    option: str


def lists(sources: list[Source], check: Callable[[Path], object]) -> None:
    """Fetch the lists that are not there; every one that cannot be had is named with what to do.

    Args:
        sources: the lists.
        check: reads a fetched list and raises DataError where it is something else.

    Raises:
        DataError: some are missing.
    """
    missing = 0
    for source in sources:
        if source.place.is_file():
            print(f"{source.place}: is there")
            continue
        otherwise = f"put that file at {source.place}, or give {source.option} FILE"
        try:
            download(source.url, source.place, otherwise)
        except DataError as error:
            missing += 1
            print(error)
            continue
        try:
            check(source.place)
        except DataError as error:
            source.place.unlink()
            missing += 1
            print(f"{source.url}: {error}; {otherwise}")
    if missing:
        raise DataError(
            f"{missing} of {len(sources)} lists could not be fetched; the lines above say what to "
            "put where; then run again"
        )


def unpack(archive: Path, into: Path, wanted: re.Pattern) -> int:
    """Unpack the wanted members that are not there in full size; returns how many.

    Args:
        archive: a zip file.
        into: folder; a member goes to the place in it that the first group of `wanted` gives.
        wanted: what the whole name of a member looks like.

    Raises:
        DataError: the archive is damaged.
    """
    count = 0
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                found = wanted.fullmatch(member.filename)
                place = into / found[1] if found else None
                if not place or (place.is_file() and place.stat().st_size == member.file_size):
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                temporary = place.with_name(f".{place.name}.tmp")
                try:
                    with members.open(member) as source, temporary.open("wb") as copy:
                        shutil.copyfileobj(source, copy)
                    os.replace(temporary, place)
                finally:
                    temporary.unlink(missing_ok=True)
                count += 1
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise DataError(f"{archive}: damaged; delete it and run again") from None
    return count


def _fetch(url: str, partial: Path) -> None:
    """Download `url` to `partial`, from where an earlier try ended."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.unlink()  # not a beginning of what is there now
        raise
    with answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        have = have if resumed else 0
        size = f", {answer.length / 1e6:.0f} MB" if answer.length else ""
        print(f"fetching {url}{size}", flush=True)
        spoke = time.monotonic()
        with partial.open("ab" if resumed else "wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
                have += len(block)
                if time.monotonic() - spoke > PROGRESS_S:
                    spoke = time.monotonic()
                    print(f"fetched {have / 1e6:.0f} MB", flush=True)
        left = answer.length  # of what was announced; None where nothing was
    if left:
        raise ConnectionError(f"the connection ended {left} bytes early")
