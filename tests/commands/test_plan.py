"""Which recordings are found, and that no two results get one name."""

import io
import os
from pathlib import Path

import pytest

from sep.commands.plan import keep_apart, listed, plan, slugs
from sep.errors import SepError


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def targets(*arguments, **options) -> list[str]:
    return [str(path) for job in plan(*arguments, **options) for path in job.targets]


def test_names_never_collide_and_trees_are_kept():
    touch("a/x.wav", "b/x.wav", "b/deep/y.flac")
    jobs = plan(["a/x.wav", "b/x.wav", "b"], "out")
    assert [str(path) for job in jobs for path in job.targets] == [
        "out/x.target.wav",
        "out/x-2.target.wav",
        "out/deep/y.target.flac",
    ]
    assert len({path for job in jobs for path in job.outputs}) == 6


def test_patterns_keep_the_tree_below_their_fixed_part():
    touch("m/a/x.wav", "m/b/c/x.wav", "m/notes.txt")
    assert targets(["m/**/*.wav"], "out") == ["out/a/x.target.wav", "out/b/c/x.target.wav"]
    with pytest.raises(SepError, match="matches no files"):
        plan(["m/*.ogg"], "out")


def test_a_name_with_brackets_that_exists_is_no_pattern():
    touch("x[1].wav")
    assert targets(["x[1].wav"], "out") == ["out/x[1].target.wav"]


def test_results_of_an_earlier_run_are_no_recordings():
    touch("x.wav", "clip.MP4", "separated/x.target.wav")
    assert targets(["."], "separated") == [
        "separated/clip.target.wav",
        "separated/x.target.wav",
    ]


def test_several_sounds_the_residual_alone_and_a_format():
    (job,) = plan(["x.mp3"], "out", ["dog", "rain"], suffix=".flac")
    assert [path.name for path in job.outputs] == ["x.dog.flac", "x.rain.flac", "x.residual.flac"]
    (job,) = plan(["x.mp3"], "out", [])
    assert job.targets == () and job.residual == Path("out/x.residual.wav")
    (job,) = plan(["x.mp3"], "rest.wav", [])
    assert job.outputs == [Path("rest.wav")]
    (job,) = plan(["x.mp3"], "dog.wav", residual=False)
    assert job.outputs == [Path("dog.wav")]


def test_slugs_are_short_plain_and_apart():
    assert slugs(["A dog, barking!", "a dog/barking", "Glocke läutet"]) == [
        "a-dog-barking",
        "a-dog-barking-2",
        "glocke-läutet",
    ]
    assert slugs(["residual", "!?", "..", "../../etc"]) == ["residual-2", "sound", "sound-2", "etc"]
    assert all(len(name.encode()) <= 62 for name in slugs(["x" * 10_000, "犬" * 5_000]))


def test_lists_come_from_a_file_or_the_input(monkeypatch):
    Path("list.txt").write_text("a.wav\n\nb c.wav\n")
    assert listed("list.txt") == ["a.wav", "b c.wav"]
    monkeypatch.setattr("sys.stdin", io.StringIO("d.wav\n"))
    assert listed("-") == ["d.wav"]
    Path("marked.txt").write_text("e.wav\n", encoding="utf-8-sig")
    assert listed("marked.txt") == ["e.wav"]
    Path("nul.txt").write_text("f\0.wav\n")
    with pytest.raises(SepError, match=r"--list nul\.txt: has characters"):
        listed("nul.txt")
    Path("binary").write_bytes(b"\xff\xfe\xfa")
    for name in ("gone.txt", "binary"):
        with pytest.raises(SepError, match=f"--list {name}: cannot be read"):
            listed(name)


def test_a_recording_named_twice_is_done_once_and_no_name_is_none():
    touch("in/a.wav")
    assert targets(["in", "in/*.wav", "in/a.wav"], "out") == ["out/a.target.wav"]
    with pytest.raises(SepError, match="empty name"):
        plan([""], "out")


def test_names_do_not_depend_on_which_recordings_came_first():
    touch("in/a.wav", "in/a.ogg", "in/b.wav")
    first = targets(["in"], "out")
    assert first == ["out/a.ogg.target.wav", "out/a.wav.target.wav", "out/b.target.wav"]
    touch("in/A.mp3")
    assert targets(["in"], "out") == ["out/A.mp3.target.wav", *first]


def test_patterns_leave_results_of_an_earlier_run_out_too():
    touch("x.wav", "separated/x.target.wav")
    assert targets(["**/*.wav"], "separated") == ["separated/x.target.wav"]
    with pytest.raises(SepError, match="matches no files"):
        plan(["**/x.target.wav"], "separated")


def test_results_in_the_place_of_what_is_read_are_refused():
    touch("in/x.wav", "in/x.target.wav", "query.wav")
    with pytest.raises(SepError, match=r"in/x\.target\.wav: is read, and would be overwritten"):
        keep_apart(plan(["in"], "in"), [], [])
    os.symlink("query.wav", "link.wav")
    jobs = plan(["in/x.wav"], "link.wav")
    with pytest.raises(SepError, match=r"query\.wav: is read"):
        keep_apart(jobs, ["query.wav"], [])
    with pytest.raises(SepError, match=r"list\.json: is read"):
        keep_apart(jobs, ["list.json"], ["in/../list.json"])
    keep_apart(jobs, ["words"], ["summary.json"])
    keep_apart(plan(["in/x.wav"], "in/x.wav"), [], [])  # refused by the job itself


def test_long_names_are_cut_alike_for_all_parts_and_told_apart():
    names = [f"{'n' * 245}{k}.wav" for k in range(2)]
    touch(*(f"in/{name}" for name in names), "in/deep/x.wav")
    jobs = plan(["in"], "out", ["dog", "wind"])
    parts = [path.name for job in jobs for path in job.outputs]
    assert len(set(parts)) == 9 and max(len(name) for name in parts) == 255
    again = plan([f"in/{name}" for name in reversed(names)], "out", ["dog", "wind"])
    assert set(again) < set(jobs)
    stems = {name.rsplit(".", 2)[0] for name in parts}
    assert len(stems) == 3 and "x" in stems  # those of one recording begin alike
    (job,) = plan(["in/deep/x.wav"], f"{'o' * 251}.wav")
    assert job.targets == (Path(f"{'o' * 251}.wav"),) and len(job.residual.name) == 255


@pytest.mark.parametrize("out", [f"{'n' * 252}.wav", f"{'犬' * 86}/x.wav", "o" * 256])
def test_names_that_no_file_system_holds_are_refused(out):
    with pytest.raises(SepError, match=r"^-o .{40}\.\.\.: a name of 25\d bytes; use one of 255"):
        plan(["x.wav"], out)
