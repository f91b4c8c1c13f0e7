"""Families of sounds by the words of captions (`words.tsv`), the rarer ones first.

AudioCaps has captions and no classes; families stand in for them where the toolkit wants classes:
in training every family is drawn alike, the held-out judge tells them apart, and two clips that
share one are not mixed for evaluation.
"""

import csv
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
OTHER = "other sounds"


@cache
def _patterns() -> list[tuple[str, re.Pattern]]:
    with open(HERE / "words.tsv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    words = [
        (row["label"], "|".join(re.escape(w).replace(r"\*", r"\w*") for w in row["words"].split()))
        for row in rows
    ]
    return [(label, re.compile(rf"\b(?:{found})\b")) for label, found in words]


def of(captions: list[str]) -> list[str]:
    """The families that any of the captions names, in the order of the table; never none."""
    text = "\n".join(captions).lower()
    return [label for label, pattern in _patterns() if pattern.search(text)] or [OTHER]
