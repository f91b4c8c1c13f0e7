"""Numbers of a run: one CSV row a step and the same in TensorBoard."""

import csv
import io
import os
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Append-only log of a run that a resumed run continues without gaps or repeats.

    Args:
        folder: gets `log.csv` (columns step, name, value) and `tb/`.
        step: steps already done; rows beyond them, left by a killed run, are dropped.
    """

    def __init__(self, folder: str | Path, step: int = 0):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "log.csv"
        kept = [row for row in read_log(path) if row[0] <= step] if path.exists() else []
        text = io.StringIO()
        csv.writer(text).writerows([("step", "name", "value"), *kept])
        temporary = path.with_name(".log.csv")
        temporary.write_text(text.getvalue())
        os.replace(temporary, path)
        self._file = open(path, "a", newline="")
        self._csv = csv.writer(self._file)
        self._board = SummaryWriter(self.folder / "tb", purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log the values of one step."""
        for name, value in values.items():
            self._csv.writerow((step, name, f"{float(value):.9g}"))
            self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Put everything on disk, before a checkpoint counts as done."""
        self._file.flush()
        self._board.flush()

    def close(self) -> None:
        self._file.close()
        self._board.close()


def read_log(path: str | Path) -> list[tuple[int, str, float]]:
    """Rows (step, name, value) of a log.csv; a last line cut short by a kill is left out."""
    rows = []
    with open(path, newline="") as file:
        for row in csv.reader(file):
            if len(row) == 3 and row[0].isdigit():
                try:
                    rows.append((int(row[0]), row[1], float(row[2])))
                except ValueError:
                    continue
    return rows
