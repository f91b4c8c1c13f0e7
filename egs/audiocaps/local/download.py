"""Stage 0: fetch AudioCaps' tables and AudioSep's list of test mixtures unless they are there.

    python local/download.py [--into downloads]

The recordings come from YouTube and cannot be fetched here.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
from pathlib import Path

from sep.data import audiocaps, fetch
from sep.errors import DataError
from sep.program import guarded

TABLES = "https://raw.githubusercontent.com/cdjkim/audiocaps/master/dataset"
PAIRS = (
    "https://raw.githubusercontent.com/Audio-AGI/AudioSep/main/evaluation/metadata"
    "/audiocaps_eval.csv"
)


def run(into: Path, tables: str, pairs: str) -> None:
    """Fetch what is missing.

    Raises:
        DataError: says what to put where.
    """
    for name in audiocaps.TABLES.values():
        otherwise = f"put the file at {into / name}, or give --tables DIR"
        fetch.download(f"{tables}/{name}", into / name, otherwise)
    try:
        place = into / "audiocaps_eval.csv"
        fetch.download(pairs, place, f"put the file at {place} for AudioSep's own mixtures")
    except DataError as error:
        print(f"{error}; without it the mixtures are drawn anew")
    print(f"{into}: the tables are there; put the recordings into {into}/audio or give --audio DIR")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("downloads"))
    parser.add_argument("--url", default=TABLES, help="of a mirror of the tables")
    parser.add_argument("--pairs-url", default=PAIRS, help="of a mirror of AudioSep's list")
    arguments = parser.parse_args()
    guarded(run, arguments.into, arguments.url, arguments.pairs_url)


if __name__ == "__main__":
    main()
