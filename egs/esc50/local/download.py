"""Stage 0: fetch ESC-50 from its repository (600 MB) unless it is there.

    python local/download.py [--into downloads/ESC-50-master]

An interrupted download goes on where the server allows it. Files of the archive appear one by one
under their own names when they are whole; those that are there already stay as they are.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import re
from pathlib import Path

from sep.data import esc50, fetch
from sep.errors import DataError
from sep.program import guarded

URL = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
WANTED = re.compile(r"[^/]+/(audio/[^/]+\.wav|meta/esc50\.csv|LICENSE)")


def complete(folder: Path) -> bool:
    """Whether every clip that the list names is there."""
    if not esc50.table(folder).is_file():
        return False
    listed, faults = esc50.read(folder)
    return bool(listed) and not faults


def run(into: Path, url: str) -> None:
    """Fetch and unpack what is missing.

    Raises:
        DataError: says what to put where.
    """
    if complete(into):
        print(f"{into}: ESC-50 is there")
        return
    archive = into.with_name("ESC-50-master.zip")
    fetch.download(
        url,
        archive,
        f"put the archive at {archive}, or audio/ and meta/ of ESC-50 into {into}, "
        "or give --esc50 DIR",
    )
    print(f"unpacked {fetch.unpack(archive, into, WANTED)} files to {into}")
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
