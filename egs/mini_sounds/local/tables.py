"""The recipe's committed tables: packages, classes, sounds and instruments."""

import csv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FONT = "fonts-noto-color-emoji"


@dataclass(frozen=True)
class Package:
    """A Debian package; `wanted` are the paths inside it that the recipe reads."""

    name: str
    size_mb: float
    licence: str
    wanted: tuple[str, ...]


@dataclass(frozen=True)
class SoundClass:
    """A class; `captions` are wordings and `pictures` are (package, source) pairs."""

    name: str
    group: str
    test_package: str
    captions: tuple[str, ...]
    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Instrument:
    """How to render a class from a sound font.

    `programs` are General MIDI programs (0 to 127), or percussion keys when `style` is drums;
    `low` and `high` bound the MIDI notes.
    """

    name: str
    style: str
    programs: tuple[int, ...]
    low: int
    high: int


def read(name: str) -> list[dict[str, str]]:
    """Rows of one table as dictionaries keyed by the heading."""
    with open(HERE / f"{name}.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def packages(full: bool) -> list[Package]:
    """Packages of the base list, and with `full` the larger list too."""
    wanted: dict[str, set[str]] = {}
    for row in read("sounds"):
        wanted.setdefault(row["package"], set()).add(_file(row["path"]))
    for row in classes().values():
        for package, source in row.pictures:
            wanted.setdefault(package, set()).add(_file(source))
    for row in read("fonts"):
        wanted.setdefault(row["package"], set()).add(row["path"])
    return [
        Package(r["package"], float(r["MB"]), r["licence"], tuple(sorted(wanted[r["package"]])))
        for r in read("packages")
        if full or r["list"] == "base"
    ]


def classes() -> dict[str, SoundClass]:
    """Classes by name."""
    found = {}
    for row in read("classes"):
        pictures = tuple(tuple(p.split(":", 1)) for p in row["pictures"].split("|") if p)
        found[row["class"]] = SoundClass(
            row["class"],
            row["group"],
            row["test_package"],
            tuple(row["captions"].split("|")),
            pictures,
        )
    return found


def instruments() -> list[Instrument]:
    """Instruments that are rendered."""
    return [
        Instrument(
            r["class"],
            r["style"],
            tuple(int(p) for p in r["programs"].split(",")),
            int(r["low"]),
            int(r["high"]),
        )
        for r in read("instruments")
    ]


def _file(source: str) -> str:
    """The file inside a package that holds a source."""
    return source.split("!")[0].split("#")[0]
