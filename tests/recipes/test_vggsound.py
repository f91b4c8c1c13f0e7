"""vggsound on a tiny tree laid out like its mirrors: all stages, the fixed list, every fault."""

import csv
import tarfile
from pathlib import Path

import pytest
import soundfile
import torch
from tiny_videos import call, recipe, sound, video

from sep import container
from sep.data import mixtures, protocol, vggsound
from sep.data.kaldi import DataDir
from sep.errors import AudioFileError

try:
    container.ffmpeg()
except AudioFileError:
    pytest.skip("ffmpeg is not installed", allow_module_level=True)

CLASSES = {"dog barking": 600.0, "people marching, parade": 0.0, "çöp kamyonu": 200.0}
TRAIN, TEST = 4, 2  # clips of a class


def clip_name(k: int, take: int) -> str:
    """An id of eleven characters, some with a dash or an underscore in front."""
    return f"{'-_x'[k]}clip_{k}{take:04d}"


def start(take: int) -> int:
    return 30 * take


@pytest.fixture
def original(tmp_path):
    """vggsound.csv, lists as OmniSep's, and half of the clips in a folder, half in tars."""
    root = tmp_path / "vgg sound"
    lines, lists = [], []
    packed: list[Path] = []
    for k, (label, hz) in enumerate(CLASSES.items()):
        for take in range(TRAIN + TEST):
            name, split = clip_name(k, take), "train" if take < TRAIN else "test"
            second = start(take)
            quoted = f'"{label}"' if "," in label else label
            lines.append(f"{name},{second},{quoted},{split}")
            file = f"{name}_{second:06d}"
            if split == "test":
                lists.append(
                    f"/data/audio/{file}.wav,/data/frames/{file},4,{protocol.plain(label)}"
                )
            if take == 0:
                sound(root / "sounds" / f"{name}_{second}.flac", hz, take)
            elif take % 2:
                packed.append(video(tmp_path / f"{file}.mp4", hz, take))
            else:
                video(root / "video" / split / f"{file}.mp4", hz, take, 5.0 if take > 3 else 1.0)
    for part, files in enumerate((packed[::2], packed[1::2])):
        with tarfile.open(root / f"part_{part}.tar{'.gz' * part}", "w:gz" if part else "w") as tar:
            for file in files:
                tar.add(file, f"./data/video/{file.name}")
    (tmp_path / "vggsound.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "clean.csv").write_text("\n".join(lists) + "\n")
    (tmp_path / "noise.csv").write_text("\n".join(lists[1:]) + "\n")
    return tmp_path


def options(original: Path) -> list[str]:
    return [
        "--vggsound", str(original / "vgg sound"), "--csv", str(original / "vggsound.csv"),
        "--clean", str(original / "clean.csv"), "--noise", str(original / "noise.csv"),
    ]  # fmt: skip


def test_a_mirror_in_folders_and_tars_runs_to_scores_on_the_part_that_is_there(original):
    lost = clip_name(2, 4)
    (original / f"vgg sound/video/test/{lost}_000120.mp4").unlink()
    home = recipe(original, "vggsound")
    done = call(home, "vggsound", *options(original))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"vggsound.csv:17: {lost}_000120: is not in" in done.stdout
    data = home / "egs/vggsound/data"
    splits = {name: DataDir(data / name) for name in ("train", "test")}
    assert set(splits["train"].label.values()) == set(CLASSES)
    assert len(splits["train"]) == 12 and len(splits["train"].image) == 9  # those with a video
    assert len(splits["test"]) == 5 and len(splits["test"].image) == 5
    assert not (data / ".unpacked").exists()
    pairs = check_protocol(splits["test"], original)
    made = [pair for pair in pairs if f"{lost}_000120" not in pair]
    with open(home / "egs/vggsound/exp/main/scores/per_clip.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["query"] for row in rows} == {"text", "audio", "image"}
    for system in ("mixture", "ideal", "supervised", "control", "rl"):
        assert sum(r["system"] == system and r["query"] == "text" for r in rows) == len(made) < 6
    assert (
        f"{len(made)} of the 6 mixtures of the fixed list. These scores are of that" in done.stdout
    )
    assert "of the fixed list" in (home / "egs/vggsound/exp/main/scores/table.md").read_text()
    classes = (data / "classes.tsv").read_text().splitlines()
    assert "test\tçöp kamyonu\t2\t1\t1\t1" in classes


def check_protocol(test: DataDir, original: Path) -> list[tuple[str, str]]:
    """Each mixture is what the lists say: which clips, from where, at their own levels halved."""
    lists = [
        protocol.read(original / f"{name}.csv", vggsound.name_of)[0] for name in ("clean", "noise")
    ]
    fixed = protocol.fix(*lists)
    for mixture in mixtures.load(test.path / "mixtures.jsonl"):
        pair = fixed.pairs[int(mixture.id[3:])]
        assert (mixture.target, *mixture.interferers) == pair
        assert mixture.image == test.image[mixture.target]
        assert mixture.audio_query[:11] not in {name[:11] for name in pair}
        sources = mixtures.render(mixture, test)
        for source, name in zip(sources, pair, strict=True):
            whole, _ = soundfile.read(test.wav[name], dtype="float32")
            assert torch.allclose(source, torch.from_numpy(whole) / 2, atol=1e-5)
            assert source.shape == (mixtures.SEGMENT,)
    return fixed.pairs


def test_the_draw_is_that_of_the_published_evaluation():
    # random.seed(k); random.randint(0, 72), as anyone can check in a Python shell
    others = [protocol.Listed(f"n{k}", f"label {k}", None, k + 1) for k in range(73)]
    targets = [protocol.Listed(f"t{k}", "music", 5.5, k + 1) for k in range(4)]
    fixed = protocol.fix(targets, others)
    assert fixed.pairs == [("t0", "n49"), ("t1", "n17"), ("t2", "n7"), ("t3", "n30")]
    assert fixed.centres_s["t0"] == 5.5 and fixed.again == 0
    again = protocol.fix(targets, [replace_label(other, "n49") for other in others])
    assert again.pairs[1:] == fixed.pairs[1:] and again.pairs[0] != fixed.pairs[0]
    assert again.again == 1
    same = [replace_label(other, other.name) for other in others]
    assert protocol.fix(targets, same).pairs == [None] * 4


def replace_label(other: protocol.Listed, name: str) -> protocol.Listed:
    """The line with the targets' label if it has this name."""
    return protocol.Listed(other.name, "music", None, other.line) if other.name == name else other
