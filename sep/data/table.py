"""Comma-separated tables that others wrote, read line by line so that each fault has a place."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from sep.errors import DataError


def lines(
    path: Path, columns: Sequence[str], otherwise: str
) -> Iterator[tuple[int, dict[str, str], str]]:
    """Read a table with a heading; empty lines are passed over.

    Args:
        path: the table, UTF-8.
        columns: those that must be there.
        otherwise: what to do where there is no table, for the error.

    Yields:
        the line's number, its stripped values by column, and what is wrong with it: an empty
        string if it is whole. A value of `columns` that is empty is a fault.

    Raises:
        DataError: there is no table, or it lacks a column.
    """
    try:
        found = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError:
        raise DataError(f"{path}: not there; {otherwise}") from None
    heading, _ = fields(found[0] if found else b"")
    heading = [name.strip() for name in heading]
    missing = [name for name in columns if name not in heading]
    if missing:
        raise DataError(f"{path}:1: has no column {', '.join(missing)}; restore the file")
    for number, line in enumerate(found[1:], 2):
        if not line.strip():
            continue
        values, fault = fields(line)
        if not fault and len(values) != len(heading):
            fault = (
                f"has {len(values)} fields, the heading has {len(heading)}; "
                "put a value with a comma between quotes"
            )
        row = {} if fault else dict(zip(heading, (v.strip() for v in values), strict=True))
        empty = [name for name in columns if row and not row[name]]
        if empty:
            fault = f"has no {empty[0]}; restore the line"
        yield number, row, fault


def bare(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """Line number, stripped fields and fault of every line of a table without a heading.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        found = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the list") from None
    for number, line in enumerate(found, 1):
        if line.strip():
            values, fault = fields(line)
            yield number, [value.strip() for value in values], fault


def fields(line: bytes) -> tuple[list[str], str]:
    """The fields of a line, or why there are none."""
    try:
        return next(csv.reader([line.decode("utf-8")], strict=True), []), ""
    except UnicodeDecodeError:
        return [], "is not UTF-8; save the file as UTF-8"
    except csv.Error as error:
        return [], f"is not comma-separated ({error}); restore the line"
