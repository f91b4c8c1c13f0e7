"""Further wordings of classes, beside captions and names, from a table that a recipe brings."""

import csv
from pathlib import Path

from sep.errors import DataError

ANY = "*"  # stands for every class; its wordings have {} where the class's name goes
Wordings = dict[str, tuple[str, ...]]


def read(path: str | Path | None) -> Wordings:
    """The table: tab-separated columns `class` and `wordings`, several of them parted by `|`.

    Raises:
        DataError: there is no such table, or a line of it is no class with its wordings.
    """
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a table of wordings") from None
    table: Wordings = {}
    for number, row in enumerate(rows, 2):
        name, texts = row.get("class"), row.get("wordings")
        words = tuple(text.strip() for text in (texts or "").split("|") if text.strip())
        if not name or not words:
            raise DataError(f"{path}:{number}: no class and wordings; write `class<TAB>a|b`")
        if name in table:
            raise DataError(f"{path}:{number}: {name} is there twice; remove one line")
        if name == ANY and any("{}" not in text for text in words):
            raise DataError(f"{path}:{number}: a wording of {ANY} has no {{}}; say where names go")
        table[name] = words
    return table


def of(table: Wordings, label: str) -> list[str]:
    """The wordings of a class: its own, then those of every class with its name."""
    return [*table.get(label, ()), *(text.format(label) for text in table.get(ANY, ()))]
