"""Jobs done one after the other or by several processes."""

import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context, parent_process
from typing import Any

from sep.commands.plan import Job
from sep.errors import notice


@dataclass(frozen=True)
class Outcome:
    """How a job went: `done`, `skipped` or `failed`, a line about it, and facts for a summary."""

    job: Job
    status: str
    line: str
    facts: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """What a JSON summary says of the job."""
        names = [] if self.status == "failed" else [str(path) for path in self.job.outputs]
        error = {"error": self.line} if self.status == "failed" else {}
        source = str(self.job.source)
        return {"source": source, "status": self.status, "outputs": names, **error, **self.facts}


def outcomes(
    jobs: Sequence[Job], prepare: Callable[[], Callable[[Job], Outcome]], processes: int = 1
) -> Iterator[Outcome]:
    """Do jobs, and say of each how it went as soon as it is known.

    Where a process dies, the jobs then under way are tried again alone; one that dies again has
    failed, and the rest is done all the same.

    Args:
        jobs: what to do.
        prepare: makes what does a job; it is called once a process and can be pickled.
        processes: how many work at once, each with its share of the processor's threads.
    """
    processes = min(processes, len(jobs))
    if processes == 1:
        work = prepare()
        for job in jobs:
            try:
                outcome = work(job)
            except BaseException:
                _clear([job], {os.getpid()})
                raise
            yield outcome
        return
    waiting = deque(jobs)
    while waiting:
        for job in (yield from _pooled(waiting, prepare, processes)):  # one of these is the cause
            if (yield from _pooled(deque([job]), prepare, 1)):
                yield died(job)


def died(job: Job) -> Outcome:
    """The outcome of a job that every process died of."""
    reason = "its process died, perhaps for want of memory; use fewer --jobs"
    return Outcome(job, "failed", f"{job.source}: {reason}")


def _pooled(
    waiting: deque[Job], prepare: Callable[[], Callable[[Job], Outcome]], processes: int
) -> Generator[Outcome, None, list[Job]]:
    """Do jobs until none waits, or until a process dies; return those then under way."""
    context = get_context("spawn")  # a fork would inherit the locks of torch's threads
    under_way: dict[Future, Job] = {}
    working: set[int] = set()
    try:
        with ProcessPoolExecutor(processes, context, _begin, (prepare, processes)) as pool:
            try:
                while waiting or under_way:
                    while waiting and len(under_way) < processes:
                        future = pool.submit(_do, waiting[0])
                        under_way[future] = waiting.popleft()
                    working |= {child.pid for child in active_children()}
                    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in sorted(done, key=lambda future: future.exception() is not None):
                        outcome = future.result()
                        del under_way[future]
                        yield outcome
            except BrokenProcessPool:
                return list(under_way.values())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in active_children():
                    os.kill(child.pid, signal.SIGINT)
                raise
    finally:
        _clear(list(under_way.values()), working)
    return []


def _clear(jobs: Sequence[Job], processes: set[int]) -> None:
    """Remove unfinished files of processes that were ended before they could do it."""
    from sep.filenames import temporary_of

    for path in (path for job in jobs for path in job.outputs):
        for process in processes:
            with suppress(OSError):
                temporary_of(path, process).unlink()


_process: dict[str, Any] = {"work": None, "busy": False, "stopped": False}  # of a process of a pool


def _begin(prepare: Callable[[], Callable[[Job], Outcome]], processes: int) -> None:
    """Start a process: Ctrl-C ends its present job, which clears up, and the later ones.

    It ends with the process that started it, even where that is killed and cannot tell.
    """

    def follow() -> None:
        parent_process().join()
        os._exit(1)

    def stop(*_: Any) -> None:
        first, _process["stopped"] = not _process["stopped"], True
        if first and _process["busy"]:
            raise KeyboardInterrupt

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, stop)
    warnings.formatwarning = notice
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    _process["work"] = prepare()


def _do(job: Job) -> Outcome:
    if _process["stopped"]:
        return Outcome(job, "failed", "interrupted")
    _process["busy"] = True
    try:
        return _process["work"](job)
    finally:
        _process["busy"] = False
