"""Which device computes, whether bfloat16 autocast pays there, and how much it has room for."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from sep.errors import SepError

AT_ONCE = 8  # times at most that work is done at once
NO_ROOM = "memory ran out; free some, use fewer --jobs, or --device cpu where a GPU is full"
SHARE = 0.8  # of the free memory; the rest is for what fragments


def resolve(name: str = "auto") -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N` or `mps` into a device that exists.

    Raises:
        SepError: the named device is unknown or absent.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise SepError(f"device '{name}' is unknown; use auto, cpu, cuda or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SepError(f"device '{name}' is not available here; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SepError(f"device '{name}' is not available here; use --device cpu")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether matrix products run natively in bfloat16 on this device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)


def autocast(device: torch.device, enabled: bool = True) -> AbstractContextManager:
    """bfloat16 autocast where the processor has it, otherwise no change."""
    use = enabled and has_fast_bfloat16(device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=use)


def with_room(work: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, int]:
    """Do a piece of work, and say how many such pieces the device has room for at once.

    On CUDA that is what it says is free by what the piece took at its peak, `AT_ONCE` at most. It
    is 1 elsewhere: a processor is not faster with several pieces at once.
    """
    if device.type != "cuda":
        return work(), 1
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = work()
    taken = torch.cuda.max_memory_allocated(device) - before
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return result, pieces(torch.cuda.mem_get_info(device)[0] + kept, taken)


def pieces(free: int, taken: int) -> int:
    """How many pieces that take `taken` bytes each go into `SHARE` of `free` bytes."""
    return max(1, min(AT_ONCE, int(SHARE * free / max(1, taken))))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, that of the device or of the machine."""
    said = ("can't allocate memory", "could not create a primitive", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )
