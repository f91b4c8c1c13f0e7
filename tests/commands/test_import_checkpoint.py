"""`sep import-checkpoint`: what it writes, what it leaves alone, and what it refuses."""

from pathlib import Path

import pytest
import torch

from sep import cli, hub
from sep.errors import ModelError
from sep.networks.published import PublishedNet
from sep.separator import Separator


@pytest.fixture(autouse=True)
def checkpoint(tmp_path, monkeypatch):
    """A small checkpoint in the working directory, as DataParallel saves it; its network."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = PublishedNet(width=2, levels=7, mask_channels=4, embed_dim=1024).eval()
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, "best_model.pt")
    return model


def call(*options: str) -> int:
    return cli.main(["import-checkpoint", *options])


def test_a_checkpoint_becomes_a_model_folder(checkpoint, capsys):
    assert call("best_model.pt", "--format", "omnisep", "-o", "models/omnisep") == 0
    assert "queries of 1024 numbers by imagebind" in capsys.readouterr().out
    assert {p.name for p in Path("models").iterdir()} == {"omnisep"}
    config = hub.read_config("models/omnisep")
    assert config["encoder"]["name"] == "imagebind" and config["kind"] == "published"
    assert config["provenance"] == {"imported": "omnisep", "file": "best_model.pt"}
    wave, query = torch.randn(1, 5_000), torch.randn(1, 1024)
    with torch.no_grad():
        expected = checkpoint.separate(wave, query)
        assert torch.equal(hub.from_pretrained("models/omnisep").separate(wave, query), expected)


def test_nothing_is_replaced_unless_asked_and_only_model_folders(capsys):
    Path("notes").mkdir()
    Path("notes/diary.txt").write_text("keep")
    arguments = ("best_model.pt", "--format", "clipsep", "-o")
    assert call(*arguments, "model") == 0
    before = hub.read_config("model")
    for target, options, said in (
        ("model", (), "--overwrite"),
        ("notes", ("--overwrite",), "is no model folder"),
        ("best_model.pt", ("--overwrite",), "is no model folder"),
    ):
        assert call(*arguments, target, *options) == 2
        assert said in capsys.readouterr().err
    assert hub.read_config("model") == before and Path("notes/diary.txt").exists()
    Path("model/inside.pt").write_bytes(Path("best_model.pt").read_bytes())
    assert call("model/inside.pt", "--format", "omnisep", "-o", "model", "--overwrite") == 2
    assert Path("model/inside.pt").exists()
    assert call("best_model.pt", "--format", "omnisep", "-o", "model", "--overwrite") == 0
    assert hub.read_config("model")["provenance"]["imported"] == "omnisep"


def test_a_file_that_cannot_be_used_leaves_nothing(capsys):
    Path("broken.pt").write_bytes(Path("best_model.pt").read_bytes()[:1000])
    for name in ("broken.pt", "gone.pt"):
        assert call(name, "--format", "omnisep", "-o", "model") == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {name}: ") and said.count("\n") == 1
    assert {p.name for p in Path(".").iterdir()} == {"best_model.pt", "broken.pt"}


def test_the_published_encoder_is_found_by_its_name(checkpoint, make_wav):
    """With the encoder that ships, whose published weights are here."""
    from encoders.registry import get

    small = PublishedNet(width=2, levels=7, mask_channels=4, embed_dim=get("small").dim).eval()
    hub.save_pretrained(small, "model", published_encoder="small")
    separator = Separator.from_pretrained("model", "cpu")
    assert separator.encoder.fingerprint == get("small").fingerprint
    made = separator.separate(make_wav(), text="a bell")
    assert made.target.shape == (1, 16_000)


def test_an_encoder_that_is_not_here_is_named(monkeypatch, tmp_path):
    assert call("best_model.pt", "--format", "clipsep", "-o", "clipsep") == 0
    with pytest.raises(ModelError, match=r"clip-vit-b-32, an encoder that the toolkit does not"):
        Separator.from_pretrained("clipsep", "cpu")
    assert call("best_model.pt", "--format", "omnisep", "-o", "omnisep") == 0
    monkeypatch.setenv("IMAGEBIND_WEIGHTS", str(tmp_path / "none.pth"))
    with pytest.raises(ModelError, match=r"its query encoder cannot be loaded: .*none.pth"):
        Separator.from_pretrained("omnisep", "cpu")
