"""`sep separate` for several sounds, many files, containers and other results."""

import json
import os
import shutil
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

from sep import cli, container
from sep.errors import AudioFileError
from sep.filenames import temporary_of


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch, model_dir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEP_MODEL", str(model_dir))


def integers(path) -> np.ndarray:
    return soundfile.read(path, dtype="int32", always_2d=True)[0].astype(np.int64)


def test_several_sounds_and_the_residual_add_up_sample_by_sample(make_wav, capsys):
    make_wav("x.wav", 0.5, 44_100, channels=2)
    texts = ["--text", "a dog", "--text", "Rain!", "--text", "wind"]
    assert cli.main(["separate", "x.wav", *texts, "-o", "out"]) == 0
    names = ["x.a-dog.wav", "x.rain.wav", "x.wind.wav", "x.residual.wav"]
    assert sorted(os.listdir("out")) == sorted(names)
    np.testing.assert_array_equal(sum(integers(f"out/{n}") for n in names), integers("x.wav"))
    line = capsys.readouterr().out
    assert line.count("similarity to the query") == 3 and "Rain!: " in line


def test_remove_writes_everything_but_the_sound(make_wav):
    make_wav("x.wav", 0.5)
    assert cli.main(["separate", "x.wav", "--text", "a dog", "-o", "both"]) == 0
    assert cli.main(["separate", "x.wav", "--text", "a dog", "--remove", "-o", "rest.wav"]) == 0
    np.testing.assert_array_equal(integers("rest.wav"), integers("both/x.residual.wav"))
    assert cli.main(["separate", "x.wav", "--text", "a dog", "--remove"]) == 0
    assert os.listdir("separated") == ["x.residual.wav"]


