"""Folders of labelled recordings: what is in them, and which of it is held out.

A folder holds `audio/` and `meta.tsv` with the columns file, label and caption, and where the
corpus has them fold, freesound_id (the recording that clips were cut from) and note; or it is the
official ESC-50 (`audio/` and `meta/esc50.csv`).
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sep.data import esc50
from sep.errors import SepError

HERE = Path(__file__).resolve().parent
SPLITS = ("train", "tune", "valid", "test")
TEST, VALID = 0.25, 0.15  # shares of a class's recordings
# clips of ESC-50 that are left out, as test packages of mini_sounds have the same recordings:
# minetest-data's fire_fire.small and entry 56 of openttd-opensfx
COPIES = {"1-4211-A-12", "1-19898-C-41"}


@dataclass
class Item:
    """A file of a corpus; clips with one `source` come from one recording or pitch."""

    path: Path
    label: str
    source: str
    fold: str = ""
    split: str = ""


@dataclass(frozen=True)
class Label:
    """A class: `also` names it elsewhere, `captions` are wordings of it."""

    name: str
    also: tuple[str, ...]
    captions: tuple[str, ...]


def labels() -> dict[str, Label]:
    """The recipe's table of classes, by name."""
    with open(HERE / "labels.tsv", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {
            r["class"]: Label(
                r["class"],
                tuple(name for name in r["also"].split("|") if name),
                tuple(r["captions"].split("|")),
            )
            for r in rows
        }


def read(folder: Path) -> list[Item]:
    """List a corpus without `COPIES`; raises SepError where the folder or a file is missing."""
    table = folder / "meta.tsv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        items = [_item(folder, row) for row in rows]
    elif esc50.table(folder).is_file():
        clips, faults = esc50.read(folder)
        if faults:
            raise SepError(faults[0])
        items = [Item(clip.path, clip.label, clip.source, clip.fold) for clip in clips]
    else:
        raise SepError(f"{folder}: has no meta.tsv and no meta/esc50.csv; see README.md here")
    items = [item for item in items if item.path.stem not in COPIES]
    for item in items:
        if not item.path.is_file():
            raise SepError(f"{item.path} is listed but not there; restore it or its line")
    return items


def _item(folder: Path, row: dict[str, str]) -> Item:
    try:
        label, file = row["label"], row["file"]
    except KeyError as error:
        raise SepError(f"{folder}/meta.tsv: has no column {error}") from None
    source = row.get("freesound_id") or row.get("note") or Path(file).stem
    return Item(folder / "audio" / file, label, source, row.get("fold") or "")


def hold_out(items: list[Item], test_fold: str, valid_fold: str, tune: float = 0.0) -> None:
    """Set the split of each item: train, valid or test; clips of one source stay together.

    A class found in several folds is split by fold, any other by source: a quarter of them tests,
    at least one of two, and about every seventh validates. The order is that of a hash, so it does
    not move when recordings are added. An empty `valid_fold` leaves validation out. Of what is left
    for training, a share `tune` of each class's sources becomes the split tune.
    """
    folds: dict[str, set[str]] = {}
    named = {valid_fold: "valid", test_fold: "test"}
    for item in items:
        folds.setdefault(item.label, set()).add(item.fold)
    for label, of_label in folds.items():
        mine = [item for item in items if item.label == label]
        if len(of_label) > 2:
            for item in mine:
                item.split = named.get(item.fold, "train")
            continue
        sources = sorted({item.source for item in mine}, key=_hash)
        count = len(sources)
        test = max(round(TEST * count), 1) if count > 1 else 0
        valid = max(round(VALID * count), 1) if count > 3 and valid_fold else 0
        split = dict.fromkeys(sources[:test], "test")
        split |= dict.fromkeys(sources[test : test + valid], "valid")
        for item in mine:
            item.split = split.get(item.source, "train")
    training = [item for item in items if item.split == "train"]
    apart = keep_apart([(item.label, item.source) for item in training], tune)
    for item in training:
        if item.source in apart:
            item.split = "tune"


def keep_apart(items: Iterable[tuple[str, str]], share: float) -> set[str]:
    """Sources of (label, source) pairs that only fine-tuning hears: a share of each class's.

    A class of fewer than three sources gives none.
    """
    sources: dict[str, set[str]] = {}
    for label, source in items:
        sources.setdefault(label, set()).add(source)
    apart: set[str] = set()
    for mine in sources.values():
        if len(mine) > 2:
            apart.update(sorted(mine, key=lambda s: _hash(f"tune {s}"))[: round(share * len(mine))])
    return apart


def report(name: str, items: list[Item]) -> None:
    """Print how many files and classes each split has."""
    for split in SPLITS:
        count = Counter(item.label for item in items if item.split == split)
        print(f"{name}: {split}: {sum(count.values())} files of {len(count)} classes")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
