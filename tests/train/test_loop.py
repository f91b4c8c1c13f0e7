"""Training: it learns, resumes exactly, and stops with one line when a loss is not finite."""

import copy
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sep import hub
from sep.errors import ModelError, OptionError, TrainingError
from sep.train.checkpoint import read_state, write_state
from sep.train.log import RunLog, read_log
from sep.train.loop import run
from sep.train.supervised import SupervisedTask, learning_rate

SETTINGS = {"steps": 12, "valid_every": 4, "best_by": "si_sdri", "say": lambda line: None}


def losses(folder):
    return [(s, v) for s, name, v in read_log(folder / "log.csv") if name == "train/loss"]


def test_supervised_training_lowers_the_validation_loss(parts, tmp_path):
    task = SupervisedTask(*parts, lr=1e-2)
    before = task.validate()
    after = run(task, tmp_path / "run", **{**SETTINGS, "steps": 30, "valid_every": 30})
    assert after["loss"] < before["loss"] - 0.02
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"best", "last", "state.pt", "tb"}
    assert (tmp_path / "run" / "pictures" / "000030.png").stat().st_size > 1000
    best = hub.read_config(tmp_path / "run" / "best")["provenance"]
    assert best["si_sdri"] >= after["si_sdri"]


def test_without_a_value_to_choose_by_the_last_model_is_the_best(parts, tmp_path):
    task = SupervisedTask(*parts)
    scores = iter([3.0, 2.0, 1.0, 0.0])
    task.validate = lambda: {"si_sdri": next(scores)}
    run(task, tmp_path, **SETTINGS | {"best_by": None})
    assert hub.read_config(tmp_path / "best")["provenance"]["step"] == 12


def test_a_blend_lies_between_the_start_and_the_trained_weights(parts, tmp_path):
    task = SupervisedTask(*parts, lr=1e-2)
    start = task.model.synth_net.scale.detach().clone()
    run(task, tmp_path, **SETTINGS, blend=0.25)
    end = task.model.synth_net.scale.detach()
    saved = hub.from_pretrained(tmp_path / "last").synth_net.scale.detach()
    assert not torch.equal(start, end)
    torch.testing.assert_close(saved, 0.75 * start + 0.25 * end)


def test_the_running_mean_of_the_weights_is_saved_and_training_goes_on_without_it(parts, tmp_path):
    task = SupervisedTask(*copy.deepcopy(parts), lr=1e-2)
    step_of, scale = task.train_step, task.model.synth_net.scale
    expected, weights = scale.detach().clone(), []

    def kept(step, progress):
        losses = step_of(step, progress)
        weights.append(scale.detach().clone())
        return losses

    task.train_step = kept
    run(task, tmp_path / "mean", **SETTINGS, ema=0.4)
    for count, value in enumerate(weights, 1):  # 1/10, 2/11, ... until .4 is reached by the sixth
        decay = [1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14][count - 1] if count < 6 else 0.4
        expected = decay * expected + (1 - decay) * value
    saved = hub.from_pretrained(tmp_path / "mean" / "last").state_dict()
    torch.testing.assert_close(saved["synth_net.scale"], expected)
    assert (expected - weights[-1]).abs().max() > 1e-4
    run(SupervisedTask(*parts, lr=1e-2), tmp_path / "plain", **SETTINGS)
    assert losses(tmp_path / "mean") == losses(tmp_path / "plain")


def test_a_running_mean_wants_a_decay_between_0_and_1(parts, tmp_path):
    with pytest.raises(OptionError, match=r"ema=1 must be above 0 and below 1"):
        run(SupervisedTask(*parts), tmp_path, **SETTINGS, ema=1)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run's own code may catch it."""


