"""The settings in conf/ of every recipe fit each other."""

import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).parents[2]
DRAWN = ("samples", "sources", "absent", "gain_db", "speed", "colour_db", "scene")
CONFS = sorted(ROOT.glob("egs/*/conf/*.sh"))


def array(conf: Path, name: str) -> list[str]:
    """What a recipe's run.sh gives a program: an array of a conf file."""
    given = "model=small rl=default exp=exp/main"
    shown = f'for word in "${{{name}[@]}}"; do echo "$word"; done'
    command = ["bash", "-ec", f'{given}; . "$1"; {shown}', "bash", str(conf)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("conf", CONFS, ids=lambda p: f"{p.parts[-3]}-{p.stem}")
def test_the_control_of_rl_draws_the_mixtures_of_rl(conf):
    control = array(conf, "train_conf") + array(conf, "control_conf")
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base=None):
        rl = compose("rl", array(conf, "rl_conf"))
        continued = compose("train", control)
    for name in DRAWN:
        assert continued[name] == rl[name], f"{conf}: {name} is {continued[name]}, not {rl[name]}"


def test_every_recipe_is_looked_at():
    assert {conf.parts[-3] for conf in CONFS} >= {"mini_sounds", "open_sounds", "vggsound"}
    assert len(CONFS) >= 12
