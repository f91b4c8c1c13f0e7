"""Names of files that are being written, and of those whose names were too long."""

import os
import subprocess

from sep.filenames import clear_dead, shortened, temporary_of


def test_names_that_are_too_long_are_cut_and_stay_apart():
    assert shortened("n" * 244, ".target.wav") == "n" * 244
    for letter in ("n", "犬", "\udcff"):
        names = [shortened(letter * 300 + last, ".a.wav", ".residual.wav") for last in "xy"]
        sizes = [len(os.fsencode(f"{name}.residual.wav")) for name in names]
        assert names[0] != names[1] and all(250 < size <= 255 for size in sizes)


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    ended = subprocess.Popen(["true"])
    ended.wait()
    path, other = tmp_path / "x.wav", tmp_path / "y.wav"
    left = temporary_of(path, ended.pid)
    kept = [temporary_of(path), temporary_of(path, os.getppid())]
    kept += [temporary_of(path, 2**40), temporary_of(other, ended.pid)]
    kept += [left.with_name(f"{left.name}.wav"), tmp_path / ".x.wav.tmp", path]
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        kept.append(temporary_of(path, ended.pid))
    for file in (left, *kept):
        file.touch()
    clear_dead([path, tmp_path / "gone" / "x.wav"])
    assert sorted(tmp_path.iterdir()) == sorted(kept) and len(set(kept)) == 8
