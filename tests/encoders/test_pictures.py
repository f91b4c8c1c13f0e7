"""Adapters of the picture backbone, and how they learn."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open

from encoders import lite0, lowrank
from encoders.base import EncoderError
from encoders.pictures import PictureConfig, PictureTuner, accuracy, augment, share_out
from encoders.small import ADAPTED, SmallEncoder
from sep.data.kaldi import DataDir, Entry, write, write_pictures

ROOT = Path(__file__).parents[2]
SHAPES = ["circle", "square", "cross"]


def draw(shape: str, draw_from: np.random.Generator) -> Image.Image:
    """A shape of any colour, size and place on white."""
    picture = Image.new("RGB", (96, 96), "white")
    pen = ImageDraw.Draw(picture)
    colour = tuple(draw_from.integers(0, 200, 3).tolist())
    size = int(draw_from.integers(36, 80))
    x, y = (int(v) for v in draw_from.integers(2, 94 - size, 2))
    box = (x, y, x + size, y + size)
    if shape == "circle":
        pen.ellipse(box, outline=colour, width=6)
    elif shape == "square":
        pen.rectangle(box, outline=colour, width=6)
    else:
        pen.line(box, colour, 6)
        pen.line((x, y + size, x + size, y), colour, 6)
    return picture


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` pictures of each shape (N, 3, 96, 96), uint8, and their labels."""
    numbers = np.random.default_rng(seed)
    pictures = [draw(shape, numbers) for shape in SHAPES for _ in range(count)]
    pixels = torch.from_numpy(np.stack([np.array(p) for p in pictures]))
    return pixels.permute(0, 3, 1, 2).contiguous(), torch.arange(len(SHAPES)).repeat_interleave(
        count
    )


def cosine_to_name(encoder, pictures, texts) -> float:
    """Mean cosine of pictures to the name of what they show."""
    encoder.eval()
    with torch.no_grad():
        return (encoder.embed_image([*pictures[0]]) * texts[pictures[1]]).sum(-1).mean().item()


def fresh() -> SmallEncoder:
    torch.manual_seed(0)
    encoder = SmallEncoder(dim=32, mels=32, hop=640, window_s=0.512, pretrained=False)
    encoder.fit_text([*SHAPES, "a dog barks", "rain on a roof", "a bell rings"])
    return encoder


def test_an_adapter_adds_the_product_of_its_matrices():
    adapter = lowrank.LowRank(2, 2, rank=1)
    with torch.no_grad():
        adapter.down.copy_(torch.tensor([[3.0, 4.0]]))
        adapter.up.copy_(torch.tensor([[1.0], [-2.0]]))
    weight = torch.tensor([[10.0, 20.0], [30.0, 40.0]])[:, :, None, None]
    assert adapter(weight)[:, :, 0, 0].tolist() == [[13.0, 24.0], [24.0, 32.0]]


def test_adapters_fold_into_what_they_were_attached_to():
    torch.manual_seed(0)
    nets = [lite0.build(classify=True).eval() for _ in range(2)]
    adapted = lowrank.adapters(nets[0], ADAPTED, rank=2)
    assert "conv_head" in adapted and not any(key.startswith("blocks/2") for key in adapted)
    for adapter in adapted.values():
        torch.nn.init.normal_(adapter.up, std=0.1)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = nets[0](x)
        lowrank.attach(nets[0], adapted)
        lowrank.fold(nets[1], adapted)
        attached, folded = nets[0](x), nets[1](x)
    assert torch.allclose(attached, folded, atol=1e-4)
    assert not torch.allclose(attached, plain, atol=1e-2)


def test_new_adapters_leave_the_features_as_they_are():
    encoder = fresh()
    pictures = [*drawn(1, 3)[0]]
    before = encoder.image_features(pictures)
    encoder.adapt_images(4)
    for old, new in zip(before, encoder.image_features(pictures), strict=True):
        assert torch.equal(old, new)
    torch.nn.init.ones_(encoder.image_adapter["conv_head"].up)
    encoder.adapters_changed()
    assert not torch.allclose(before[0], encoder.image_features(pictures)[0], atol=1e-3)


