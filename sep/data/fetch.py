"""Lists of published data sets, fetched where the network allows."""

import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sep.errors import DataError

TIMEOUT_S = 30


@dataclass(frozen=True)
class Source:
    """A list: where it goes, where it comes from, and the option that names another file."""

    place: Path
    url: str
    option: str


def fetch(url: str, place: Path) -> None:
    """Download a file; it appears under its name when it is whole.

    Raises:
        OSError, http.client.HTTPException: no network, or a connection that broke.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.tmp")
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
            if answer.length:
                raise ConnectionError(f"the connection ended {answer.length} bytes early")
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


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
        try:
            fetch(source.url, source.place)
            check(source.place)
            print(f"{source.place}: fetched from {source.url}")
        except (http.client.HTTPException, OSError, DataError) as error:
            if isinstance(error, DataError):
                source.place.unlink()
            missing += 1
            print(
                f"{source.url}: {getattr(error, 'reason', None) or error}; "
                f"put that file at {source.place}, or give {source.option} FILE"
            )
    if missing:
        raise DataError(
            f"{missing} of {len(sources)} lists could not be fetched; the lines above say what to "
            "put where; then run again"
        )
