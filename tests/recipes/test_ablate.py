"""What an ablation does when several jobs need the same run."""

import threading
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sep.errors import OptionError

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def done(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    import ablate

    return ablate.done


def test_a_run_that_two_jobs_need_is_made_once(done, tmp_path):
    own, made, folders = OmegaConf.create({"exp": str(tmp_path), "out": "control/8.0s"}), [], []

    def program(_):
        time.sleep(0.2)
        made.append(1)

    jobs = [threading.Thread(target=lambda: folders.append(done(own, program))) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(made) == 1 and folders == [tmp_path / "control" / "8.0s"] * 3


def test_a_run_that_failed_is_made_again_and_other_settings_are_refused(done, tmp_path):
    own = OmegaConf.create({"exp": str(tmp_path), "out": "base", "steps": 1})

    def fails(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        done(own, fails)
    made = []
    done(own, made.append)
    assert len(made) == 1
    own.steps = 2
    with pytest.raises(OptionError, match="was run with other settings"):
        done(own, made.append)
