"""Two processes on the CPU: gradients are averaged and everyone stops together."""

import copy

import torch
import torch.multiprocessing as mp
from experiment import build_parts
from processes import free_port, join
from torch import nn

from sep import hub
from sep.data.bank import QueryBank
from sep.data.kaldi import DataDir
from sep.data.packing import Packing, pack
from sep.data.shard_sampler import ShardQueries, ShardSampler
from sep.data.shards import ShardSet
from sep.train import distributed
from sep.train.average import WeightAverage
from sep.train.checkpoint import read_state
from sep.train.heatmap import PriorLoss
from sep.train.log import read_log
from sep.train.loop import run
from sep.train.supervised import SupervisedTask


def work(rank: int, port: int, out) -> None:
    join(rank, port)
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
    context = mp.get_context("spawn")
    out = context.SimpleQueue()
    mp.spawn(work, (free_port(), out), nprocs=2)
    got = sorted(out.get() for _ in range(2))
    assert got == [(0, 5.0, 1.5, 0.5, True), (1, 5.0, 1.5, 0.5, True)]


def test_alone_nothing_changes():
    model = nn.Linear(1, 1, bias=False)
    model(torch.ones(1, 1)).sum().backward()
    distributed.average_gradients(model)
    assert model.weight.grad.item() == 1
    assert (distributed.rank(), distributed.world(), distributed.agree(False)) == (0, 1, False)


def build(corpus, rank: int):
    """A network with a heat map, its task in train mode of everything but the batch norm."""
    model, sampler, queries, validation = build_parts(corpus)
    model = hub.extend(model, "prior", heads=2, head_dim=4, token_dim=8, hidden=3)
    sampler.rank = rank
    whole = copy.deepcopy(model)
    if distributed.world() > 1:
        distributed.shard(model, "maps")
    task = SupervisedTask(
        model, sampler, queries, validation, lr=1e-2, grad_clip=0.5, train_norm=False,
        si_sdr=0.3, terms=[PriorLoss()],
    )  # fmt: skip
    return task, whole


def work_sharded(rank: int, port: int, corpus, folder) -> None:
    join(rank, port)
    for steps in (2, 4):  # the second goes on where the first was
        task, whole = build(corpus, rank)
        held = sum(p.to_local().numel() for p in task.model.parameters())
        assert held < 0.6 * sum(p.numel() for p in task.model.parameters())
        task.picture = lambda path: None
        settings = {"valid_every": 2, "best_by": None, "say": lambda line: None}
        run(task, folder, steps=steps, blend=0.5, ema=0.5, whole=whole, **settings)
    distributed.stop()


def test_two_sharded_processes_train_as_one_does_with_both_batches(corpus, tmp_path, monkeypatch):
    mp.spawn(work_sharded, (free_port(), corpus, tmp_path / "two"), nprocs=2)

    other, _ = build(corpus, 1)  # takes no step of its own, only gives its batches' gradients

    def with_the_other(model):
        other.model.load_state_dict(model.state_dict())
        other.train_step(len(norms), 0.0)
        for own, added in zip(model.parameters(), other.model.parameters(), strict=True):
            own.grad.add_(added.grad).div_(2)

    task, _ = build(corpus, 0)
    start, norms = copy.deepcopy(task.model.state_dict()), []
    average = WeightAverage(task.model, 0.5)
    other.grad_clip = float("inf")
    other.optimizer.step = lambda: None
    averages = iter([with_the_other, lambda model: None] * 4)
    monkeypatch.setattr(distributed, "average_gradients", lambda model: next(averages)(model))
    for step, progress in enumerate((0.0, 0.5, 0.5, 0.75)):
        norms.append(task.train_step(step, progress)["gradient_norm"])
        average.update(task.model, step + 1)

    rows = read_log(tmp_path / "two" / "log.csv")
    logged = [value for _, name, value in rows if name == "train/gradient_norm"]
    torch.testing.assert_close(torch.tensor(logged), torch.tensor(norms), rtol=1e-3, atol=1e-4)
    state = read_state(tmp_path / "two" / "state.pt")
    found, expected = state["model"], task.model.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert type(found[name]) is torch.Tensor
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    moved = max((value - start[name]).abs().max() for name, value in expected.items())
    assert moved > 0.01
    moments = task.optimizer.state_dict()["state"]
    for index, values in state["optimizer"]["state"].items():
        torch.testing.assert_close(
            values["exp_avg"], moments[index]["exp_avg"], rtol=1e-2, atol=1e-4
        )
    saved = hub.from_pretrained(tmp_path / "two" / "last").state_dict()
    for name, value in average.values.items():  # the model folder holds their mean's blend
        if value.is_floating_point():
            halfway = torch.lerp(start[name], value, 0.5)
            torch.testing.assert_close(saved[name], halfway, rtol=1e-3, atol=1e-4)


def streaming_task(corpus, tars, rank: int) -> SupervisedTask:
    model, _, _, validation = build_parts(corpus)
    shards = ShardSet(tars)
    sampler = ShardSampler(shards, 2, workers=1, buffer=3, samples=4_096, seed=3, rank=rank)
    task = SupervisedTask(model, sampler, ShardQueries(sampler), validation)
    task.validate, task.picture = lambda: {"nothing": 0.0}, lambda path: None
    return task


def work_streaming(rank: int, port: int, corpus, tars, folder, out) -> None:
    join(rank, port)
    drawn = []
    for steps in (2, 6):  # the second goes on where the first was
        task = streaming_task(corpus, tars, rank)
        groups = task.sampler.stream.groups

        def kept(*shape, groups=groups):
            found = groups(*shape)
            drawn.extend(clip.place for group in found for clip in group)
            return found

        task.sampler.stream.groups = kept
        settings = {"valid_every": 2, "best_by": None, "say": lambda line: None}
        run(task, folder, steps=steps, **settings)
    out.put((rank, drawn))
    distributed.stop()


def test_two_processes_stream_clips_of_their_own_and_go_on_with_them(corpus, tmp_path):
    data, queries = DataDir(corpus / "data"), QueryBank(corpus / "queries.safetensors")
    pack(data, queries, tmp_path / "tars", Packing(clips=3), say=lambda line: None)
    context = mp.get_context("spawn")
    out = context.SimpleQueue()
    arguments = (free_port(), corpus, tmp_path / "tars", tmp_path / "run", out)
    mp.spawn(work_streaming, arguments, nprocs=2)
    got = dict(out.get() for _ in range(2))
    assert len(got[0]) == len(got[1]) == 6 * 2 * 2
    used = got[0] + got[1]
    assert len(set(used)) == len(used)  # nothing twice in an epoch, by either, before or after
    first = {place[1:] for place in used if place[0] == 0}
    assert first == {(tar, member) for tar in range(4) for member in range(3)}
