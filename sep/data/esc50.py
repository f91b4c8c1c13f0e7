"""ESC-50 in the layout of its repository: `audio/*.wav` and `meta/esc50.csv`."""

from dataclasses import dataclass
from pathlib import Path

from sep.data.table import lines

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
    clips: list[Clip] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for number, row, fault in lines(path, COLUMNS, "give the folder with audio/ and meta/"):
        fault = fault or _fault(folder, row, seen)
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
    name = row["filename"]
    if row["fold"] not in FOLDS:
        return f"fold {row['fold']} is none of 1 to 5; restore the line"
    if Path(name).name != name or len(name.split()) != 1:
        return f"{name!r} is not the plain name of a file in audio/; rename it"
    if Path(name).stem in seen:
        return f"{name} is in line {seen[Path(name).stem]}, too; remove one line"
    if not (folder / "audio" / name).is_file():
        return f"audio/{name} is not there; fetch it or remove the line"
    return ""
