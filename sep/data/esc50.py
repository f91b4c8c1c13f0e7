"""ESC-50 in the layout of its repository: `audio/*.wav` and `meta/esc50.csv`."""

from dataclasses import dataclass
from pathlib import Path

from sep.data import rows
from sep.errors import DataError

COLUMNS = ("filename", "fold", "category", "src_file")  # those that are read
FOLDS = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Clip:
    """A listed clip; those with one `source` were cut from one recording. `line` is its line."""

    path: Path
    label: str
    source: str
    fold: str
    line: int


def table(folder: Path) -> Path:
    """Where the list of clips is."""
    return folder / "meta" / "esc50.csv"


def read(folder: Path) -> tuple[list[Clip], list[str]]:
    """Read the list of clips.

    Returns:
        the clips whose line is whole and whose file is there, and what is wrong with the others,
        as `file:line: what; fix`.

    Raises:
        DataError: there is no list, or it lacks a column.
    """
    path = table(folder)
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError:
        raise DataError(f"{path}: not there; give the folder with audio/ and meta/") from None
    heading, _ = rows.fields(lines[0] if lines else b"")
    missing = [name for name in COLUMNS if name not in heading]
    if missing:
        raise DataError(f"{path}:1: has no column {', '.join(missing)}; restore the file")
    clips: list[Clip] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        fields, fault = rows.fields(line)
        if not fault and len(fields) != len(heading):
            fault = (
                f"has {len(fields)} fields, the heading has {len(heading)}; "
                "put a value with a comma between quotes"
            )
        if not fault:
            row = dict(zip(heading, (field.strip() for field in fields), strict=True))
            fault = _fault(folder, row, seen)
        if fault:
            faults.append(f"{path}:{number}: {fault}")
            continue
        file = folder / "audio" / row["filename"]
        seen[file.stem] = number
        label = " ".join(row["category"].replace("_", " ").split())
        clips.append(Clip(file, label, row["src_file"], row["fold"], number))
    return clips, faults


def _fault(folder: Path, row: dict[str, str], seen: dict[str, int]) -> str:
    """What is wrong with a line, an empty string if nothing; `seen` are the clips before it."""
    empty = [name for name in COLUMNS if not row[name]]
    name = row["filename"]
    if empty:
        return f"has no {empty[0]}; restore the line"
    if row["fold"] not in FOLDS:
        return f"fold {row['fold']} is none of 1 to 5; restore the line"
    if Path(name).name != name or len(name.split()) != 1:
        return f"{name!r} is not the plain name of a file in audio/; rename it"
    if Path(name).stem in seen:
        return f"{name} is in line {seen[Path(name).stem]}, too; remove one line"
    if not (folder / "audio" / name).is_file():
        return f"audio/{name} is not there; fetch it or remove the line"
    return ""
