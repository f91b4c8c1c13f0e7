"""`sep inspect`, `sep labels` and `sep export`."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from sep import cli, hub


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch, model_dir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEP_MODEL", str(model_dir))


@pytest.fixture
def labelled(model_dir, tmp_path):
    """A model that says what it was trained on."""
    folder = tmp_path / "labelled"
    shutil.copytree(model_dir, folder)
    config = hub.read_config(folder)
    config["provenance"]["labels"] = ["bell", "rain-fall"]
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_labels_are_listed_or_their_absence_told(labelled, model_dir, capsys):
    assert cli.main(["labels", "--model", labelled]) == 0
    assert capsys.readouterr().out == "bell\nrain-fall\n"
    config = json.loads((path := Path(labelled) / "config.json").read_text())
    config["provenance"]["labels"].append("gong")
    config["provenance"]["scores"] = {"bell": [2.5, 3], "gong": [7.04, 2]}
    path.write_text(json.dumps(config))
    assert cli.main(["labels", "--model", labelled]) == 0
    assert capsys.readouterr().out == "gong\t+7.0 dB\t2\nbell\t+2.5 dB\t3\nrain-fall\n"
    config["provenance"]["scores"] = {"bell": "good"}
    path.write_text(json.dumps(config))
    assert cli.main(["labels", "--model", labelled]) == 2
    assert "damaged (its 'scores')" in capsys.readouterr().err
    assert cli.main(["labels"]) == 2
    assert f"{model_dir}: does not say what it was trained on" in capsys.readouterr().err


def test_a_recording_is_described_with_what_is_heard(labelled, make_wav, capsys):
    make_wav("x.wav", 9.0, 44_100, channels=2)
    assert cli.main(["inspect", "x.wav", "--model", labelled]) == 0
    head, level, heading, *stretches = capsys.readouterr().out.splitlines()
    assert head == "x.wav: WAV PCM_16, 44100 Hz, 2 channels, 9.00 s"
    assert "peak " in level and "LUFS, 0 samples at full scale" in level
    assert "cosine" in heading and len(stretches) == 3
    assert all("bell" in s and "rain-fall" in s for s in stretches)
    assert stretches[-1].split(":")[0].split() == ["8.2", "to", "9.0", "s"]


def test_inspecting_goes_on_without_classes_and_after_broken_files(make_wav, capsys):
    make_wav("x.wav", 0.3)
    Path("no.wav").write_text("hello")
    Path("classes.txt").write_text("a dog\nwind\n")
    assert cli.main(["inspect", "no.wav", "x.wav"]) == 1
    shown = capsys.readouterr()
    assert "no.wav: not a readable" in shown.err and "x.wav: WAV" in shown.out
    assert "dBFS, too short for a loudness, 0 samples" in shown.out
    assert "classes not looked for" in shown.out
    assert cli.main(["inspect", "x.wav", "--classes", "classes.txt"]) == 0
    assert "a dog" in capsys.readouterr().out
    assert cli.main(["inspect", "x.wav", "--classes", "gone.txt"]) == 2


@pytest.mark.parametrize(("kind", "name"), [("onnx", "m.onnx"), ("torchscript", "m.pt")])
def test_an_exported_network_gives_the_logits_of_the_model(model_dir, capsys, kind, name):
    if kind == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    folder = [str(model_dir)] if kind == "onnx" else []  # by default that of SEP_MODEL
    assert cli.main(["export", *folder, "--format", kind, "-o", name]) == 0
    assert "within" in capsys.readouterr().out
    assert sorted(path.name for path in Path(".").iterdir()) == [name]
    model = hub.from_pretrained(model_dir)
    model.amp = False
    magnitude, query = torch.rand(3, 513, 391), torch.randn(3, 32)
    with torch.no_grad():
        expected = model.logits(magnitude, query)
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(name)
        inputs = {"magnitude": magnitude.numpy(), "query": query.numpy()}
        found = torch.from_numpy(session.run(None, inputs)[0])
    else:
        found = torch.jit.load(name)(magnitude, query)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_an_export_replaces_nothing_unasked(model_dir, capsys):
    Path("dog.png").write_bytes(b"mine")
    shutil.copytree(model_dir, "model")
    weights = Path("model/model.safetensors").read_bytes()
    for options, said in (
        (["-o", "dog.png"], "end the name in .onnx or .pt, or give --format"),
        (["-o", "dog.png", "--format", "torchscript"], "dog.png: exists; use --overwrite"),
        (["-o", "model/model.safetensors", "--format", "torchscript"], "in the folder of the mod"),
    ):
        assert cli.main(["export", "model", *options]) == 2
        assert said in capsys.readouterr().err
    assert Path("dog.png").read_bytes() == b"mine"
    assert Path("model/model.safetensors").read_bytes() == weights
    for more in ([], ["--overwrite"]):  # the kind is that of the suffix
        assert cli.main(["export", "model", "-o", "m.pt", *more]) == 0
        torch.jit.load("m.pt")


def test_an_export_that_differs_is_not_kept(model_dir, monkeypatch, capsys):
    monkeypatch.setattr("sep.export.TOLERANCE", -1.0)
    command = ["export", str(model_dir), "--format", "torchscript", "-o", "m.pt"]
    assert cli.main(command) == 2
    assert "m.pt: not kept, its logits differ" in capsys.readouterr().err
    assert not list(Path(".").iterdir())


def test_an_export_to_a_bad_place_is_one_line(model_dir, capsys):
    Path("file").touch()
    Path("folder.pt").mkdir()
    for place in ("file/m.pt", "folder.pt"):
        command = ["export", str(model_dir), "--format", "torchscript", "-o", place]
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert f"{place}: cannot be written" in error and error.count("\n") == 1
