"""music on a tiny tree in the usual layouts: all stages, held-out solos, every fault."""

import csv
import json
import tarfile

import pytest
import soundfile
from tiny_videos import call, frames, prepare, recipe, sound, video

from sep import container
from sep.data import mixtures, music
from sep.data.kaldi import DataDir
from sep.errors import AudioFileError, DataError

try:
    container.ffmpeg()
except AudioFileError:
    pytest.skip("ffmpeg is not installed", allow_module_level=True)

INSTRUMENTS = {"acoustic_guitar": 220.0, "erhu": 600.0, "柳琴": 1200.0}
SOLOS = 5  # of an instrument
CLIPS = ("kLyY8uCoYUQ_000030", "-WfBpEg00XM_000437")


def solo(k: int, take: int) -> str:
    return f"{'-_x'[k]}solo_{k}{take:04d}"


@pytest.fixture
def original(tmp_path):
    """The official list, and solos in five layouts; interferers in a tar."""
    root = tmp_path / "MUSIC solo"
    listed = {}
    for k, (instrument, hz) in enumerate(INSTRUMENTS.items()):
        listed[instrument] = [solo(k, take) for take in range(SOLOS)]
        video(root / instrument / f"{solo(k, 0)}.mp4", hz, 0, 5.0)
        video(root / f"{solo(k, 1)}.mp4", hz, 1)
        sound(root / f"{solo(k, 2)}.wav", hz, 2)
        for take, folder in ((3, f"{solo(k, 3)}.mp4"), (4, solo(k, 4))):
            sound(root / "audio" / instrument / f"{solo(k, take)}.wav", hz, take)
            frames(root / "frames" / instrument / folder)
    text = json.dumps({"version": 2.0, "videos": listed}, indent=4, ensure_ascii=False)
    (tmp_path / "solos.json").write_text(text, encoding="utf-8")
    test = [
        f"data/MUSIC/solo/audio/{name}/{solo(k, take)}.wav,data/{name}/{solo(k, take)},3,{name}"
        for k, name in enumerate(INSTRUMENTS)
        for take in (0, 3)
    ]
    (tmp_path / "test.csv").write_text("\n".join(test) + "\n", encoding="utf-8")
    noise = [f"/x/{name}.wav,/x/{name},4,people slurping" for name in CLIPS]
    (tmp_path / "noise.csv").write_text("\n".join(noise) + "\n")
    with tarfile.open(tmp_path / "vgg.tar", "w") as tar:
        for take, name in enumerate(CLIPS):
            tar.add(video(tmp_path / f"{name}.mp4", 0.0, take), f"video/{name}.mp4")
    return tmp_path


def options(original, *more: str) -> list[str]:
    lists = ["--list", str(original / "solos.json"), "--test", str(original / "test.csv")]
    return ["--music", str(original / "MUSIC solo"), *lists, *more]


def test_solos_with_clips_of_vggsound_run_to_scores_and_other_models_can_be_tested(original):
    home = recipe(original, "music")
    more = ["--vggsound", str(original / "vgg.tar"), "--noise", str(original / "noise.csv")]
    done = call(home, "music", *options(original, *more))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    data = home / "egs/music/data"
    splits = {name: DataDir(data / name) for name in ("train", "valid", "test")}
    names = {"acoustic guitar", "erhu", "柳琴"}
    assert set(splits["train"].label.values()) == set(splits["valid"].label.values()) == names
    test = splits["test"]
    assert set(test.label.values()) == names | {"people slurping"}
    assert not {*splits["train"].ids, *splits["valid"].ids} & set(test.ids)
    assert len(test.image) == 8  # two videos and six folders of frames
    assert test.text[solo(0, 0)] == "playing acoustic guitar"
    assert test.image[solo(0, 3)].endswith(f"frames/acoustic_guitar/{solo(0, 3)}.mp4/000001.jpg")
    drawn = mixtures.load(test.path / "mixtures.jsonl")
    assert [m.target for m in drawn] == [solo(k, take) for k in range(3) for take in (0, 3)]
    for mixture in drawn:
        assert mixture.interferer_labels == ["people slurping"]
        assert mixture.image == test.image[mixture.target]
        assert mixture.audio_query[:11] != mixture.target
        assert test.label[mixture.audio_query] == mixture.label
    with open(home / "egs/music/exp/main/scores/per_clip.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for system in ("mixture", "ideal", "supervised", "control", "rl"):
        for query in ("text",) if system in ("mixture", "ideal") else ("text", "audio", "image"):
            assert sum((r["system"], r["query"]) == (system, query) for r in rows) == 6
    assert "6 of the 6 mixtures of the fixed list" in done.stdout

    main = home / "egs/music/exp/main"
    again = ["--tag", "borrowed", "--trained", str(main), "--stop-stage", "5"]
    done = call(home, "music", *options(original, *more, *again))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    borrowed = main.with_name("borrowed")
    assert (borrowed / "rl").resolve() == main / "rl" and (borrowed / "queries").is_dir()