def test_looks_are_seeded_differ_and_stay_within_colours():
    picture = drawn(1, 0)[0][0] / 255
    looks = [
        [augment(picture, 32, generator) for _ in range(20)]
        for generator in (torch.Generator().manual_seed(s) for s in (5, 5, 6))
    ]
    again, other = (torch.stack(some) for some in looks[1:])
    assert torch.equal(torch.stack(looks[0]), again) and not torch.equal(again, other)
    assert again.shape == (20, 3, 32, 32)
    assert -1e-4 <= again.min() and again.max() <= 1 + 1e-4
    assert len({tuple(look.flatten()[::7].tolist()) for look in again}) == 20


def test_it_learns_to_name_pictures_it_has_not_seen_and_leaves_sounds_and_texts_alone(tmp_path):
    encoder = fresh()
    names = [f"the sound of {shape}" for shape in SHAPES]
    texts, wave = encoder.embed_text(names), torch.randn(1, 8192)
    sound, unseen = encoder.embed_audio(wave, 16_000), drawn(6, seed=9)
    before = accuracy(encoder, *unseen, texts)
    config = PictureConfig(steps=40, batch=12, side=96, rank=4, settle_steps=60)
    tuner = PictureTuner(encoder, *drawn(20, seed=1), names, config)
    losses = [tuner.step() for _ in range(config.steps)]
    far = cosine_to_name(encoder, unseen, texts)
    tuner.finish()
    assert cosine_to_name(encoder, unseen, texts) > far + 0.1
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert accuracy(encoder, *unseen, texts) >= max(0.8, before + 0.3)
    assert torch.equal(encoder.embed_text(names), texts)
    assert torch.equal(encoder.embed_audio(wave, 16_000), sound)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert any(adapter.up.abs().max() > 0 for adapter in encoder.image_adapter.values())

    encoder.save(tmp_path / "encoder")
    again = SmallEncoder.load(tmp_path / "encoder")
    assert again.fingerprint == encoder.fingerprint
    pictures = [*unseen[0]]
    assert torch.allclose(again.embed_image(pictures), encoder.embed_image(pictures), atol=1e-6)


@pytest.mark.parametrize("name", ["steps", "rank", "settle_steps"])
def test_a_setting_below_one_is_refused_by_name(name):
    with pytest.raises(EncoderError, match=f"pictures.{name} must be at least 1"):
        PictureTuner(fresh(), *drawn(1, 0), SHAPES, PictureConfig(**{name: 0}))


def test_pictures_of_one_class_teach_nothing():
    pictures, _ = drawn(2, 0)
    with pytest.raises(EncoderError, match="two classes"):
        PictureTuner(fresh(), pictures, torch.zeros(6, dtype=torch.long), SHAPES, PictureConfig())


def test_folds_have_some_of_every_class_and_near_copies_together():
    pictures, labels = drawn(6, seed=2)
    copies = (pictures.float() + torch.randn(pictures.shape) * 3).clamp(0, 255).byte()
    both = torch.cat([pictures, copies])
    fold = share_out(both, torch.cat([labels, labels]), 3, seed=1)
    assert torch.equal(fold[:18], fold[18:])
    for label in range(3):
        assert fold[:18][labels == label].bincount().tolist() == [2, 2, 2]
    assert torch.equal(fold, share_out(both, torch.cat([labels, labels]), 3, seed=1))
    assert not torch.equal(fold, share_out(both, torch.cat([labels, labels]), 3, seed=2))
    # a picture of two classes is one picture: both its lines are in one fold
    again = share_out(torch.cat([pictures, pictures[:1]]), torch.cat([labels, labels[-1:]]), 3)
    assert again[0] == again[-1]
    with pytest.raises(EncoderError, match="1 folds"):
        share_out(pictures, labels, 1)


FEW = ["pictures.steps=3", "pictures.batch=4", "pictures.side=64", "pictures.rank=2"]
FEW += ["pictures.settle_steps=2", "pictures.looks=1"]


