"""Jobs by several processes, some of which die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sep.commands.plan import Job
from sep.commands.pool import Outcome, outcomes
from sep.filenames import temporary_of

ENDLESS = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sep.commands.plan import Job
from sep.commands.pool import outcomes

def work(job):
    job.residual.write_text(str(os.getpid()))
    time.sleep(600)

def prepare():
    return work

if __name__ == "__main__":
    list(outcomes([Job(Path(name), (), Path(name)) for name in "ab"], prepare, 2))
"""


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


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_processes_end_with_the_one_that_started_them_even_where_it_is_killed(tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, "endless.py", str(Path(__file__).parents[2])]
    started, begun, working = subprocess.Popen(command, cwd=tmp_path), time.monotonic(), []
    while len(working) < 2 and time.monotonic() < begun + 60:
        time.sleep(0.05)
        written = (path.read_text() for path in (tmp_path / "a", tmp_path / "b") if path.exists())
        working = [int(text) for text in written if text]
    started.kill()
    started.wait()
    begun = time.monotonic()
    while any(map(lives, working)) and time.monotonic() < begun + 10:
        time.sleep(0.05)
    left = [process for process in working if lives(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert len(working) == 2 and not left
