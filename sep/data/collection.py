"""What the preparation of a set of videos gathers and writes: clips by split, and every fault."""

import csv
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from sep.data import kaldi, mixtures, protocol
from sep.data.extract import JOURNAL, Made
from sep.data.mixtures import SPLITS
from sep.errors import DataError

SHOWN = 40  # faults that are printed; faults.txt has all
COUNTS = ("wanted", "found", "used", "pictures")


def by_hash(names: Iterable[str]) -> list[str]:
    """Names in an order that looks random and does not depend on which others there are."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


class Collection:
    """Clips and faults on their way to `data`, whose earlier contents go.

    Only what the journal of an interrupted run has (`sep.data.extract`) stays.

    Args:
        data: gets `train`, `valid`, `test`, `wav`, `images`, and the reports `faults.txt` and
            `classes.tsv`; is absolute.
    """

    def __init__(self, data: Path):
        self.data = data
        self.entries: dict[str, list[kaldi.Entry]] = {split: [] for split in SPLITS}
        self.faults: list[str] = []
        self._counts: Counter[tuple[str, str, str]] = Counter()
        goes_on = (data / JOURNAL).is_file()
        for old in SPLITS if goes_on else (*SPLITS, "wav", "images"):
            shutil.rmtree(data / old, ignore_errors=True)
        for old in ("faults.txt", "classes.tsv", "coverage.md"):
            (data / old).unlink(missing_ok=True)
        for new in ("wav", "images"):
            (data / new).mkdir(parents=True, exist_ok=True)

    def take(
        self, split: str, label: str, text: str, at: str, made: Made | None, where: Path
    ) -> None:
        """Take the clips of a listed recording, and what was wrong with it.

        Args:
            split: of the clips.
            label: their class.
            text: their caption.
            at: place in the list, as `file:line: name`.
            made: the clips, None where the recording was not found.
            where: that was.
        """
        self._counts[split, label, "wanted"] += 1
        if made is None:
            self.faults.append(f"{at}: is not in {where}; fetch it or go without")
            return
        self._counts[split, label, "found"] += 1
        for what in (made.fault, made.note):
            if what:
                self.faults.append(f"{at}: {what}")
        if made.clips:
            self._counts[split, label, "used"] += 1
            self._counts[split, label, "pictures"] += any(image for _, _, image in made.clips)
        for id_, seconds, image in made.clips:
            wav = str(self.data / "wav" / f"{id_}.wav")
            self.entries[split].append(kaldi.Entry(id_, wav, text, label, seconds, image))

    def write(self) -> None:
        """Print and write the reports, then write the data directories.

        Raises:
            DataError: train or test has fewer than two classes.
        """
        self._report()
        if len({entry.label for entry in self.entries["valid"]}) < 2:
            print("valid: fewer than two classes; its clips train, and training clips validate")
            self.entries["train"] += self.entries["valid"]
            self.entries["valid"] = self.entries["train"]
        for split, found in self.entries.items():
            classes = len({entry.label for entry in found})
            if classes < 2:
                raise DataError(
                    f"{self.data}: {split}: {classes} usable classes, two are needed; "
                    f"{self.data / 'faults.txt'} says what is wrong"
                )
        for split, found in self.entries.items():
            kaldi.write(self.data / split, found)

    def mix(
        self, fixed: protocol.Fixed, title: str, count: int, recording_of: Callable[[str], str]
    ) -> None:
        """Write the mixtures of valid and test, and how much of the fixed list those of test are.

        That is printed, and kept in `coverage.md` for the end of a run.

        Args:
            fixed: the list of the test.
            title: what its mixtures are.
            count: mixtures of valid, drawn by seed 0.
            recording_of: id to the recording that a clip was cut from.

        Raises:
            DataError: not one of the list can be made.
        """
        dirs = {split: kaldi.DataDir(self.data / split) for split in SPLITS}
        seen, test = {split: dirs[split] for split in ("valid", "train")}, dirs["test"]
        drawn = mixtures.draw(dirs["valid"], count, 0, seen, recording_of=recording_of)
        mixtures.save(self.data / "valid" / kaldi.MIXTURES, drawn)
        drawn = protocol.mixtures(fixed, test, dirs, recording_of=recording_of)
        text = protocol.coverage(title, fixed, test, len(drawn))
        print(text)
        if not drawn:
            faults = self.data / "faults.txt"
            raise DataError(f"{test.path}: no mixture can be made; {faults} says what is wrong")
        mixtures.save(self.data / "test" / kaldi.MIXTURES, drawn)
        _write(self.data / "coverage.md", f"\n{text}\n")

    def _report(self) -> None:
        """Every fault to faults.txt, the counts by class to classes.tsv, both in short here."""
        _write(self.data / "faults.txt", "".join(f"{fault}\n" for fault in self.faults))
        for fault in self.faults[:SHOWN]:
            print(fault)
        if len(self.faults) > SHOWN:
            print(f"... and {len(self.faults) - SHOWN} more in {self.data / 'faults.txt'}")
        labels = sorted({(split, label) for split, label, _ in self._counts})
        with (self.data / "classes.tsv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(("split", "class", *COUNTS))
            for split, label in sorted(labels, key=lambda row: (SPLITS.index(row[0]), row[1])):
                table.writerow((split, label, *(self._counts[split, label, c] for c in COUNTS)))
        for split in SPLITS:
            wanted, found, used, pictures = (
                sum(n for (s, _, name), n in self._counts.items() if (s, name) == (split, column))
                for column in COUNTS
            )
            print(
                f"{split}: found {found} of {wanted}, missing {wanted - found}; "
                f"{used} usable, {pictures} with a picture"
            )


def _write(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
