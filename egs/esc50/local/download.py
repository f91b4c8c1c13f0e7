"""Stage 0: fetch ESC-50 from its repository (600 MB) unless it is there.

    python local/download.py [--into downloads/ESC-50-master]

An interrupted download goes on where the server allows it. Files of the archive appear one by one
under their own names when they are whole; those that are there already stay as they are.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from sep.data import esc50
from sep.errors import DataError
from sep.program import guarded

URL = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
WANTED = re.compile(r"[^/]+/(audio/[^/]+\.wav|meta/esc50\.csv|LICENSE)")
PROGRESS_S = 5
TIMEOUT_S = 30


def complete(folder: Path) -> bool:
    """Whether every clip that the list names is there."""
    if not esc50.table(folder).is_file():
        return False
    listed, faults = esc50.read(folder)
    return bool(listed) and not faults


def fetch(url: str, partial: Path) -> None:
    """Download `url` to `partial`, from where an earlier try ended.

    Raises:
        OSError, http.client.HTTPException: no network, or a connection that broke.
    """
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


def unpack(archive: Path, into: Path) -> int:
    """Unpack the wanted members that are not there in full size; returns how many."""
    count = 0
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            found = WANTED.fullmatch(member.filename)
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
    return count


def run(into: Path, url: str) -> None:
    """Fetch and unpack what is missing.

    Raises:
        DataError: says what to put where.
    """
    if complete(into):
        print(f"{into}: ESC-50 is there")
        return
    archive = into.with_name("ESC-50-master.zip")
    partial = archive.with_name(f"{archive.name}.part")
    into.parent.mkdir(parents=True, exist_ok=True)
    if not archive.is_file():
        print(f"fetching {url}, 600 MB", flush=True)
        try:
            fetch(url, partial)
        except (http.client.HTTPException, OSError) as error:
            raise DataError(
                f"{url}: {getattr(error, 'reason', None) or error}; run again to go on, or put the "
                f"archive at {archive}, or audio/ and meta/ of ESC-50 into {into}, "
                "or give --esc50 DIR"
            ) from None
        partial.rename(archive)
    try:
        print(f"unpacked {unpack(archive, into)} files to {into}")
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise DataError(f"{archive}: damaged; delete it and run again") from None
    if not complete(into):
        raise DataError(f"{archive}: is not the whole of ESC-50; delete it and run again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("downloads/ESC-50-master"))
    parser.add_argument("--url", default=URL, help="of a mirror of the archive")
    arguments = parser.parse_args()
    guarded(run, arguments.into, arguments.url)


if __name__ == "__main__":
    main()