@pytest.mark.parametrize(
    ("stop", "blend", "ema"), [(1, 1, 0), (5, 1, 0.9), (8, 1, 0), (11, 1, 0), (9, 0.5, 0.9)]
)
def test_a_killed_run_goes_on_with_the_same_losses(parts, tmp_path, stop, blend, ema):
    settings = SETTINGS | {"blend": blend, "ema": ema}
    fresh = copy.deepcopy(parts)
    run(SupervisedTask(*copy.deepcopy(parts)), tmp_path / "whole", **settings)
    task = SupervisedTask(*fresh)
    step_of, done = task.train_step, []

    def until_killed(step, progress):
        if len(done) == stop:
            raise Killed
        done.append(step)
        return step_of(step, progress)

    task.train_step = until_killed
    with pytest.raises(Killed):
        run(task, tmp_path / "killed", **settings)
    run(SupervisedTask(*parts), tmp_path / "killed", **settings)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 12
    whole, killed = (
        hub.from_pretrained(tmp_path / name / "last").state_dict() for name in ("whole", "killed")
    )
    assert all(torch.equal(whole[k], killed[k]) for k in whole)


KILLED_RUN = """
import sys, torch
from pathlib import Path
from experiment import build_parts
from sep.train.loop import run
from sep.train.supervised import SupervisedTask

torch.set_num_threads(1)
task = SupervisedTask(*build_parts(Path(sys.argv[1])))
run(task, sys.argv[2], steps=40, valid_every=4, best_by="si_sdri")
"""


def test_a_run_killed_by_sigkill_goes_on_with_the_same_losses(corpus, tmp_path):
    def start(name):
        command = [sys.executable, "-c", KILLED_RUN, str(corpus), str(tmp_path / name)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    assert start("whole").wait() == 0
    process = start("killed")
    while process.poll() is None and not (tmp_path / "killed" / "pictures" / "000012.png").exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert len(losses(tmp_path / "killed")) < 40
    assert start("killed").wait() == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_a_finished_run_does_nothing_more(parts, tmp_path):
    task = SupervisedTask(*parts)
    first = run(task, tmp_path, **SETTINGS)
    task.train_step = None
    assert run(task, tmp_path, **SETTINGS) == first


def test_time_limited_run_stops_and_says_its_seconds(parts, tmp_path):
    values = run(SupervisedTask(*parts), tmp_path, **{**SETTINGS, "steps": 0}, seconds=0.2)
    assert 0.2 <= values["train_seconds"] < 5
    assert hub.read_config(tmp_path / "last")["provenance"]["train_seconds"] > 0


def test_a_loss_that_is_not_finite_stops_with_step_and_checkpoint(parts, tmp_path):
    task = SupervisedTask(*parts)
    step_of = task.train_step
    task.train_step = lambda s, p: step_of(s, p) | ({"loss": math.nan} if s == 5 else {})
    with pytest.raises(TrainingError, match=r"loss is not finite at step 6.*last"):
        run(task, tmp_path, **SETTINGS)
    assert hub.read_config(tmp_path / "last")["provenance"]["step"] == 4


def test_damaged_or_foreign_state_is_refused(tmp_path):
    path = tmp_path / "state.pt"
    write_state(path, {"step": 1, "w": torch.ones(2)})
    assert read_state(path)["w"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="damaged"):
        read_state(path)
    torch.save({"run": print}, path)  # a pickled function must not be loaded
    with pytest.raises(ModelError, match="damaged"):
        read_state(path)


def test_log_drops_steps_that_a_killed_run_left_beyond_its_checkpoint(tmp_path):
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.write(step, {"x": step})
    log.close()
    with open(tmp_path / "log.csv", "a") as file:
        file.write("4,x,0.")  # cut short
    RunLog(tmp_path, step=2).close()
    assert read_log(tmp_path / "log.csv") == [(1, "x", 1.0), (2, "x", 2.0)]


def test_learning_rate_rises_then_falls():
    assert learning_rate(1.0, 0.0, 0.1) < 0.02
    assert learning_rate(1.0, 0.1, 0.1) == pytest.approx(1.0)
    assert learning_rate(1.0, 0.55, 0.1) == pytest.approx(0.51)
    assert learning_rate(1.0, 1.0, 0.1) == pytest.approx(0.02)
