"""Jobs by several processes, some of which die."""

import os
import signal
from pathlib import Path

from sep.audio import temporary_of
from sep.commands.plan import Job
from sep.commands.pool import Outcome, outcomes


def fragile():
    """What does a job, but dies of one whose name says so."""

    def work(job: Job) -> Outcome:
        if "deadly" in job.source.name:
            for path in job.outputs:
                temporary_of(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(job, "done", "")

    return work


def test_a_process_that_dies_fails_its_job_alone_and_leaves_no_half_file(tmp_path):
    names = ("a.wav", "deadly.wav", "b.wav", "deadly-2.wav", "c.wav")
    jobs = [Job(Path(name), (), tmp_path / name) for name in names]
    went = {str(outcome.job.source): outcome for outcome in outcomes(jobs, fragile, 2)}
    assert {name: outcome.status for name, outcome in went.items()} == {
        name: "failed" if "deadly" in name else "done" for name in names
    }
    assert "deadly.wav: its process died, perhaps for want of memory" in went["deadly.wav"].line
    assert not list(tmp_path.iterdir())
