"""Several processes under torchrun: data parallel by averaging gradients, or fully sharded."""

import os
from typing import Any

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
    """Replace every gradient by its mean over the processes, in one message.

    A sharded model has the mean already. A parameter that a process did not use counts as zero.
    """
    if world() == 1 or is_sharded(model):
        return
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
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


def shard(model: nn.Module, forward: str) -> None:
    """Spread parameters, gradients and so the optimiser's state over the processes (FSDP2).

    They are gathered when the method `forward` is called, and are there until the backward pass has
    averaged the gradients, also for other methods. Buffers stay whole in every process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    model.to(memory_format=torch.contiguous_format)  # FSDP takes no channels_last weights
    mesh = init_device_mesh(next(model.parameters()).device.type, (world(),))
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, forward)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` was applied."""
    return any(hasattr(p, "full_tensor") for p in model.parameters())


def gathered(values: Any) -> Any:
    """A copy of nested values with sharded tensors whole; every process has to call it."""
    if isinstance(values, dict):
        return {name: gathered(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(gathered(value) for value in values)
    if not isinstance(values, Tensor):
        return values
    values = values.detach()
    return values.full_tensor() if hasattr(values, "full_tensor") else values.clone()


def scattered(value: Tensor, like: Tensor | None) -> Tensor:
    """This process's part of a whole tensor, sharded as `like` is, if it is."""
    if not hasattr(like, "full_tensor") or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)


def mean(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes."""
    if world() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world()
    return value


def collected(value: Any) -> list[Any]:
    """Every process's value, plain data, in the order of ranks; every process has to call it."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def first(number: float) -> float:
    """Rank 0's number, in every process."""
    if world() == 1:
        return number
    value = torch.tensor([number], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        value = value.cuda()
    dist.broadcast(value, 0)
    return value.item()


def agree(flag: bool) -> bool:
    """Rank 0's answer, so that all processes stop at the same step."""
    return bool(first(flag))
