"""The `sep` command as its users meet it: files, messages, exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from sep import cli


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch, model_dir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEP_MODEL", str(model_dir))


def integers(path) -> np.ndarray:
    return soundfile.read(path, dtype="int32", always_2d=True)[0].astype(np.int64)


def test_target_and_residual_keep_the_form_and_add_up_sample_by_sample(make_wav, capsys, tmp_path):
    for subtype in ("PCM_U8", "PCM_16", "PCM_24"):
        source = make_wav(f"{subtype}.wav", 0.4, 44_100, channels=2, subtype=subtype)
        assert cli.main(["separate", str(source), "--text", "a bell", "-o", "out"]) == 0
        target = tmp_path / "out" / f"{subtype}.target.wav"
        residual = tmp_path / "out" / f"{subtype}.residual.wav"
        np.testing.assert_array_equal(integers(target) + integers(residual), integers(source))
        for path in (target, residual):
            head = soundfile.info(path)
            assert (head.samplerate, head.channels, head.subtype) == (44_100, 2, subtype)
    out = capsys.readouterr().out
    assert "similarity to the query: mixture" in out and "took" in out


def test_float_and_flac_recordings_keep_their_form_too(make_wav, tmp_path):
    source = make_wav("x.wav", 0.3, 11_025, subtype="FLOAT")
    soundfile.write(tmp_path / "y.flac", soundfile.read(source)[0], 11_025, "PCM_16")
    soundfile.write(tmp_path / "z.ogg", soundfile.read(source)[0], 11_025)
    assert cli.main(["separate", "x.wav", "y.flac", "z.ogg", "--text", "a bell"]) == 0
    forms = [("x", "x.wav", ".wav", "FLOAT"), ("y", "y.flac", ".flac", "PCM_16")]
    for stem, source, suffix, subtype in [*forms, ("z", "z.ogg", ".wav", "FLOAT")]:
        parts = [f"separated/{stem}.{part}{suffix}" for part in ("target", "residual")]
        assert {soundfile.info(part).subtype for part in parts} == {subtype}
        total = sum(soundfile.read(part)[0] for part in parts)
        np.testing.assert_allclose(total, soundfile.read(source)[0], atol=2**-23)


@pytest.mark.parametrize(("rate", "frames"), [(8000, 1), (48_000, 100), (11_025, 5001)])
def test_short_and_odd_recordings_keep_their_length(make_wav, rate, frames):
    make_wav("x.wav", rate=rate, frames=frames)
    assert cli.main(["separate", "x.wav", "--text", "a bell", "-o", "one.wav"]) == 0
    for name in ("one.wav", "one.residual.wav"):
        assert soundfile.info(name).frames == frames and soundfile.info(name).samplerate == rate


def test_every_kind_of_query_and_its_options(make_wav, tmp_path):
    make_wav("x.wav")
    make_wav("bark.wav", 0.5, 44_100)
    Image.new("RGB", (32, 32), (10, 90, 10)).save("tree.png")
    options = ["--text", "a dog", "--audio", "bark.wav", "--image", "tree.png"]
    options += [
        "--audio",
        "x.wav",
        "--sharpness",
        "1.5",
        "--negative",
        "rain",
        "--negative",
        "tree.png",
    ]
    options += ["--weights", "text=2,audio=0.5,negative=0.3", "--candidates", "2"]
    options += ["--refine"]
    options += ["--no-residual", "--subtype", "PCM_24", "--clip", "rescale", "--device", "cpu"]
    assert cli.main(["separate", "x.wav", *options, "-o", "out"]) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x.target.wav"]
    assert soundfile.info("out/x.target.wav").subtype == "PCM_24"


def test_a_silent_recording_gives_silence(tmp_path, capsys):
    soundfile.write("x.wav", np.zeros((9000, 2)), 44_100)
    assert cli.main(["separate", "x.wav", "--text", "a bell"]) == 0
    assert not integers("separated/x.target.wav").any()
    assert "silent" in capsys.readouterr().out


def test_broken_files_are_named_and_the_rest_is_done(make_wav, capsys, tmp_path):
    make_wav("good.wav", 0.3)
    make_wav("also.wav", 0.3)
    soundfile.write("nan.wav", np.array([0.0, np.nan]), 16_000, "FLOAT")
    (tmp_path / "text.wav").write_text("hello")
    inputs = ["good.wav", "nan.wav", "text.wav", "gone.wav", "also.wav"]
    assert cli.main(["separate", *inputs, "--text", "a bell"]) == 1
    errors = capsys.readouterr().err
    for name, reason in (("nan", "NaN"), ("text", "not a readable"), ("gone", "no such file")):
        assert f"error: {name}.wav: " in errors and reason in errors
    assert "2 of 5 files done" in errors and "Traceback" not in errors
    assert sorted(p.name for p in (tmp_path / "separated").iterdir()) == [
        f"{name}.{part}.wav" for name in ("also", "good") for part in ("residual", "target")
    ]


def test_existing_results_are_kept_skipped_or_replaced_as_asked(make_wav, capsys):
    make_wav("x.wav", 0.3)
    command = ["separate", "x.wav", "--text", "a bell", "-o", "out"]
    assert cli.main(command) == 0
    first = os.stat("out/x.target.wav").st_mtime_ns
    assert cli.main(command) == 1
    assert "use --overwrite or --skip-existing" in capsys.readouterr().err
    assert cli.main([*command, "--skip-existing"]) == 0
    assert os.stat("out/x.target.wav").st_mtime_ns == first
    assert cli.main([*command, "--overwrite"]) == 0
    assert os.stat("out/x.target.wav").st_mtime_ns != first
    before = integers("x.wav")
    assert cli.main([*command[:-1], "x.wav", "--overwrite"]) == 1
    assert "overwritten by its own result" in capsys.readouterr().err
    np.testing.assert_array_equal(integers("x.wav"), before)


def test_wrong_usage_is_one_line_and_exit_2(make_wav, capsys, tmp_path):
    make_wav("x.wav", 0.3)
    make_wav("short.wav", frames=100)
    (tmp_path / "no.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    faults = [
        (["x.wav"], "give --text, --audio, --image"),
        (["x.wav", "--text", ""], "text query is empty|give --text"),
        (["x.wav", "--image", "no.png"], "no.png"),
        (["x.wav", "--image", "gone.png"], "gone.png"),
        (["x.wav", "--audio", "short.wav"], "short.wav: lasts"),
        (["x.wav", "--audio", "gone.wav"], "gone.wav: no such file"),
        (["x.wav", "--text", "a", "--negative", "gone.mp4"], "gone.mp4: no such file"),
        (["x.wav", "--text", "a", "--model", "gone"], "gone: no such model folder"),
        (["x.wav", "--text", "a", "--device", "abacus"], "device 'abacus' is unknown"),
        (["x.wav", "short.wav", "--text", "a", "-o", "one.wav"], "name a folder"),
        (["empty", "--text", "a"], "empty: no recordings"),
        (["x.wav", "--text", "a", "-o", "one.m4a"], "-o one.m4a: .m4a files are not written; use"),
        (["x.wav", "--text", "a", "-o", "one.ape"], "-o one.ape: .ape files are not written; use"),
        (["none*.wav", "--text", "a"], "matches no files"),
        (["--text", "a"], "no recordings given"),
        (["--list", "gone.txt", "--text", "a"], "--list gone.txt: cannot be read"),
        (["x.wav", "--text", "a", "--text", "b", "-o", "one.wav"], "2 sounds; name a folder"),
        (["x.wav", "--text", "a", "--text", " a"], "given twice"),
        (["x.wav", "--text", "a", "--text", "b", "--audio", "x.wav"], "several sounds"),
        (["x.wav", "--from", "2", "--to", "1"], "--to 1 is not after --from 2"),
        (["x.wav", "--audio", "x.wav", "--audio", "x.wav", "--to", "1"], "give one --audio"),
        (["x.wav", "--text", "a", "--at", "1"], "--at chooses the frame of a video"),
        (["x.wav", "--text", "a", "--remove", "--no-residual"], "--remove writes only"),
        (["x.wav", "--text", "a", "--format", "ogg", "-o", "one.wav"], "not of the --format ogg"),
        (["x.wav", "--text", "a", "--figure", "x.wav"], "end the name in .png"),
        (["x.wav", "--text", "a", "--summary", "x.wav"], "end the name in .json"),
        (["x.wav", "short.wav", "--text", "a", "--figure", "x.png"], "one recording, not 2"),
    ]
    for arguments, reason in faults:
        assert cli.main(["separate", *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        assert any(part in error for part in reason.split("|")), error
    assert not (tmp_path / "separated").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sing"],
        ["separate", "x.wav", "--text", "a", "--loudly"],
        ["separate", "x.wav", "--from", "-1"],
        ["separate", "x.wav", "--text", "a", "--sharpness", "0"],
        ["separate", "x.wav", "--text", "a", "--jobs", "0"],
        ["separate", "x.wav", "--text", "a", "--format", "midi"],
        ["separate", "x.wav", "--text", "a", "--weights", "text"],
        ["separate", "x.wav", "--text", "a", "--weights", "smell=1"],
        ["separate", "x.wav", "--text", "a", "--candidates", "0"],
        ["separate", "x.wav", "--text", "a", "--candidates", "17"],
        ["separate", "x.wav", "--text", "a", "--overwrite", "--skip-existing"],
    ],
)
def test_the_parser_refuses_with_exit_2(arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_without_a_model_the_way_to_one_is_told(make_wav, monkeypatch, capsys):
    make_wav("x.wav", 0.3)
    monkeypatch.delenv("SEP_MODEL")
    monkeypatch.setattr("sep.separator.SHIPPED", Path("nowhere"))
    assert cli.main(["separate", "x.wav", "--text", "a bell"]) == 2
    assert "nowhere: no such model folder; train one or pass --model" in capsys.readouterr().err


def test_scores_of_a_folder(make_wav, capsys, tmp_path):
    for name in ("ref/x.wav", "est/x.wav", "mix/x.wav"):
        make_wav(name, 1.0)
    wave, rate = soundfile.read("ref/x.wav")
    hum = 0.05 * np.sin(np.arange(len(wave)))
    soundfile.write("est/x.wav", wave + 0.1 * hum, rate, "FLOAT")
    soundfile.write("mix/x.wav", wave + hum, rate, "FLOAT")
    assert cli.main(["score", "ref", "est", "--mixture", "mix", "--out", "scores.csv"]) == 0
    out = capsys.readouterr().out
    assert "SI-SDRi dB" in out and "20.0" in out  # a tenth of the amplitude is 20 dB less
    assert (tmp_path / "scores.csv").read_text().startswith("id,")
    assert cli.main(["score", "gone", "est"]) == 2
    assert "gone" in capsys.readouterr().err


def test_folders_are_scored_in_windows_and_against_each_other(make_wav, capsys):
    for k in range(6):  # two systems, the second with twice the hum and as much more as k
        for folder in ("ref", "est", "other", "mix"):
            make_wav(f"{folder}/{k}.wav", 1.0)
        wave, rate = soundfile.read(f"ref/{k}.wav")
        hum = 0.05 * np.sin(np.arange(len(wave)))
        for folder, gain in (("est", 0.1), ("other", 0.2 + 0.01 * k), ("mix", 1)):
            soundfile.write(f"{folder}/{k}.wav", wave + gain * hum, rate, "FLOAT")
    score = ["score", "ref", "est", "--mixture", "mix"]
    assert cli.main([*score, "--against", "other", "--window", "0.5", "--hop", "0.25"]) == 0
    out = capsys.readouterr().out
    # 6 and more dB in all six: exact two-sided p of Wilcoxon's test is 2 / 2^6
    row = next(x for x in out.splitlines() if x.startswith("| SDR (images) dB | +"))
    assert "| estimates - others | difference |" in out
    assert row.endswith("| 100 % | 0.031 |") and float(row.split("+")[1].split()[0]) > 6
    for wrong, said in (
        ([*score, "--hop", "1"], "give --window too"),
        (["score", "ref", "est", "--window", "1"], "give --mixture"),
        ([*score, "--window", "0"], "both must be 1 or more"),
    ):
        assert cli.main(wrong) == 2
        assert said in capsys.readouterr().err


def test_faults_of_the_system_are_one_line(make_wav, monkeypatch, capsys):
    def fail(*_):
        raise OSError(28, "No space left on device", "x.npz")

    monkeypatch.setattr("sep.hub.labels", fail)
    assert cli.main(["labels"]) == 2
    assert capsys.readouterr().err == "error: x.npz: No space left on device\n"


def test_memory_that_runs_out_is_one_line(make_wav, monkeypatch, capsys):
    make_wav("x.wav", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr("sep.stream.Meter.push", lambda *_: torch.empty(2**60))
        assert cli.main(["separate", "x.wav", "--text", "a bell"]) == 1
        assert capsys.readouterr().err.startswith("error: x.wav: memory ran out; free some")
        patch.setattr("sep.hub.from_pretrained", lambda *_: torch.empty(2**60))
        assert cli.main(["separate", "x.wav", "--text", "a bell"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not Path("separated/x.target.wav").exists()


def test_a_reader_that_has_gone_is_no_fault(make_wav, model_dir):
    make_wav("x.wav", 0.2)
    program = f"{sys.executable} -m sep.cli inspect x.wav x.wav | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1 and not done.stderr


def test_help_answers_before_anything_heavy_is_imported():
    program = "import sys, sep.cli; sep.cli.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_text_query_loads_nothing_slow_and_its_tower_only_the_first_time(make_wav):
    make_wav("x.wav", 0.3)
    slow = {"timm", "torchvision", "transformers", "torch._dynamo", "sympy", "matplotlib", "scipy"}
    program = "import sys; from sep.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", program, "separate", "x.wav", "--overwrite"]
    for first in (True, False):
        done = subprocess.run(
            [*command, "--text", "a bell at start-up"], capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.split())
        assert "torch" in loaded and not slow & loaded
        assert ("tokenizers" in loaded) == first


@pytest.mark.parametrize("given, policy", [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_environment_says_otherwise(given, policy):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    program = "import sys, os, sep; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == [policy, "False"]


def test_a_text_of_ten_thousand_characters_is_one_notice(make_wav, capsys):
    make_wav("x.wav", 0.3)
    with pytest.warns(UserWarning, match="'bark bark .*only the first") as said:
        assert cli.main(["separate", "x.wav", "--text", "bark " * 2000]) == 0
    assert len(said) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_no_half_file(tmp_path, number):
    soundfile.write(
        "long.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000 * 1800), 16_000
    )
    command = [sys.executable, "-m", "sep.cli", "separate", "long.wav", "--text", "a bell"]
    root = Path(cli.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # ignored under nohup, &
    )
    begun = time.monotonic()
    while not list(tmp_path.rglob("*.tmp")) and time.monotonic() < begun + 60:
        time.sleep(0.01)  # until it writes
    assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (
        process.returncode == 128 + number and "interrupted" in errors and "Traceback" not in errors
    )
    assert not list((tmp_path).rglob("*.tmp")) and not list(tmp_path.rglob("*.target.wav"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read on Linux")
def test_memory_of_the_shipped_model_does_not_grow_with_the_recording(tmp_path, monkeypatch):
    monkeypatch.delenv("SEP_MODEL")
    noise, peaks = 0.1 * np.random.default_rng(0).standard_normal((60 * 44_100, 2)), []
    program = (  # not ru_maxrss, which starts from what the parent had
        "import sys; from sep import cli; code = cli.main(sys.argv[1:]); "
        "peak = next(x for x in open('/proc/self/status') if x.startswith('VmHWM')); "
        "print(peak.split()[1]); sys.exit(code)"
    )
    for minutes in (1, 60):
        with soundfile.SoundFile("x.wav", "w", 44_100, 2) as file:
            for _ in range(minutes):
                file.write(noise)
        command = [sys.executable, "-c", program, "separate", "x.wav", "--text", "a bell"]
        done = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, check=True)
        assert soundfile.info("separated/x.target.wav").frames == minutes * len(noise)
        peaks.append(int(done.stdout.split()[-1]) / 1000)  # MB
    for path in tmp_path.rglob("*.wav"):  # 2 GB
        path.unlink()
    assert peaks[1] < min(peaks[0] + 200, 1200), peaks
