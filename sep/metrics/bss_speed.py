"""How much faster the batched BSS Eval is than museval, and how well they agree."""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from sep.metrics import bss
from sep.metrics.bss_torch import bss_eval_many


def by_museval(waves: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, float]:
    """museval's scores of one output: target, interferer, estimate (N,) each."""
    with threadpool_limits(1, "blas"):
        return bss.bss_eval(*waves)


def against_museval(
    clips: int, outputs: int, samples: int, jobs: int, repeats: int, device: torch.device
) -> dict[str, float]:
    """Score `outputs` outputs of each of `clips` mixtures of noise both ways.

    Ours has `jobs` threads, museval as many processes; starting them is not counted.

    Returns:
        Our median `seconds` of `repeats`, `museval_seconds`, their `ratio`, and the `largest_db`
        difference of any score.
    """
    draw = torch.Generator().manual_seed(0)
    sources = torch.randn(clips, 2, 1, samples, generator=draw)
    noise = torch.randn(clips, outputs, 1, samples, generator=draw)
    estimates = sources[:, :1] + 0.3 * sources[:, 1:] + 0.1 * noise
    given, times = (sources.to(device), estimates.to(device)), []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        found = bss_eval_many(*given, jobs)
        times.append(time.perf_counter() - begun)
    single = [
        (*pair.flatten(1).numpy(), estimate[0].numpy())
        for pair, own in zip(sources, estimates, strict=True)
        for estimate in own
    ]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        list(pool.map(by_museval, single[: 2 * jobs]))  # starts and warms all of them
        begun = time.perf_counter()
        expected = list(pool.map(by_museval, single))
        museval_seconds = time.perf_counter() - begun
    seconds = statistics.median(times[1:])  # the first is to warm up
    return {
        "seconds": seconds,
        "museval_seconds": museval_seconds,
        "ratio": museval_seconds / seconds,
        "largest_db": max(
            abs(float(found[name].flatten()[k]) - row[name])
            for k, row in enumerate(expected)
            for name in bss.NAMES
        ),
    }
