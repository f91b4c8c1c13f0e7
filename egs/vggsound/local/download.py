"""Stage 0: fetch the lists of VGGSound and VGGSound-clean+; the clips have to be brought.

python local/download.py [--into downloads] [LIST...]
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
from pathlib import Path

from sep.data import protocol, vggsound
from sep.data.fetch import Source, lists
from sep.program import guarded

OMNISEP = (
    "https://raw.githubusercontent.com/Exgc/OmniSep/"
    "f99a651d43de99c3ee7b7649ed6456530268eb34/omnisep/data/vggsound"
)
WHERE = {
    "vggsound.csv": ("https://www.robots.ox.ac.uk/~vgg/data/vggsound/vggsound.csv", "--csv"),
    "test-good.csv": (f"{OMNISEP}/test-good.csv", "--clean"),
    "test-no-music.csv": (f"{OMNISEP}/test-no-music.csv", "--noise"),
}


def check(path: Path) -> None:
    """Read a list; raises DataError where it is something else."""
    if path.name == "vggsound.csv":
        vggsound.read(path)
    else:
        protocol.read(path, vggsound.name_of)


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
