"""Two processes on the CPU: gradients are averaged and everyone stops together."""

import socket

import torch
import torch.multiprocessing as mp
from torch import nn

from sep.train import distributed


def work(rank: int, port: int, out) -> None:
    import os

    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    distributed.start(torch.device("cpu"))
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, float(rank + 5))
    distributed.share(model)
    model(torch.full((1, 1), float(rank + 1))).sum().backward()  # gradient 1 and 2
    distributed.average_gradients(model)
    mean = distributed.mean(torch.tensor(float(rank)))
    agreed = distributed.agree(rank == 0)
    out.put((rank, model.weight.item(), model.weight.grad.item(), mean.item(), agreed))
    distributed.stop()


def test_gradients_are_averaged_over_two_processes():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    out = context.SimpleQueue()
    mp.spawn(work, (port, out), nprocs=2)
    got = sorted(out.get() for _ in range(2))
    assert got == [(0, 5.0, 1.5, 0.5, True), (1, 5.0, 1.5, 0.5, True)]


def test_alone_nothing_changes():
    model = nn.Linear(1, 1, bias=False)
    model(torch.ones(1, 1)).sum().backward()
    distributed.average_gradients(model)
    assert model.weight.grad.item() == 1
    assert (distributed.rank(), distributed.world(), distributed.agree(False)) == (0, 1, False)
