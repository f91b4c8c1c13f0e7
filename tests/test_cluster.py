"""Jobs by Ray's workers, some of which die."""

import builtins
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sep import cluster
from sep.errors import DataError, OptionError, SepError
from sep.filenames import temporary_of


@dataclass(frozen=True)
class Note:
    """A job that writes its worker's process into each of two files."""

    folder: Path
    name: str

    @property
    def outputs(self) -> list[Path]:
        return [self.folder / f"{self.name}.{part}" for part in (1, 2)]


def prepare():
    """Made once a worker; dies between the files of a job called deadly, once or always."""

    def work(job: Note) -> int:
        if job.name == "wrong":
            raise DataError("wrong.wav: not a recording")
        first, second = job.outputs
        for path in (first, second):
            temporary_of(path).write_text("half")
            if path == second and job.name.startswith("deadly"):
                if "always" in job.name or not (job.folder / "died").exists():
                    (job.folder / "died").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            if not path.exists():
                temporary_of(path).write_text(str(os.getpid()))
                os.replace(temporary_of(path), path)
            temporary_of(path).unlink(missing_ok=True)
        return os.getpid()

    return work


@pytest.fixture
def ray():
    """Ray, with this file's functions sent to the workers, who cannot import it."""
    found = pytest.importorskip("ray", reason="Ray is not installed (extra dist)")
    found.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield found
    found.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_jobs_whose_worker_dies_are_done_by_another_one(ray, tmp_path):
    names = ("a", "deadly", "b", "c", "d")
    jobs = [Note(tmp_path, name) for name in names]
    left = temporary_of(jobs[0].outputs[0], 1)
    left.write_text("half")  # of a process that ended long ago
    assert cluster.missing(jobs) == jobs
    went = list(cluster.outcomes(jobs, prepare, 1))
    assert sorted(job.name for job, _ in went) == sorted(names)  # each exactly once
    found = {job.name: result for job, result in went}
    assert cluster.missing(jobs) == []
    first, second = ((tmp_path / f"deadly.{part}").read_text() for part in (1, 2))
    assert int(second) == found["deadly"] != int(first)  # what the dead one had written is kept
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.slow
def test_a_job_that_kills_every_worker_is_lost_and_named(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "TRIES", 2)
    jobs = [Note(tmp_path, "deadly always"), Note(tmp_path, "b")]
    found = dict(cluster.outcomes(jobs, prepare, 1, lost=lambda job: "lost"))
    assert found[jobs[0]] == "lost" and cluster.missing(jobs) == jobs[:1]
    with pytest.raises(SepError, match=r"deadly always\.1: 2 workers died over it"):
        list(cluster.outcomes(jobs[:1], prepare, 1))


@pytest.mark.slow
def test_what_a_job_raises_comes_through_as_it_is(ray, tmp_path):
    jobs = [Note(tmp_path, "wrong")]
    with pytest.raises(DataError, match=r"^wrong.wav: not a recording$"):
        list(cluster.outcomes(jobs, prepare, 2))
    assert list(tmp_path.iterdir()) == [] and list(cluster.outcomes([], prepare)) == []


def test_what_is_wrong_is_said_in_one_line(monkeypatch):
    with pytest.raises(OptionError, match="launcher 'slurm' is unknown; use local or ray"):
        cluster.check("slurm")
    cluster.check("local")
    known = builtins.__import__

    def without(name, *arguments, **options):
        if name == "ray":
            raise ImportError
        return known(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match=r"needs the package ray; run: .*\[dist\]"):
        cluster.check("ray")


def test_a_cluster_that_is_not_there_is_said_soon(monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed (extra dist)")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        cluster.check("ray")
    for name in (address, f"ray://{address}", "127.0.0.1:99999"):
        monkeypatch.setenv("RAY_ADDRESS", name)
        with pytest.raises(OptionError, match=rf"^Ray cannot be used at RAY_ADDRESS={name} \(.+\)"):
            cluster.check("ray")
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # Ray looks for it itself
    cluster.check("ray")
