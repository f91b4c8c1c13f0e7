"""Stage 0: fetch MUSDB18-HQ (23 GB) or MUSDB18 (5 GB) from Zenodo unless it is there.

    python local/download.py [--edition stems] [--into downloads/musdb18]

An interrupted download goes on where the server allows it. Files of the archive appear one by one
under their own names when they are whole; those that are there already stay as they are.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import re
from collections import Counter
from pathlib import Path

from sep.data import fetch, musdb
from sep.errors import DataError
from sep.program import guarded

URLS = {
    "hq": "https://zenodo.org/records/3338373/files/musdb18hq.zip",
    "stems": "https://zenodo.org/records/1117372/files/musdb18.zip",
}
NAME = r"(?!\.)[^/]+"
WANTED = re.compile(
    rf"(?:{NAME}/)?((?:train|test)/(?:{NAME}\.stem\.mp4|{NAME}/(?:{'|'.join(musdb.TRACKS)})\.wav))"
)


def complete(folder: Path) -> bool:
    """Whether all songs are there."""
    if not all((folder / subset).is_dir() for subset in musdb.SONGS):
        return False
    songs, faults = musdb.read(folder)
    count = Counter("test" if song.split == "test" else "train" for song in songs)
    return count == musdb.SONGS and not faults


def run(into: Path, url: str) -> None:
    """Fetch and unpack what is missing.

    Raises:
        DataError: says what to put where.
    """
    if complete(into):
        print(f"{into}: MUSDB18 is there")
        return
    archive = into.parent / url.rpartition("/")[2]
    fetch.download(
        url,
        archive,
        f"put the archive at {archive}, or train/ and test/ of MUSDB18 or MUSDB18-HQ into {into}, "
        "or give --musdb DIR",
    )
    print(f"unpacked {fetch.unpack(archive, into, WANTED)} files to {into}")
    if not complete(into):
        raise DataError(f"{archive}: is not the whole of MUSDB18; delete it and run again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("downloads/musdb18"))
    parser.add_argument("--edition", choices=URLS, default="hq")
    parser.add_argument("--url", help="of a mirror of the archive")
    arguments = parser.parse_args()
    guarded(run, arguments.into, arguments.url or URLS[arguments.edition])


if __name__ == "__main__":
    main()
