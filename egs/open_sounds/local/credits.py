"""Who made the recordings of the recipe, and under which licence."""

import csv
import json
from pathlib import Path

MINI = Path(__file__).resolve().parents[2] / "mini_sounds" / "local"  # its tables of licences
PHILHARMONIA = "Philharmonia Orchestra; free to use in works, not to be passed on as samples"


class Credits:
    """One line of credit for a clip, by its id in the recipe's data directories.

    Args:
        esc50: the folder of ESC-50 that the clips were made of; authors and licences are in its
            meta.tsv, where it has one with these columns.
        mini: data directories of mini_sounds.
    """

    def __init__(self, esc50: Path | None = None, mini: Path | None = None):
        self.esc50: dict[str, dict[str, str]] = {}
        self.package: dict[str, tuple[str, str]] = {}
        self.licence = {row["recording"]: row["licence"] for row in _rows(MINI / "sounds.tsv")}
        self.licences = {row["package"]: row["licence"] for row in _rows(MINI / "packages.tsv")}
        if esc50 and (esc50 / "meta.tsv").is_file():
            self.esc50 = {Path(row["file"]).stem: row for row in _rows(esc50 / "meta.tsv")}
        if mini and (mini / "clips.jsonl").is_file():
            for line in (mini / "clips.jsonl").read_text(encoding="utf-8").splitlines():
                clip = json.loads(line)
                self.package[clip["id"]] = clip["package"], clip["recording"]

    def of(self, clip: str) -> str:
        """Author, licence and where the recording is from."""
        corpus, _, name = clip.partition("-")
        name = name.partition("-part")[0] if corpus == "esc" else name
        if corpus == "phil":
            return PHILHARMONIA
        if corpus == "esc":
            row = self.esc50.get(name, {})
            if "author" not in row or "licence" not in row:
                return f"clip {name} of ESC-50, whose LICENSE names author and licence"
            return f"{row['author']}, {row['licence']}; Freesound {row.get('freesound_id', '')}"
        if name in self.package:
            package, recording = self.package[name]
            licence = self.licence.get(recording) or self.licences.get(package, "")
            return f"Debian package {package}, whose copyright file names the authors; {licence}"
        return f"clip {clip}; see egs/LICENCES.md"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
