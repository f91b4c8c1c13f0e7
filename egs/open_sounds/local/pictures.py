"""Stage 0: fetch the packages that hold pictures; prepare.py then draws them.

    python local/pictures.py [--into downloads]

`pictures.tsv` lists class, split, package and the path in the package of each; a picture of the
split "test" is never trained on.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import csv
from pathlib import Path

import download  # of mini_sounds
from containers import ContainerError, read_image
from tables import Package

from sep.program import guarded

HERE = Path(__file__).resolve().parent
SIZES_MB = {
    "fonts-noto-color-emoji": 9.9,
    "gcompris-qt-data": 44.2,
    "openclipart-png": 130.9,
    "ruby-gemojione": 4.6,
    "sweethome3d-furniture": 119.8,
    "tuxpaint-stamps-default": 160.9,
}


def rows() -> list[dict[str, str]]:
    """The table of pictures."""
    with open(HERE / "pictures.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def packages() -> list[Package]:
    """The packages of the table, with the files that are read from each."""
    files = {name: set() for name in SIZES_MB}
    for row in rows():
        files[row["package"]].add(row["path"].split("!")[0].split("#")[0])
    return [Package(n, SIZES_MB[n], "", tuple(sorted(wanted))) for n, wanted in files.items()]


def draw(unpacked: Path, images: Path) -> dict[str, dict[str, list[str]]]:
    """Convert every picture that is there to PNG: {split: {class: paths}}."""
    found: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for k, row in enumerate(rows()):
        folder, path = unpacked / row["package"], images / f"{k:03d}.png"
        try:
            read_image(folder, row["path"]).save(path)
        except (ContainerError, OSError) as error:
            print(f"{row['package']}: {row['path'].split('/')[-1]}: {error}; left out")
            continue
        found[row["split"]].setdefault(row["class"], []).append(str(path))
    for split, of_split in found.items():
        count = sum(map(len, of_split.values()))
        print(f"pictures to {split} on: {count} of {len(of_split)} classes")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("downloads"))
    guarded(download.run, parser.parse_args().into, packages())


if __name__ == "__main__":
    main()
