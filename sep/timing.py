"""Time by part and peak memory, on a CPU or a CUDA device."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def synchronise(device: torch.device) -> None:
    """Wait until everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far: of the device, or of this process (Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory since the reset: allocated on the device, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Stopwatch:
    """Adds up the time that chosen calls take; a call inside a timed one is not counted twice.

    Attributes:
        seconds: time by part.
        total: wall time of the `with` block.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}
        self.total = 0.0
        self._inside = False

    def __enter__(self) -> Self:
        synchronise(self.device)
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: Any) -> None:
        synchronise(self.device)
        self.total = time.perf_counter() - self._begun

    @contextmanager
    def on(self, owner: Any, name: str, part: str) -> Iterator[None]:
        """Time the callable `owner.name` (of an object, class or module) as `part` meanwhile."""
        original = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return original(*arguments, **options)
            synchronise(self.device)
            self._inside, begun = True, time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                synchronise(self.device)
                self._inside = False
                spent = time.perf_counter() - begun
                self.seconds[part] = self.seconds.get(part, 0.0) + spent

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, original)
