"""Jobs done by Ray's workers, on the cores or GPUs of this machine or of a cluster.

Ray is started here and ended with the jobs, unless RAY_ADDRESS names a cluster that runs; all its
machines need this environment, and the same files under the same names. A job says in `outputs`
which files it writes, each under its name only when whole. So whatever ends a worker or the whole
program, `missing` are the jobs to be done still, and no file is lost or written twice.
"""

import functools
import importlib
import os
import shutil
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sep.errors import OptionError, SepError
from sep.filenames import unfinished

LAUNCHERS = ("local", "ray")
TRIES = 3  # of a job whose workers die
STORE = 100 * 2**20  # bytes of Ray's object store, which these jobs hardly use


class Job(Protocol):
    """What can be done: it can be pickled and hashed, and names the files that it writes."""

    @property
    def outputs(self) -> Sequence[Path]: ...


AnyJob = TypeVar("AnyJob", bound=Job)


@dataclass(frozen=True)
class Part:
    """Some of a data set, from `start` on, for what is called `name`, and the files it becomes."""

    name: str
    start: int
    outputs: tuple[Path, ...]


def check(launcher: str) -> None:
    """Refuse a launcher that is unknown, not installed or not there.

    Raises:
        OptionError: names the fix.
    """
    if launcher not in LAUNCHERS:
        raise OptionError(f"launcher '{launcher}' is unknown; use {' or '.join(LAUNCHERS)}")
    if launcher == "ray":
        _ray()
        _reach(os.environ.get("RAY_ADDRESS", ""))


def missing(jobs: Iterable[AnyJob]) -> list[AnyJob]:
    """The jobs that have not written all their files yet."""
    return [job for job in jobs if not all(os.path.exists(path) for path in job.outputs)]


def outcomes(
    jobs: Sequence[AnyJob],
    prepare: Callable[[], Callable[[AnyJob], Any]],
    workers: int = 0,
    gpu: bool = False,
    lost: Callable[[AnyJob], Any] | None = None,
) -> Iterator[tuple[AnyJob, Any]]:
    """Do jobs in any order, and give each with its result as soon as it is known.

    Where a worker dies, another one does its job again, which may find some of its files written.

    Args:
        jobs: what to do.
        prepare: makes what does a job; it is called once a worker and can be pickled.
        workers: how many, 0: as many as there is room for. Each has one core, and a GPU if asked.
        gpu: whether a worker needs one.
        lost: result of a job over which `TRIES` workers died; without it, that is an error.

    Raises:
        OptionError: Ray is not installed or cannot be started, or has no GPU.
        SepError: a job was lost, or workers lack what `prepare` or the jobs are made of.
        Exception: what a job raised.
    """
    if not jobs:
        return
    _clear(jobs)
    ray = _start(workers)
    under_way: dict[Any, tuple[Any, AnyJob]] = {}  # what is awaited: its worker and job
    try:
        slots = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        if not slots:
            raise OptionError("Ray has no GPU here; use device=cpu, or name a cluster: RAY_ADDRESS")
        start = ray.remote(num_cpus=1, num_gpus=int(gpu))(_Worker).remote
        shared = ray.put((prepare, os.getcwd()))
        waiting, deaths = deque(jobs), Counter()

        def give(worker: Any) -> None:
            if waiting:
                job = waiting.popleft()
                under_way[worker.do.remote(job)] = (worker, job)

        for _ in range(min(workers or slots, slots, len(jobs))):
            give(start(shared))
        while under_way:
            (done,), _ = ray.wait(list(under_way), num_returns=1)
            worker, job = under_way[done]
            try:
                result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                if getattr(error, "actor_init_failed", False):
                    reason = str(error).strip().splitlines()[-1].strip()
                    raise SepError(f"Ray's workers cannot begin ({reason})") from None
                ray.kill(worker)
                _clear([job])
                worker = start(shared)
                deaths[job] += 1
                if deaths[job] < TRIES:
                    waiting.appendleft(job)
                    del under_way[done]
                    give(worker)
                    continue
                result = (lost or _lost)(job)
            del under_way[done]
            give(worker)
            yield job, result
    finally:
        ray.shutdown()
        _clear([job for _, job in under_way.values()])