def run(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "recipes" / program, "tag=t", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def home(tmp_path):
    """An encoder, and pictures of two classes with a sound of each."""
    fresh().save(tmp_path / "before", {"stages": {"text": {}}})
    numbers = np.random.default_rng(0)
    for split, count in (("train", 6), ("valid", 2)):
        folder = tmp_path / "data" / split
        (folder / "images").mkdir(parents=True)
        pairs, entries = [], []
        for shape in SHAPES[:2]:
            for k in range(count):
                path = folder / "images" / f"{shape}{k}.png"
                draw(shape, numbers).save(path)
                pairs.append((str(path), shape))
            wav = folder / f"{shape}.wav"
            soundfile.write(wav, numbers.normal(0, 0.1, 8000), 16_000)
            entries.append(Entry(shape, str(wav), f"a {shape}", shape, 0.5, pairs[-1][0]))
        write(folder, entries)
        write_pictures(folder, pairs)
    return tmp_path


def test_the_program_tunes_the_encoder_of_a_folder_into_another(home):
    done = run(home, "pictures.py", "init=before", *FEW)
    assert done.returncode == 0, done.stderr
    tmp_path, encoder = home, SmallEncoder.load(home / "before")
    assert "12 of 2 classes, 4 to validate on" in done.stdout
    after = SmallEncoder.load(tmp_path / "exp" / "t" / "encoder")
    assert after.config["image_rank"] == 2 and after.fingerprint != encoder.fingerprint
    described = json.loads((tmp_path / "exp" / "t" / "encoder" / "config.json").read_text())
    assert described["provenance"]["stages"] == {"text": {}}
    assert described["provenance"]["pictures"]["steps"] == 3
    assert len((tmp_path / "exp" / "t" / "log" / "encoder.csv").read_text().splitlines()) == 4

    write_pictures(tmp_path / "data" / "train", [])
    for table in ("image.scp", "wav.scp", "text", "utt2label", "utt2dur"):
        (home / "data" / "train" / table).write_text("")
    done = run(home, "pictures.py", "init=before", *FEW)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "classes" in done.stderr


def test_training_pictures_are_embedded_by_encoders_that_have_not_seen_them(home):
    shutil.copytree(home / "before", home / "exp" / "t" / "encoder")
    done = run(home, "pictures.py", "init=exp/t/encoder", "folds=2", "out=unseen", *FEW)
    assert done.returncode == 0, done.stderr
    assert "fold 2 of 2, without 6" in done.stdout
    assert "named right by encoders that had not seen them" in done.stdout
    with safe_open(home / "exp" / "t" / "unseen.safetensors", "pt") as file:
        paths, vectors = json.loads(file.metadata()["paths"]), file.get_tensor("image")
    assert len(paths) == 12 and vectors.shape == (12, 32)
    assert vectors.norm(dim=1).allclose(torch.ones(12), atol=1e-5)
    encoder = SmallEncoder.load(home / "before")
    assert encoder.fingerprint == SmallEncoder.load(home / "exp" / "t" / "encoder").fingerprint

    rows = {}
    for name, words in {"seen": [], "unseen": ["unseen=exp/t/unseen.safetensors"]}.items():
        done = run(home, "embed.py", "splits=[train,valid]", *words)
        assert done.returncode == 0, done.stderr
        for split in ("train", "valid"):
            with safe_open(home / "exp" / "t" / "queries" / f"{split}.safetensors", "pt") as file:
                rows[name, split] = file.get_tensor("image")
                rows[name, split, "all"] = file.get_tensor("pictures")
                named = json.loads(file.metadata()["pictures"])
            assert named == [label for _, label in DataDir(home / "data" / split).pictures]
    shown = DataDir(home / "data" / "train")
    expected = torch.stack([vectors[paths.index(shown.image[i])] for i in shown.ids])
    assert torch.equal(rows["unseen", "train"], expected)
    assert not torch.allclose(rows["seen", "train"], expected, atol=1e-3)
    assert torch.equal(rows["seen", "valid"], rows["unseen", "valid"])
    expected = torch.stack([vectors[paths.index(path)] for path, _ in shown.pictures])
    assert torch.equal(rows["unseen", "train", "all"], expected)

    other = fresh()
    other.adapt_images(2)
    other.save(home / "exp" / "t" / "encoder")
    done = run(home, "embed.py", "splits=[train]", "unseen=exp/t/unseen.safetensors")
    assert done.returncode == 1 and "unseen.safetensors: made from another" in done.stderr
    (home / "exp" / "t" / "unseen.safetensors").write_bytes(b"no")
    done = run(home, "embed.py", "splits=[train]", "unseen=exp/t/unseen.safetensors")
    assert done.returncode == 1 and "unseen.safetensors: cannot be read" in done.stderr