def test_the_recording_itself_can_be_the_example(make_wav, capsys):
    make_wav("x.wav", 2.0)
    wave, rate = soundfile.read("x.wav")
    soundfile.write("part.wav", wave[rate // 2 : rate], rate)
    stretch = ["--from", "0.5", "--to", "1"]
    assert cli.main(["separate", "x.wav", *stretch, "-o", "self"]) == 0
    assert cli.main(["separate", "x.wav", "--audio", "x.wav", *stretch, "-o", "named"]) == 0
    assert cli.main(["separate", "x.wav", "--audio", "part.wav", "-o", "part"]) == 0
    whole = [integers(f"{folder}/x.target.wav") for folder in ("self", "named", "part")]
    np.testing.assert_array_equal(whole[0], whole[1])
    np.testing.assert_array_equal(whole[0], whole[2])
    capsys.readouterr()
    assert cli.main(["separate", "x.wav", "--from", "9", "-o", "late"]) == 1
    assert "x.wav: lasts 2.000 s, so nothing starts at 9 s" in capsys.readouterr().err
    soundfile.write("quiet.wav", np.zeros(8000), 8000)
    assert cli.main(["separate", "quiet.wav", *stretch, "-o", "none"]) == 1
    assert "error: quiet.wav: audio query: is silent" in capsys.readouterr().err


@pytest.mark.parametrize("launcher", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_processes_give_what_one_gives_and_a_summary_tells(make_wav, capsys, launcher):
    if launcher == "ray":
        pytest.importorskip("ray", reason="Ray is not installed (extra dist)")
    for name in ("in/a.wav", "in/deep/b.wav", "in/c.wav"):
        make_wav(name, 0.3)
    Path("in/broken.wav").write_text("hello")
    command = ["separate", "in", "--text", "a dog", "--summary", "s.json"]
    assert cli.main([*command, "-o", "one"]) == 1
    assert cli.main([*command, "-o", "two", "--jobs", "2", "--launcher", launcher]) == 1
    assert "3 of 4 files done; failed:\n  in/broken.wav" in capsys.readouterr().err
    for name in ("a.target.wav", "deep/b.residual.wav", "c.target.wav"):
        np.testing.assert_array_equal(integers(f"one/{name}"), integers(f"two/{name}"))
    told = json.loads(Path("s.json").read_text())
    assert (told["done"], told["failed"]) == (3, 1)
    by_name = {entry["source"]: entry for entry in told["files"]}
    assert "not a readable recording" in by_name["in/broken.wav"]["error"]
    good = by_name["in/deep/b.wav"]
    assert good["outputs"] == ["two/deep/b.target.wav", "two/deep/b.residual.wav"]
    assert good["sounds"][0]["query"] == "a dog" and -1 <= good["sounds"][0]["similarity"] <= 1


@pytest.mark.parametrize(("kind", "subtype"), [("flac", "PCM_16"), ("ogg", "VORBIS")])
def test_the_format_can_be_chosen(make_wav, kind, subtype):
    make_wav("x.wav", 0.5, 44_100)
    assert cli.main(["separate", "x.wav", "--text", "a dog", "--format", kind]) == 0
    head = soundfile.info(f"separated/x.target.{kind}")
    assert (head.samplerate, head.frames, head.subtype) == (44_100, 22_050, subtype)


KINDS = {"opus": "OPUS", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
KINDS |= dict.fromkeys(("aif", "caf", "w64", "WAV"), "PCM_16")


def test_the_name_of_the_target_says_its_format(make_wav, capsys):
    make_wav("x.wav", 0.2, 48_000)
    for kind, subtype in KINDS.items():
        assert cli.main(["separate", "x.wav", "--text", "a dog", "-o", f"{kind}/x.{kind}"]) == 0
        for name in (f"{kind}/x.{kind}", f"{kind}/x.residual.{kind}"):
            head = soundfile.info(name)
            assert (head.samplerate, head.frames, head.subtype) == (48_000, 9600, subtype)
    make_wav("y.wav", 0.2, 44_100)
    make_wav("z.wav", 0.2, 96_000)
    capsys.readouterr()
    for name, kind, said in (
        ("y", "opus", "Opus has rates of 8000, 12000, 16000, 24000, 48000 Hz, not 44100; use .ogg"),
        ("z", "mp3", "MP3 cannot hold its 96000 Hz or its number of channels (1); use .wav, or"),
    ):
        options = ["--candidates", "9", "--clip", "rescale", "-o", f"out/{name}.{kind}"]
        with pytest.MonkeyPatch.context() as patch:  # nothing is separated before that is known
            patch.setattr("sep.separator.hear", None)
            assert cli.main(["separate", f"{name}.wav", "--text", "a dog", *options]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {name}.wav: out/{name}.{kind}: {said}")
        assert error.count("\n") == 1 and not Path("out").exists()


def test_a_list_names_the_recordings(make_wav):
    make_wav("a.wav", 0.3)
    make_wav("b.wav", 0.3)
    Path("list.txt").write_text("b.wav\n")
    assert cli.main(["separate", "a.wav", "--list", "list.txt", "--text", "a dog"]) == 0
    assert {name[0] for name in os.listdir("separated")} == {"a", "b"}


def test_a_figure_is_drawn_beside_the_sounds(make_wav):
    make_wav("x.wav", 2.0)
    assert cli.main(["separate", "x.wav", "--text", "a dog", "--figure", "f.png"]) == 0
    assert Image.open("f.png").width > 500


def test_a_figure_of_refined_queries_has_their_masks_and_the_first_prior(model_dir, monkeypatch):
    from sep import hub

    torch.manual_seed(0)
    options = {"heads": 2, "head_dim": 4, "token_dim": 8, "hidden": 3}
    model = hub.extend(hub.from_pretrained(model_dir), "prior", **options)
    model.frame_net.weight.data.mul_(30)  # masks turn on what is asked
    hub.save_pretrained(model, "prior", encoder=model_dir / "encoder")
    drawn = []
    monkeypatch.setattr(
        "sep.train.picture.draw_separation",
        lambda path, panels, *_: (drawn.append(panels), path.touch()),
    )
    soundfile.write("x.wav", 0.2 * np.random.default_rng(0).standard_normal(32_000), 16_000)
    command = ["separate", "x.wav", "--from", "0", "--to", "1", "--model", "prior"]
    for options in ([], ["--refine"]):
        out = ["-o", f"out{len(options)}", "--figure", f"{len(options)}.png"]
        assert cli.main([*command, *options, *out]) == 0
    plain, refined = drawn
    first = refined.pop("prior of the mask as asked")
    torch.testing.assert_close(first, plain.pop("prior of the mask"))
    assert (refined["mask"] - plain["mask"]).abs().max() > 0.01
    from sep import audio
    from sep.figure import Pool

    pool = Pool(model.spectrogram, 32_000)
    pool.push(audio.read("out1/x.target.wav")[0][0])
    torch.testing.assert_close(refined["target"], pool.picture(), atol=1e-2, rtol=1e-2)


def test_each_channel_by_itself_is_what_a_file_of_that_channel_gives():
    noise = np.random.default_rng(0).standard_normal((40_000, 2)) * [0.2, 0.05]
    for name, samples in (("both", noise), ("left", noise[:, 0]), ("right", noise[:, 1])):
        soundfile.write(f"{name}.wav", samples, 44_100)
    command = ["separate", "--text", "rain", "-o", "out"]
    assert cli.main([*command, "both.wav", "left.wav", "right.wav", "--each-channel"]) == 0
    together = soundfile.read("out/both.target.wav")[0]
    for channel, name in zip(together.T, ("left", "right"), strict=True):
        one = soundfile.read(f"out/{name}.target.wav")[0]
        np.testing.assert_allclose(channel, one, atol=2**-14)
    both, rest = together, soundfile.read("out/both.residual.wav")[0]
    np.testing.assert_array_equal(both + rest, soundfile.read("both.wav")[0])
    assert cli.main([*command, "both.wav", "--overwrite"]) == 0
    assert np.abs(soundfile.read("out/both.target.wav")[0] - together).max() > 1e-3


def test_video_in_and_video_as_the_example(capsys):
    try:
        program = container.ffmpeg()
    except AudioFileError:
        pytest.skip("ffmpeg is not installed")
    options = "-v error -f lavfi -i testsrc=s=32x24:d=1 -f lavfi -i sine=440:r=44100:d=1 v.mp4"
    subprocess.run([program, *options.split()], check=True)
    assert cli.main(["separate", "v.mp4", "--image", "v.mp4", "--at", "0.5"]) == 0
    parts = [soundfile.read(f"separated/v.{part}.wav")[0] for part in ("target", "residual")]
    from sep import audio

    np.testing.assert_allclose(sum(parts), audio.read("v.mp4")[0][0].numpy(), atol=2e-7)
    assert cli.main(["separate", "v.mp4", "--image", "v.mp4", "--at", "7", "-o", "late"]) == 2
    assert "no picture at 7 s" in capsys.readouterr().err


def test_pictures_summaries_and_models_are_not_written_over(make_wav, model_dir, capsys):
    make_wav("x.wav", 0.3)
    Path("f.png").write_bytes(b"mine")
    Path("s.json").write_text('{"mine": 1}')
    command = ["separate", "x.wav", "--text", "a dog"]
    assert cli.main([*command, "--figure", "f.png"]) == 1
    assert "f.png: exists; use --overwrite" in capsys.readouterr().err
    assert cli.main([*command, "--summary", "s.json"]) == 2
    assert "s.json: exists and is no summary; use --overwrite" in capsys.readouterr().err
    assert Path("f.png").read_bytes() == b"mine" and "mine" in Path("s.json").read_text()
    shutil.copytree(model_dir, "model")
    inside = [*command, "--model", "model", "--overwrite"]
    for option in (["--summary", "model/config.json"], ["-o", "model/encoder"]):
        assert cli.main([*inside, *option]) == 2
        assert "is in the folder of the model" in capsys.readouterr().err
    both = ["--figure", "f.png", "--summary", "s.json"]
    assert cli.main([*command, *both, "--overwrite"]) == 0
    # the same again: results are there, and a summary may follow a summary
    assert cli.main([*command, *both, "--skip-existing"]) == 0
    assert "whatever was asked for then" in capsys.readouterr().out
    Path("f.png").unlink()
    assert cli.main([*command, *both, "--skip-existing"]) == 0
    assert Path("f.png").exists()


def test_a_sound_that_is_not_there_is_named(make_wav, capsys, monkeypatch):
    make_wav("x.wav", 0.5)
    monkeypatch.setattr("sep.commands.verdict.ABSENT_SIMILARITY", 2.0)
    assert cli.main(["separate", "x.wav", "--text", "a dog"]) == 0
    assert "below 2: the sound may not be in the recording" in capsys.readouterr().out
    monkeypatch.setattr("sep.commands.verdict.ABSENT_DB", 100.0)
    assert cli.main(["separate", "x.wav", "--text", "a dog", "--overwrite"]) == 0
    assert "the sound was hardly found (target at " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_processes_and_leaves_no_half_file(tmp_path, number):
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 900)
    for k in range(3):
        soundfile.write(f"{k}.wav", noise, 16_000)
    command = [sys.executable, "-m", "sep.cli", "separate", "0.wav", "1.wav", "2.wav"]
    process = subprocess.Popen(
        [*command, "--text", "a bell", "--jobs", "2"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    begun = time.monotonic()
    while not list(tmp_path.rglob("*.tmp")) and time.monotonic() < begun + 120:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in errors
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.target.wav"))


def test_what_a_killed_run_left_is_removed_by_the_next_and_a_live_one_is_let_be(make_wav):
    make_wav("x.wav", 0.3)
    killed = subprocess.Popen(["sleep", "60"])
    names = ["out/x.target.wav", "out/x.residual.wav", "f.png", "s.json"]
    left = [temporary_of(Path(name), killed.pid) for name in names]
    live = [temporary_of(Path(name), os.getppid()) for name in names]
    Path("out").mkdir()
    for path in (*left, *live):
        path.write_text("half")
    command = ["separate", "x.wav", "--text", "a", "-o", "out", "--overwrite"]
    command += ["--figure", "f.png", "--summary", "s.json"]
    for going_on in (True, False):
        if not going_on:
            killed.kill()
            killed.wait()
        assert cli.main(command) == 0
        assert [path.exists() for path in left] == [going_on] * 4
        assert all(path.read_text() == "half" for path in live)
    assert sorted(os.listdir("out")) == sorted(
        ["x.residual.wav", "x.target.wav", *(path.name for path in live[:2])]
    )


def test_nothing_that_is_read_is_overwritten(make_wav, capsys):
    for name in ("x.wav", "b.wav", "in/x.wav", "in/x.target.wav"):
        make_wav(name, 0.3)
    Image.new("RGB", (32, 32)).save("d.png")
    Path("l.json").write_text("x.wav\n")
    kept = {path: path.read_bytes() for path in Path(".").rglob("*.*") if path.is_file()}
    for arguments in (
        ["x.wav", "--audio", "b.wav", "-o", "b.wav", "--overwrite"],
        ["x.wav", "--text", "a", "--negative", "b.wav", "-o", "b.wav", "--skip-existing"],
        ["x.wav", "--image", "d.png", "--figure", "./d.png"],
        ["in", "--text", "a", "-o", "in", "--overwrite"],
        ["--list", "l.json", "--text", "a", "--summary", "l.json"],
    ):
        assert cli.main(["separate", *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert "is read, and would be overwritten" in error and error.count("\n") == 1
    assert {p: p.read_bytes() for p in Path(".").rglob("*.*") if p.is_file()} == kept


def test_places_that_cannot_be_written_are_refused_before_the_work(make_wav, capsys):
    make_wav("x.wav", 0.3)
    os.makedirs("folder.png")
    os.makedirs("folder.wav")
    for option, name, reason in (
        ("--figure", "x.wav/f.png", "x.wav is not a folder"),
        ("--summary", "x.wav/deep/s.json", "x.wav is not a folder"),
        ("--figure", "folder.png", "folder.png: is a folder"),
    ):
        assert cli.main(["separate", "x.wav", "--text", "a", option, name]) == 2
        assert reason in capsys.readouterr().err and not Path("separated").exists()
    options = ["-o", "out", "--overwrite"]
    os.makedirs("out/x.target.wav")
    assert cli.main(["separate", "x.wav", "--text", "a", *options]) == 1
    assert "out/x.target.wav: is a folder" in capsys.readouterr().err
    for option, name in (("--figure", f"{'n' * 252}.png"), ("--summary", f"{'n' * 251}.json")):
        assert cli.main(["separate", "x.wav", "--text", "a", option, name]) == 2
        assert f"{option} nnn" in (error := capsys.readouterr().err) and "256 bytes" in error
    make_wav(f"{'n' * 246}.wav", 0.3)
    files = ["--figure", f"{'f' * 251}.png", "--summary", f"{'s' * 250}.json", "-o", "long"]
    assert cli.main(["separate", f"{'n' * 246}.wav", "--text", "a", "--text", "b", *files]) == 0
    assert len(os.listdir("long")) == 3 and Path(files[1]).exists() and Path(files[3]).exists()


def test_samples_beyond_full_scale_are_not_cut_off_unasked(make_wav, capsys):
    wave, rate = soundfile.read(make_wav("x.wav", 0.3))
    soundfile.write("loud.wav", 3 * wave / np.abs(wave).max(), rate, "FLOAT")
    command = ["separate", "loud.wav", "--text", "a", "--subtype", "pcm_16"]
    assert cli.main(command) == 1
    assert "loud.wav: peaks at 3, more than PCM_16 holds; use" in capsys.readouterr().err
    assert not Path("separated").exists()
    assert cli.main([*command, "--clip", "rescale"]) == 0


def test_types_that_are_coded_from_integers_end_at_full_scale_too(make_wav, capsys):
    wave, rate = soundfile.read(make_wav("x.wav", 0.3))
    wave = 3 * wave / np.abs(wave).max()
    soundfile.write("loud.wav", wave, rate, "FLOAT")
    command = ["separate", "loud.wav", "--text", "a", "--subtype", "ulaw"]
    assert cli.main(command) == 1
    assert "loud.wav: peaks at 3, more than ULAW holds; use" in capsys.readouterr().err
    assert cli.main([*command, "--clip", "rescale"]) == 0
    parts = [soundfile.read(f"separated/loud.{part}.wav")[0] for part in ("target", "residual")]
    assert np.corrcoef(sum(parts), wave)[0, 1] > 0.99
    for suffix in ("ogg", "mp3"):  # these hold more
        assert cli.main(["separate", "loud.wav", "--text", "a", "--format", suffix]) == 0


def test_types_that_there_are_not_are_refused_before_the_work(make_wav, capsys):
    make_wav("x.wav", 0.3)
    for options, said in (
        (["--subtype", "FOO"], "--subtype FOO: there are PCM_16"),
        (["--subtype", "FLOAT", "--format", "flac"], "--subtype FLOAT: flac has PCM_S8"),
    ):
        assert cli.main(["separate", "x.wav", "--text", "a", *options]) == 2
        assert said in capsys.readouterr().err
    assert not Path("separated").exists()


def test_examples_and_weights_that_say_nothing_are_named(make_wav, capsys):
    for name in ("x.wav", "bark.wav"):
        make_wav(name, 0.3)
    for options, said in (
        (["--audio", "bark.wav", "--from", "0.29"], "bark.wav: --from 0.29 leaves 10 ms of it"),
        (["--text", "a", "--weights", "text=1e308"], "numbers from 0 to 1000"),
        (["--text", "a", "--candidates", "x"], "'x' is not a whole number"),
        (["--text", "a", "--sharpness", "1e308"], "is not from 0.001 to 1000"),
    ):
        try:
            assert cli.main(["separate", "x.wav", *options]) == 2
        except SystemExit as exit:  # of argparse
            assert exit.code == 2
        assert said in capsys.readouterr().err
    assert not Path("separated").exists()


def test_eight_channels_come_back(make_wav):
    make_wav("x.wav", 0.3, 48_000, channels=8)
    assert cli.main(["separate", "x.wav", "--text", "a dog"]) == 0
    parts = [integers(f"separated/x.{part}.wav") for part in ("target", "residual")]
    assert parts[0].shape[1] == 8
    np.testing.assert_array_equal(sum(parts), integers("x.wav"))


@pytest.mark.parametrize("options", ["--subtype pcm_16", "--clip clamp", "--clip rescale"])
def test_sums_are_exact_whatever_the_rule_where_nothing_is_too_loud(make_wav, options):
    make_wav("x.wav", 0.5, 44_100)
    assert cli.main(["separate", "x.wav", "--text", "a dog", *options.split()]) == 0
    parts = [integers(f"separated/x.{part}.wav") for part in ("target", "residual")]
    np.testing.assert_array_equal(sum(parts), integers("x.wav"))