def by_program(file: str, name: str, *arguments: Any) -> Callable[[], Callable[[Any], Any]]:
    """What `outcomes` prepares where it is the class `name` of a program, which is a file."""
    return functools.partial(_made_by, str(Path(file).resolve()), name, arguments)


def _made_by(file: str, name: str, arguments: tuple[Any, ...]) -> Any:
    folder, module = os.path.split(file)
    sys.path.insert(0, folder)
    return getattr(importlib.import_module(module.removesuffix(".py")), name)(*arguments)


def finish(
    jobs: Sequence[AnyJob],
    prepare: Callable[[], Callable[[AnyJob], Any]],
    workers: int,
    gpu: bool,
    say: Callable[[str], None],
) -> None:
    """Do the jobs that are `missing`, and say now and then how many are done."""
    begun = shown = time.monotonic()
    left = missing(jobs)
    if len(left) < len(jobs):
        say(f"{len(jobs) - len(left)} of {len(jobs)} parts were done before")
    for count, _ in enumerate(outcomes(left, prepare, workers, gpu), len(jobs) - len(left) + 1):
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            say(f"{count} of {len(jobs)} parts")
    say(f"{len(left)} parts by Ray's workers in {time.monotonic() - begun:.1f} s")


def stage(folder: Path, sources: Iterable[Path], settings: str) -> None:
    """Keep what a run left in `folder` if it had these settings and source files, else empty it."""
    lines = [settings]
    for path in sorted(sources):
        state = path.stat()
        lines.append(f"{path} {state.st_size} {state.st_mtime_ns}")
    text, key = "\n".join(lines), folder / "made_of"
    if not key.exists() or key.read_text() != text:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        key.write_text(text)


class _Worker:
    """A process of Ray's that does one job after the other on one core."""

    def __init__(self, shared: tuple[Callable[[], Callable[[Job], Any]], str]):
        self.prepare, folder = shared
        self.work: Callable[[Job], Any] | None = None
        os.chdir(folder)

    def do(self, job: Job) -> Any:
        if self.work is None:
            import torch

            torch.set_num_threads(1)
            self.work = self.prepare()
        return self.work(job)


def _lost(job: Job) -> None:
    raise SepError(
        f"{next(iter(job.outputs))}: {TRIES} workers died over it, perhaps for want of memory; "
        "use fewer workers"
    )


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise OptionError(
            "launcher=ray needs the package ray; run: pip install -e '.[dist]'"
        ) from None
    return ray


def _reach(address: str) -> None:
    """Refuse a cluster's host:port, with or without ray://, where nobody answers."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise _unusable(error) from None


def _unusable(error: Exception) -> OptionError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    address = os.environ.get("RAY_ADDRESS")
    where = f"at RAY_ADDRESS={address}" if address else "here"
    return OptionError(f"Ray cannot be used {where} ({reason}); try launcher=local")


def _start(workers: int) -> Any:
    """Ray, started for so many workers or connected to the cluster that RAY_ADDRESS names."""
    ray = _ray()
    cores = workers or len(os.sched_getaffinity(0))
    own = {"address": "local", "num_cpus": cores, "object_store_memory": STORE}
    own["include_dashboard"] = False
    at = {} if os.environ.get("RAY_ADDRESS") else own
    try:
        ray.init(**at, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise _unusable(error) from None
    return ray


def _clear(jobs: Iterable[Job]) -> None:
    """Remove unfinished files of jobs, left by processes that were ended."""
    for path in unfinished(path for job in jobs for path in job.outputs):
        with suppress(OSError):
            path.unlink()
