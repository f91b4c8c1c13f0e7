"""Several processes under torchrun: data parallel by averaging gradients."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device: torch.device) -> torch.device:
    """Join the process group when torchrun started this process; returns this rank's device."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Index of this process, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in one message."""
    if world() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def share(model: nn.Module) -> None:
    """Give every process rank 0's parameters and buffers (batch norm statistics)."""
    if world() > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, 0)


def mean(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes."""
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world()
    return value


def agree(flag: bool) -> bool:
    """Rank 0's answer, so that all processes stop at the same step."""
    if world() > 1:
        value = torch.tensor([int(flag)])
        if dist.get_backend() == "nccl":
            value = value.cuda()
        dist.broadcast(value, 0)
        return bool(value.item())
    return flag
