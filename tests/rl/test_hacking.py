"""Training stops when the reward and what it stands for part."""

import pytest

from sep import hub
from sep.rl.hacking import Watch
from sep.train.loop import run
from sep.train.supervised import SupervisedTask

START = {"similarity": 0.30, "held_out": 0.20, "si_sdri": 4.0, "level_db": -3.0, "loss": 0.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"similarity": 0.32, "held_out": 0.19},
            "rose by 0.020 while the held-out judge's fell by",
        ),
        ({"similarity": 0.32, "si_sdri": 3.4}, "SI-SDR improvement fell by 0.60 dB"),
        ({"similarity": 0.32, "level_db": -6.5}, "level changed by -3.5 dB"),
        ({"similarity": 0.32, "held_out": 0.196, "si_sdri": 3.6, "level_db": -5.5}, None),
        ({"similarity": 0.30, "held_out": 0.10}, None),  # no reward was won by it
    ],
)
def test_what_counts_as_parting(change, said):
    reason = Watch()(START, START | change)
    assert reason is None if said is None else said in reason


def test_a_run_that_parts_stops_and_keeps_the_model_from_before(parts, tmp_path):
    task = SupervisedTask(*parts)
    found = iter([START, START | {"similarity": 0.31}, START | {"similarity": 0.4, "si_sdri": 1.0}])
    task.validate = lambda: next(found)
    lines = []
    values = run(
        task, tmp_path / "run", steps=50, valid_every=2, best_by=None, watch=Watch(),
        say=lines.append,
    )  # fmt: skip
    assert values["steps"] == 4
    assert any("stopped at step 4: the reward's similarity rose by 0.100" in x for x in lines)
    assert hub.read_config(tmp_path / "run" / "best")["provenance"]["step"] == 2
    assert hub.read_config(tmp_path / "run" / "last")["provenance"]["step"] == 4
