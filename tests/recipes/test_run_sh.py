"""run.sh: options, help, stages that are skipped, run again, interrupted or failed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "egs" / "mini_sounds" / "run.sh"

# a recipe of three stages whose commands append to a file
TOY = r"""#!/usr/bin/env bash
set -euo pipefail
args=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0         # first stage to run
stop_stage=2    # last stage to run
tag=main        # name of the run
broken=false    # whether stage 1 fails
slow=false      # whether stage 1 waits
dir_name="a b"  # a value with a space
. common/parse_options.sh "$@"

logs=exp/$tag/log
key="broken=$broken"
. common/stages.sh

one() {
  echo one >>ran
  $slow && { echo waiting; sleep 30; }
  if $broken; then
    false
    echo "not reached"
  fi
  mkdir -p "exp/$tag"
  echo model >>"exp/$tag/model"
}

done=exp/$tag/.done
run_stage 0 "begin" $done/0 "" eval "echo zero >>ran"
run_stage 1 "middle" $done/1 "exp/$tag/model" one
run_stage 2 "end" $done/2 "" eval "echo two >>ran; echo 'dir: $dir_name'"
"""


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "common").symlink_to(ROOT / "egs" / "common")
    (tmp_path / "run.sh").write_text(TOY)
    (tmp_path / "run.sh").chmod(0o755)
    return tmp_path


def call(script, *arguments, cwd="/"):
    command = ["bash", str(script), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def ran(toy):
    """Which stages have run since the last look."""
    file = toy / "ran"
    names = file.read_text().split() if file.exists() else []
    file.write_text("")
    return names


def test_help_lists_every_option_with_its_default():
    done = call(RUN, "--help")
    assert done.returncode == 0
    for name, default in [
        ("stage", "0"), ("stop-stage", "7"), ("tag", "main"), ("device", "auto"), ("ngpu", "1"),
        ("nj", "2"), ("full", "false"), ("sounds", "none"), ("seed", "0"), ("model", "small"),
        ("rl", "default"), ("debug", "false"),
    ]:  # fmt: skip
        lines = [x for x in done.stdout.splitlines() if x.split()[:1] == [f"--{name}"]]
        assert len(lines) == 1 and lines[0].endswith(f"({default})")
    assert "--stage N" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--colour", "red"], "unknown option --colour"),
        (["--path", "x"], "unknown option --path"),
        (["--nj"], "--nj needs a value"),
        (["--tag", "--full"], "--tag needs a value"),
        (["--nj", "many"], "--nj takes a whole number, not many"),
        (["--full=perhaps"], "--full takes true or false, not perhaps"),
        (["main"], "main is not an option"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(arguments, said):
    done = call(RUN, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {said}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--dir-name", "c d"], ["--dir_name=c d"]])
def test_options_reach_their_variables(toy, arguments):
    assert "dir: c d" in call(toy / "run.sh", *arguments).stdout


def test_a_default_may_hold_a_space(toy):
    assert "dir: a b" in call(toy / "run.sh").stdout
    assert "(a b)" in call(toy / "run.sh", "--help").stdout


def test_finished_stages_are_skipped(toy):
    assert call(toy / "run.sh").returncode == 0
    assert ran(toy) == ["zero", "one", "two"]
    done = call(toy / "run.sh")
    assert ran(toy) == [] and done.stdout.count("done before, skipped") == 3
    assert "stage 1: middle" in call(toy / "run.sh", "--tag", "other").stdout
    assert (toy / "exp" / "other" / "log" / "2.log").read_text() == "dir: a b\n"


def test_stop_stage(toy):
    call(toy / "run.sh", "--stop-stage", "0")
    assert ran(toy) == ["zero"]
    call(toy / "run.sh", "--stop-stage", "1")
    assert ran(toy) == ["one"]


def test_an_explicit_stage_runs_again_with_those_after_it(toy):
    call(toy / "run.sh")
    ran(toy)
    call(toy / "run.sh", "--stage", "1")
    assert ran(toy) == ["one", "two"]
    assert (toy / "exp/main/model").read_text() == "model\n"  # the old result was removed
    call(toy / "run.sh", "--stage", "0", "--stop-stage", "0")
    assert ran(toy) == ["zero"]


def test_other_options_for_a_finished_stage_are_refused(toy):
    call(toy / "run.sh", "--stop-stage", "1")
    ran(toy)
    done = call(toy / "run.sh", "--broken")
    assert done.returncode == 2 and ran(toy) == []
    assert "give another --tag, or --stage 0" in done.stderr


def test_a_failed_stage_names_its_log_and_how_to_go_on(toy):
    done = call(toy / "run.sh", "--broken", "--stage=0", "--dir-name", "c d")
    assert done.returncode == 1 and "not reached" not in done.stdout
    assert "stage 1 failed (exit code 1): read exp/main/log/1.log" in done.stdout
    assert done.stdout.rstrip().endswith(r"run.sh --broken --dir-name c\ d")
    assert ran(toy) == ["zero", "one"]
    assert not (toy / "exp/main/.done/1").exists()


def test_ctrl_c_leaves_no_marker_and_the_next_run_goes_on(toy):
    command = ["bash", str(toy / "run.sh"), "--slow"]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored under nohup, &
    )
    log = toy / "exp/main/log/1.log"
    for _ in range(200):
        if log.exists() and "waiting" in log.read_text():
            break
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole group
    said, _ = run.communicate(timeout=10)
    assert run.returncode == 130 and "interrupted in stage 1" in said
    assert (toy / "exp/main/.done/0").exists() and not (toy / "exp/main/.done/1").exists()
    ran(toy)
    assert call(toy / "run.sh").returncode == 0
    assert ran(toy) == ["one", "two"]


def test_set_up_names_what_is_missing(tmp_path):
    script = f"set -eu; . {ROOT}/egs/common/env.sh; echo passed"
    clean = {"PATH": "/usr/bin:/bin", "SEP_VENV": str(tmp_path / "venv")}

    def source(**variables):
        return subprocess.run(
            ["bash", "-c", script], env={**clean, **variables}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    done = source(SEP_PYTHON="no-such-python")
    assert done.returncode == 1 and "Debian package python3" in done.stderr
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\necho Python 3.11.0\n')
    old.chmod(0o755)
    done = source(SEP_PYTHON=str(old))
    assert done.returncode == 1 and "python3-venv" in done.stderr
    done = source(SEP_VENV="none", PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin")
    assert done.stdout == "passed\n"
    (tmp_path / "python").symlink_to("/bin/false")
    done = source(SEP_VENV="none", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 1 and "pip install -e" in done.stderr


@pytest.mark.parametrize("program", sorted(p.name for p in (ROOT / "recipes").glob("*.py")))
def test_ctrl_c_is_quiet_while_a_program_still_imports(program):
    process = subprocess.Popen(
        [sys.executable, ROOT / "recipes" / program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored under nohup, &
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch" not in maps.read_text():  # in the import of torch
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode in (-signal.SIGINT, 130)
    assert errors == ""
