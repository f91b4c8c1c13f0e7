"""Stage 0: fetch the Debian packages that hold the recipe's pictures and further recordings.

    python local/packages.py [--into downloads]

`pictures.tsv` lists class, split, package and the path in the package of each picture,
`sounds.tsv` class, package and path of each recording, which all train, and under `joined` one name
for short ones that are put together; `packages.tsv` says how large a package is and under which
licence, for those that mini_sounds does not list.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import csv
from pathlib import Path

import download  # of mini_sounds
import tables
from tables import Package

from sep.program import guarded

HERE = Path(__file__).resolve().parent


def read(name: str) -> list[dict[str, str]]:
    """Rows of a table of this recipe as dictionaries keyed by the heading."""
    with open(HERE / f"{name}.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def packages() -> list[Package]:
    """The packages of the tables, with the files that are read from each."""
    files: dict[str, set[str]] = {}
    for row in [*read("pictures"), *read("sounds")]:
        files.setdefault(row["package"], set()).add(row["path"].split("!")[0].split("#")[0])
    known = {row["package"]: row for row in tables.read("packages") + read("packages")}
    return [
        Package(name, float(known[name]["MB"]), known[name]["licence"], tuple(sorted(wanted)))
        for name, wanted in sorted(files.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("downloads"))
    guarded(download.run, parser.parse_args().into, packages())


if __name__ == "__main__":
    main()
