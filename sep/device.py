"""Which device computes, and whether bfloat16 autocast pays there."""

from contextlib import AbstractContextManager

import torch

from sep.errors import SepError


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
        raise SepError(f"device '{name}' is unknown; use auto, cpu, cuda or mps") from None
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
