"""Two processes with half the mixtures each tune the policy as one does with all of them."""

import torch
import torch.multiprocessing as mp
from experiment import build_parts
from processes import free_port, join

from sep.rl.explore import TileExploration
from sep.rl.options import PolicyOptions
from sep.rl.reward import Similarity, SiSdrGain, WeightedSum
from sep.rl.task import PolicyTask
from sep.train import distributed
from sep.train.batch import Batch

SETTINGS = (
    {"group": "mixture", "group_size": 4, "inner_epochs": 2, "entropy": 0.05, "kl": 0.1},
    {"group": "batch", "group_size": 2, "tas": "event"},
)


def embed(wave, sample_rate):
    """A unit vector of the energies in 16 bands."""
    power = torch.fft.rfft(wave)[:, 1:].abs().square()
    bands = torch.nn.functional.adaptive_avg_pool1d(power[:, None], 16)[:, 0]
    return torch.nn.functional.normalize(torch.log1p(bands), dim=-1)


class RowExploration(TileExploration):
    """Tiles whose draws depend on the rollout and on the row in the whole batch alone."""

    def __init__(self, first: int):
        super().__init__((8, 4))
        self.first, self.rollouts = first, 0

    def draw(self, policy, proposal, group):
        self.rollouts += 1
        noise = []
        for row in range(self.first, self.first + len(proposal)):
            generator = torch.Generator().manual_seed(100 * self.rollouts + row)
            noise.append(torch.randn(group, *proposal.shape[1:], generator=generator))
        return policy.quantile(proposal, torch.stack(noise))


def tuned(corpus, options, rows: slice):
    """Weights after two rollouts with these rows of batches of four mixtures; their logs."""
    parts = build_parts(corpus)
    explore = RowExploration(rows.start)
    reward = WeightedSum({"similarity": (1.0, Similarity(embed)), "si_sdr": (1.0, SiSdrGain())})
    task = PolicyTask(*parts, explore, reward, PolicyOptions(lr=1e-3, **options))
    drawn = task._drawn

    def some(step):
        whole = vars(drawn(step))
        return Batch(**{name: value[rows] for name, value in whole.items()})

    task._drawn = some
    logs = [task.train_step(step, 0.5) for step in range(2)]
    return task.model.state_dict(), logs


def work(rank: int, port: int, corpus, out) -> None:
    join(rank, port)
    rows = slice(2 * rank, 2 * rank + 2)
    found = [tuned(corpus, options, rows) for options in SETTINGS]
    if rank == 0:
        out.put([({k: v.tolist() for k, v in state.items()}, logs) for state, logs in found])
    distributed.stop()


def test_two_processes_tune_as_one_does(corpus):
    context = mp.get_context("spawn")
    out = context.SimpleQueue()
    running = mp.spawn(work, (free_port(), corpus, out), nprocs=2, join=False)
    two = out.get()
    running.join()
    start = build_parts(corpus)[0].state_dict()
    for options, (found, logs) in zip(SETTINGS, two, strict=True):
        alone, expected = tuned(corpus, options, slice(0, 4))
        moved = max(float((alone[k] - start[k]).abs().max()) for k in start)
        assert moved > 1e-3
        for name, value in alone.items():
            torch.testing.assert_close(
                torch.tensor(found[name], dtype=value.dtype), value, atol=1e-5, rtol=1e-5
            )
        for ours, theirs in zip(logs, expected, strict=True):
            for name in ("gradient_norm", *(["baseline"] if "baseline" in theirs else [])):
                torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-4)
