"""Stage 0: fetch the lists of MUSIC and of its test; the videos have to be brought.

python local/download.py [--into downloads] [LIST...]
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
from pathlib import Path

from sep.data import music, protocol
from sep.data.fetch import Source, lists
from sep.program import guarded

RAW = "https://raw.githubusercontent.com"
MUSIC = f"{RAW}/roudimit/MUSIC_dataset/4b9dabe65f145eaff2adcbe983e638c97ad0451a"
CLIPSEP = f"{RAW}/sony/CLIPSep/cf390b1084333e497463a6a58d04994c6f3d05c6/clipsep"
OMNISEP = f"{RAW}/Exgc/OmniSep/f99a651d43de99c3ee7b7649ed6456530268eb34/omnisep"
WHERE = {
    "MUSIC21_solo_videos.json": (f"{MUSIC}/MUSIC21_solo_videos.json", "--list"),
    "test.csv": (f"{CLIPSEP}/data/MUSIC/solo/test.csv", "--test"),
    "test-good-no-music.csv": (f"{OMNISEP}/data/vggsound/test-good-no-music.csv", "--noise"),
}


def check(path: Path) -> None:
    """Read a list; raises DataError where it is something else."""
    if path.suffix == ".json":
        music.read(path)
    else:
        protocol.read(path, str)


def run(into: Path, names: list[str]) -> None:
    """Fetch what is missing of the lists `names`."""
    lists([Source(into.resolve() / name, *WHERE[name]) for name in names], check)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("downloads"))
    parser.add_argument("names", nargs="*", default=list(WHERE), help="of lists; default: all")
    arguments = parser.parse_args()
    guarded(run, arguments.into, arguments.names)


if __name__ == "__main__":
    main()
