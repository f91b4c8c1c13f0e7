"""AudioSep's evaluation sets, as its repository publishes them: finished mixtures with a target.

Lists come from `evaluation/metadata/` of the repository, sounds from its download
(`evaluation/data/`): https://github.com/Audio-AGI/AudioSep, arXiv 2308.05037.
"""

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sep.errors import DataError, OptionError

PER_CLASS = 10  # mixtures of a class of audioset that are heard, in order of their names


class Case(NamedTuple):
    """A mixture, what is asked for in words, which is its class, too, and the true target."""

    id: str
    text: str
    mixture: Path
    target: Path


class Layout(NamedTuple):
    """How a set is laid out and averaged.

    text: column of the list that has the query; over: what scores are averaged over, `clips`,
    `classes` (means of each first) or `medians` (of each class first).
    """

    text: str
    over: str = "clips"


LAYOUTS = {
    "esc50": Layout("caption"),
    "clotho": Layout("caption"),
    "audiocaps": Layout("caption"),
    "music": Layout("caption", "classes"),
    "vggsound": Layout("s0_text"),
    "audioset": Layout("display_name", "medians"),
}


def read(name: str, table: str | Path, folder: str | Path) -> list[Case]:
    """The cases of an evaluation set, whether their files are there or not.

    Args:
        name: a key of `LAYOUTS`.
        table: its list, `<name>_eval.csv`; of audioset `class_labels_indices.csv`, as the mixtures
            of that set are those that its folders hold.
        folder: its sounds.

    Raises:
        OptionError: a set that there is not.
        DataError: a list that cannot be read or is another one; no folder.
    """
    if name not in LAYOUTS:
        raise OptionError(f"set '{name}' is unknown; use {', '.join(LAYOUTS)}")
    folder, layout = Path(folder), LAYOUTS[name]
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; put AudioSep's evaluation data there")
    rows = list(_rows(Path(table), layout.text))
    if name == "audioset":
        classes = [row[layout.text] for row in rows]
        return list(itertools.chain(*(_class(folder, k, label) for k, label in enumerate(classes))))
    return [_case(name, row, row[layout.text], folder, Path(table)) for row in rows]


def _rows(table: Path, text: str) -> Iterator[dict[str, str]]:
    try:
        with open(table, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if text not in (reader.fieldnames or []):
                raise DataError(f"{table}: has no column {text}; give the list of this set")
            for row in reader:
                if not (row[text] or "").strip():
                    raise DataError(f"{table}:{reader.line_num}: says nothing to ask for")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({error})") from None


def _case(name: str, row: dict[str, str], text: str, folder: Path, table: Path) -> Case:
    try:
        if name == "vggsound":
            files = folder / row["mix_wav"], folder / row["s0_wav"]
            return Case(row["file_id"], text, *files)
        id_ = row["idx"]
    except (KeyError, TypeError):
        raise DataError(f"{table}: lacks columns of {name}; give the list of this set") from None
    return Case(id_, text, folder / f"mixture-{id_}.wav", folder / f"segment-{id_}.wav")


def _class(folder: Path, number: int, label: str) -> Iterator[Case]:
    """Of audioset: the first mixtures of a class."""
    home = folder / f"class_id={number}"
    names = {m[1] for p in home.glob("*.wav") if (m := re.match(r"(.*),(mixture|source)", p.stem))}
    for stem in sorted(names)[:PER_CLASS]:
        files = home / f"{stem},mixture.wav", home / f"{stem},source.wav"
        yield Case(f"{number}/{stem}", label, *files)
