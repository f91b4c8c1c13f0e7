"""music on a tiny tree in the usual layouts: all stages, held-out solos, every fault."""

import csv
import json
import tarfile

import pytest
import soundfile
from copied import call, copied
from tiny_videos import ffmpeg, frames, prepare, sound, video

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


@pytest.mark.slow
def test_solos_with_clips_of_vggsound_run_to_scores_and_other_models_can_be_tested(original):
    home = copied(original, "music")
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
    again = ["--tag", "borrowed", "--trained", str(main), "--stop-stage", "2"]
    done = call(home, "music", *options(original, *more, *again))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    borrowed = main.with_name("borrowed")
    for name in ("encoder", "judge", "supervised", "rl", "control"):
        assert (borrowed / name).resolve() == main / name


def test_a_published_checkpoint_and_trained_models_exclude_each_other(original):
    home = copied(original, "music")
    both = ["--published", str(original / "solos.json"), "--trained", str(original)]
    done = call(home, "music", *options(original, *both))
    assert done.returncode == 2 and "--published and --trained exclude each other" in done.stderr
    assert not (home / "egs/music/exp").exists()


def test_every_fault_is_named_by_file_and_line_and_the_rest_is_used(original):
    root, table = original / "MUSIC solo", original / "solos.json"
    lines = table.read_text(encoding="utf-8").splitlines()
    first = lines.index(f'            "{solo(1, 0)}",')
    lines[first + 1] = f'            "{solo(0, 0)}",'  # of another instrument, too
    lines[first + 2] = '            "short",'
    table.write_text("\n".join(lines), encoding="utf-8")
    lone, cut, mute = (root / f"acoustic_guitar/{solo(0, 0)}.mp4", root / f"{solo(0, 1)}.mp4",
                       root / f"柳琴/{solo(2, 0)}.mp4")  # fmt: skip
    lone.with_suffix(".mp4.part").write_bytes(lone.read_bytes()[:999])
    cut.write_bytes(cut.read_bytes()[:-3000])
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", mute)
    (root / f"{solo(0, 2)}.wav").unlink()
    for picture in (root / f"frames/erhu/{solo(1, 3)}.mp4").iterdir():
        picture.unlink()
    (root / f"frames/柳琴/{solo(2, 3)}.mp4/000001.jpg").write_bytes(b"no picture")
    before = sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*"))
    done = prepare("music", *options(original)[:4], "--data", original / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    number = {solo(k, t): lines.index(f'            "{solo(k, t)}"{"," * (t < 4)}') + 1
              for k, t in ((0, 1), (0, 2), (2, 0), (1, 3), (2, 3))}  # fmt: skip
    at = {name: f"{table}:{line}: {name}: " for name, line in number.items()}
    expected = [
        f"{table}:{first + 2}: {solo(0, 0)} is in line 5, too, as acoustic guitar",
        f"{table}:{first + 3}: 'short' is no YouTube id",
        f"{lone}.part: is an unfinished download",
        f"{at[solo(0, 1)]}{cut}: is cut off",
        f"{at[solo(0, 2)]}is not in {root}",
        f"{at[solo(2, 0)]}{mute}: has no sound track",
        f"{at[solo(1, 3)]}{root}/frames/erhu/{solo(1, 3)}.mp4: has no frames",
        f"{at[solo(2, 3)]}{root}/frames/柳琴/{solo(2, 3)}.mp4/000001.jpg: not a readable picture",
    ]
    faults = (original / "data/faults.txt").read_text(encoding="utf-8").splitlines()
    assert len(faults) == len(expected)
    for what in expected:
        assert any(fault.startswith(what) for fault in faults), (what, faults)
        assert what in done.stdout
    used = {
        id_ for name in ("train", "valid", "test") for id_ in DataDir(original / "data" / name).ids
    }
    assert used == {solo(0, 0), solo(0, 3), solo(0, 4), *(solo(1, t) for t in (0, 3, 4)),
                    *(solo(2, t) for t in (1, 2, 3, 4))}  # fmt: skip
    assert sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*")) == before


def test_an_interrupted_preparation_goes_on_with_what_is_left(original):
    data, arguments = original / "data", options(original)[:4]
    prepare("music", *arguments, "--data", data)
    splits = ("train", "valid", "test")
    tables = [(data / split / "wav.scp").read_text() for split in splits]
    journal = data / "made.jsonl"
    lines = journal.read_text().splitlines()
    assert len(lines) == 15
    journal.write_text("\n".join(lines[:14])[:-9])  # the run was killed in the middle of a line
    lost = [json.loads(line)["name"] for line in lines[13:]]
    times = {path.stem: path.stat().st_mtime_ns for path in (data / "wav").iterdir()}
    done = prepare("music", *arguments, "--data", data)
    assert done.returncode == 0 and "13 of 15 recordings were read before" in done.stdout
    assert [(data / split / "wav.scp").read_text() for split in splits] == tables
    for path in (data / "wav").iterdir():
        assert (path.stat().st_mtime_ns > times[path.stem]) == (path.stem in lost)


def test_it_stops_in_one_line_where_nothing_can_be_used(original, tmp_path):
    data, table = tmp_path / "data", original / "solos.json"
    (tmp_path / "empty").mkdir()
    done = prepare("music", "--music", tmp_path / "empty", "--list", table, "--data", data)
    assert done.returncode == 1 and done.stdout.count("fetch it or go without") == 15
    assert done.stderr.count("\n") == 1 and "test: 0 usable classes" in done.stderr


def test_a_list_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "list.json"
    for text, what in (
        ('{"videos": {\n"erhu": ["a', r"list\.json:2: is not JSON"),
        ('{"erhu": []}', 'has no "videos"'),
        ('{"videos": {"erhu": []}}', "lists no video"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=what):
            music.read(path)


def test_the_middle_of_a_test_solo_is_kept_at_its_level(original):
    sound(original / "MUSIC solo" / f"{solo(0, 1)}.wav", 300.0, 0, 9.0)  # before the video's sound
    (original / "test.csv").write_text(
        f"a/{solo(0, 1)}.wav,x,6,erhu\nb/{solo(1, 2)}.wav,x,3,erhu\n"
    )
    prepare("music", *options(original), "--data", original / "data")
    made, _ = soundfile.read(original / f"data/wav/{solo(0, 1)}.wav")
    whole, rate = soundfile.read(original / "MUSIC solo" / f"{solo(0, 1)}.wav")
    begin = round((2.5 - 32_767 / 16_000) * rate)  # frame 3 of 6 is from 2 s to 3 s
    part = whole[begin : begin + round(65_535 / 16_000 * rate)]
    assert len(made) == mixtures.SEGMENT
    assert made.std() == pytest.approx(part.std(), rel=0.01)
