"""Stage 0 of the published sets through run.sh, where the network is closed: what to put where.

Every request goes to a proxy that nobody listens at.
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from copied import copied

CLOSED = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
FILES = {  # what each recipe asks for, and the option that names it elsewhere
    "music": {"MUSIC21_solo_videos.json": "--list FILE", "test.csv": "--test FILE"},
    "vggsound": {
        "vggsound.csv": "--csv FILE",
        "test-good.csv": "--clean FILE",
        "test-no-music.csv": "--noise FILE",
    },
    "esc50": {"ESC-50-master.zip": "--esc50 DIR"},
    "audiocaps": {"train.csv": "--tables DIR", "val.csv": "", "test.csv": ""},
    "musdb18": {"musdb18hq.zip": "--musdb DIR"},
}


def stage_0(home: Path, name: str) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **CLOSED, "no_proxy": "", "SEP_VENV": "none", "PATH": path}
    return subprocess.run(
        [f"egs/{name}/run.sh", "--stop-stage", "0"], cwd=home, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_stage_0_says_what_to_put_where_and_takes_it(name, tmp_path):
    downloads = copied(tmp_path, name) / "egs" / name / "downloads"
    done = stage_0(tmp_path, name)
    output = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in output
    assert "stage 0 failed" in output
    asked = re.findall(r"put (?:that|the) (?:file|archive) at (\S+?),", output)
    assert asked and all((downloads.parent / place).parent == downloads for place in asked)
    assert {Path(place).name for place in asked} <= FILES[name].keys()
    assert all(f"or give {option}" in output for option in FILES[name].values() if option)
    assert not downloads.exists() or not any(downloads.iterdir())  # nothing half-written

    if name == "musdb18":
        return  # takes all 150 songs
    downloads.mkdir(exist_ok=True)
    for file in FILES[name]:
        if file.endswith(".zip"):
            with zipfile.ZipFile(downloads / file, "w") as archive:
                soundfile.write(tmp_path / "clip.wav", np.zeros(800), 44_100)
                archive.write(tmp_path / "clip.wav", "ESC-50-master/audio/1-1-A-0.wav")
                table = "filename,fold,target,category,esc10,src_file,take\n"
                table += "1-1-A-0.wav,1,0,dog,True,1,A\n"
                archive.writestr("ESC-50-master/meta/esc50.csv", table)
        else:
            (downloads / file).write_text("{}\n")  # stage 1 reads it
    done = stage_0(tmp_path, name)
    assert done.returncode == 0, done.stdout + done.stderr
