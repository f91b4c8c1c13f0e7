"""Training state on disk: written whole or not at all, read without executing anything."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from sep.errors import ModelError


def write_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and strings to `path` by way of a temporary name and a rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_state(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `write_state` wrote (`weights_only`: nothing is unpickled but plain data).

    Raises:
        ModelError: the file is damaged or holds more than plain data.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: damaged ({reason}); delete it to start again") from None
