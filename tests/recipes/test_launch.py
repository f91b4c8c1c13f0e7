"""How programs are started: on this machine, by torchrun, and the command lines for Slurm.

There is no Slurm here. `srun` and `scontrol` are stand-ins that note the command line and then
start it once a node, with the variables that Slurm sets; torchrun and what it starts are real.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRUN = """#!/usr/bin/env bash
echo "$*" >>"$NOTED"
while [ "${1#--}" != "$1" ]; do
  [ "$1" != --nodes ] || nodes=$2
  case $1 in *=*) shift ;; *) shift 2 ;; esac
done
export SLURM_JOB_ID=$$ SLURM_STEP_ID=0 SLURM_STEP_NUM_NODES=$nodes
export SLURM_STEP_NODELIST="here[1-$nodes]"
for ((SLURM_NODEID = 0; SLURM_NODEID < nodes; SLURM_NODEID++)); do
  export SLURM_NODEID
  "$@" &
  pids+=($!)
done
for pid in "${pids[@]}"; do
  wait -n || { failed=$?; kill "${pids[@]}" 2>/dev/null; exit $failed; }
done
"""
SCONTROL = '#!/bin/sh\n[ "$*" = "show hostnames here[1-2]" ] && echo localhost && echo elsewhere\n'
PROGRAM = """
import os, sys
if "fail" in sys.argv:
    sys.exit(3)
line = " ".join(sys.argv[1:])
if os.environ.get("WORLD_SIZE", "1") != "1":
    import torch
    from sep.train import distributed
    distributed.start(torch.device("cpu"))
    mean = float(distributed.mean(torch.tensor(float(distributed.rank()))))
    line += f", {distributed.rank()} of {distributed.world()}, mean {mean}"
    distributed.stop()
os.write(1, f"{line}\\n".encode())
"""


@pytest.fixture
def launch(tmp_path):
    """Calls `run` or `train` as a recipe does; returns the process and the noted command lines."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "program.py").write_text(PROGRAM)
    noted = tmp_path / "noted"
    python = Path(sys.executable).parent

    def call(settings, *command, path=f"{tmp_path}:{python}:{os.environ['PATH']}"):
        noted.write_text("")
        script = f"set -eu; root={ROOT} device=cpu ngpu=1 nodes=1 cpus=4 slurm=(); {settings}\n"
        script += f'. {ROOT}/egs/common/launch.sh\n"$@"'
        done = subprocess.run(
            ["/bin/bash", "-c", script, "run.sh", *command], cwd=tmp_path, capture_output=True,
            text=True, check=False, env={**os.environ, "PATH": path, "NOTED": str(noted)},
        )  # fmt: skip
        return done, noted.read_text().splitlines()

    return call


def said(done) -> list[str]:
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def test_one_process_is_plain_python(launch):
    for function in ("run", "train"):
        done, noted = launch("launch=local", function, "program.py", "a b")
        assert said(done) == ["a b"] and noted == []


def test_two_processes_of_one_machine_train_together(launch):
    done, noted = launch("launch=local ngpu=2", "train", "program.py", "a b")
    assert said(done) == [f"a b, {rank} of 2, mean 0.5" for rank in (0, 1)] and noted == []
    assert said(launch("launch=local ngpu=2", "run", "program.py", "one")[0]) == ["one"]


def test_on_slurm_every_program_is_a_step_with_its_cores_and_gpu(launch):
    settings = "launch=slurm device=auto slurm=(--partition gpu)"
    done, noted = launch(settings, "run", "program.py", "tag=x")
    assert said(done) == ["tag=x"]
    step = "--nodes 1 --ntasks 1 --cpus-per-task 4 --gpus-per-node 1 --partition gpu"
    assert noted == [f"{step} python program.py tag=x"]
    assert "gpus" not in launch("launch=slurm", "run", "program.py")[1][0]  # device=cpu


@pytest.mark.slow
def test_two_nodes_of_slurm_meet_and_train_together(launch):
    done, noted = launch("launch=slurm nodes=2 device=cuda", "train", "program.py", "seed=1")
    assert said(done) == [f"seed=1, {rank} of 2, mean 0.5" for rank in (0, 1)]
    step = "--nodes 2 --ntasks-per-node 1 --cpus-per-task 4 --gpus-per-node 1 --kill-on-bad-exit=1"
    assert noted == [f"{step} bash {ROOT}/egs/common/torchrun.sh 1 program.py seed=1"]


def test_a_program_that_fails_fails_its_stage(launch):
    assert launch("launch=slurm", "train", "program.py", "fail")[0].returncode == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("launch=slurm", "launch=slurm in cmd.sh: srun is not on PATH; run this where Slurm is"),
        ("launch=queue", "launch=queue in cmd.sh: takes local or slurm"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(launch, settings, said):
    done, _ = launch(settings, "run", "program.py", path="/nowhere")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {said}")


def test_seeds_are_an_array_job_by_submitit(tmp_path):
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed"
    )
    for name, text in (
        ("srun", "exit 0"),
        ("sbatch", 'cp "$1" "$NOTED"; echo "no queue" >&2; exit 1'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    command = [sys.executable, ROOT / "recipes" / "train.py", "-m", "seed=0,1,2", "out=run_${seed}"]
    command += ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
    command += ["hydra.launcher.gpus_per_node=1", "hydra.launcher.cpus_per_task=16"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    noted = tmp_path / "noted"
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": path, "NOTED": str(noted)},
    )  # fmt: skip
    assert done.returncode != 0 and "no queue" in done.stderr  # the stand-in takes no job
    lines = noted.read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"array=0-2%3", "partition=gpu", "gpus-per-node=1", "cpus-per-task=16"} <= asked
    assert any(line.startswith("srun ") and "submitit.core._submit" in line for line in lines)


def test_every_recipe_chooses_in_its_cmd_sh():
    recipes = [path.parent for path in ROOT.glob("egs/*/run.sh")]
    assert len(recipes) > 6
    for recipe in recipes:
        script = f"cd {recipe}; . ./path.sh; . ./cmd.sh; type run train"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "torchrun.sh" in done.stdout
