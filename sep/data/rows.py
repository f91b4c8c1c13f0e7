"""Lines of comma-separated lists that people hand around: each is read, or has a named fault."""

import csv
from collections.abc import Iterator
from pathlib import Path

from sep.errors import DataError


def fields(line: bytes) -> tuple[list[str], str]:
    """The fields of a line, or why there are none."""
    try:
        return next(csv.reader([line.decode("utf-8")], strict=True), []), ""
    except UnicodeDecodeError:
        return [], "is not UTF-8; save the file as UTF-8"
    except csv.Error as error:
        return [], f"is not comma-separated ({error}); restore the line"


def table(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """Line number, stripped fields and fault of every line that is not blank.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the list") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            values, fault = fields(line)
            yield number, [value.strip() for value in values], fault
