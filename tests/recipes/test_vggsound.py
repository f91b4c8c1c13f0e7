"""vggsound on a tiny tree laid out like its mirrors: all stages, the fixed list, every fault."""

import csv
import http.server
import io
import tarfile
import threading
from pathlib import Path

import pytest
import soundfile
import torch
from copied import call, copied
from tiny_videos import prepare, program, sound, video

from sep import container
from sep.data import fetch, mirror, mixtures, protocol, vggsound
from sep.data.kaldi import DataDir
from sep.errors import AudioFileError, DataError
from sep.networks.published import PublishedNet

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
    home = copied(original, "vggsound")
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
    assert {row["query"] for row in rows} == {"text", "audio", "image", "omni"}
    for system in ("mixture", "ideal", "supervised", "control", "rl"):
        assert sum(r["system"] == system and r["query"] == "text" for r in rows) == len(made) < 6
    assert (
        f"{len(made)} of the 6 mixtures of the fixed list. These scores are of that" in done.stdout
    )
    table = (home / "egs/vggsound/exp/main/scores/table.md").read_text()
    assert "of the fixed list" in table
    assert "| text | MARS-Sep | published | 6.91 ± 0.68 |" in table
    classes = (data / "classes.tsv").read_text().splitlines()
    assert "test\tçöp kamyonu\t2\t1\t1\t1" in classes


@pytest.mark.slow
def test_training_streams_from_tars(original):
    home = copied(original, "vggsound")
    done = call(home, "vggsound", *options(original), "--tars", "--stop-stage", "5")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    exp = home / "egs/vggsound/exp/main"
    assert len(list((exp / "tars/train").glob("*.tar"))) > 1
    for run in ("supervised", "rl", "control"):
        assert (exp / run / "best/model.safetensors").is_file()
    first = sorted((exp / "tars/train").glob("*.tar"))[0]
    first.write_bytes(first.read_bytes()[:-512])  # it is what training reads
    done = call(home, "vggsound", *options(original), "--tars", "--stage", "4", "--stop-stage", "4")
    assert done.returncode == 1 and f"{first.name}: missing or cut off" in done.stdout


def test_a_published_checkpoint_is_scored_in_place_of_training(original):
    state = PublishedNet(width=2, levels=5, mask_channels=4, embed_dim=256).state_dict()
    torch.save(state, original / "best_model.pt")
    home = copied(original, "vggsound")
    published = ["--published", str(original / "best_model.pt")]
    done = call(home, "vggsound", *options(original), *published)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    exp = home / "egs/vggsound/exp/main"
    table = (exp / "scores/table.md").read_text()
    for query in ("text", "image", "audio", "omni"):
        assert f"| {query} | MARS-Sep | published |" in table
        assert f"| {query} | omnisep | here |" in table
    assert {p.name for p in exp.iterdir()} >= {"encoder", "judge", "queries", "omnisep", "scores"}
    assert not (exp / "supervised").exists() and not (exp / "rl").exists()
    wrong = ["--published", str(original / "gone.pt"), "--tag", "other"]
    done = call(home, "vggsound", *options(original), *wrong)
    assert done.returncode == 2 and "gone.pt is no file" in done.stderr


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


def test_lists_are_read_as_they_are_published(tmp_path):
    clipsep = "data/vggsound/audio/k/L/kLyY8uCoYUQ.wav,data/vggsound/preprocessed/k/L/kLyY8uCoYUQ"
    omnisep = "/data/VGGSOUND/audio/-WfBpEg00XM_000437.wav,/data/frames/-WfBpEg00XM_000437"
    lines = [f"{clipsep},12,vehicle horn car horn honking", f"{omnisep},11,people slurping"]
    lines += ["F3AsQHJE5E0_000030,dog barking", "jd_CrB2OzbU_7"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    listed, faults = protocol.read(tmp_path / "list.csv", vggsound.name_of)
    assert not faults
    assert listed == [
        protocol.Listed("kLyY8uCoYUQ", "vehicle horn car horn honking", 5.5, 1),
        protocol.Listed("-WfBpEg00XM_000437", "people slurping", 4.5, 2),
        protocol.Listed("F3AsQHJE5E0_000030", "dog barking", None, 3),
        protocol.Listed("jd_CrB2OzbU_000007", "", None, 4),
    ]
    # the list without starts and the list of clips with them mean the same clip
    names = vggsound.Names(["kLyY8uCoYUQ_000030"])
    assert names(listed[0].name) == "kLyY8uCoYUQ_000030"


def test_no_video_is_on_two_sides_and_what_is_there_comes_first():
    choose = program("vggsound", "prepare").choose
    listed = [
        vggsound.Clip(f"video{k:06d}", start, label, "train", 0)
        for label, start in (("dog", 1), ("cat", 2))
        for k in range(20)
    ]
    everything = choose(listed, {"video000003"}, None, 0)
    assert len(everything["valid"]) == 4
    sides = [{clip.video for clip in everything[split]} for split in ("train", "valid")]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 19
    there = {clip.name for clip in listed if clip.video > "video000009"}
    few = choose(listed, set(), there, 3)
    assert [clip.label for clip in few["train"]] == ["dog"] * 3 + ["cat"] * 3
    assert {clip.name for clips in few.values() for clip in clips} <= there
    again = choose(listed[::-1], set(), there, 3)
    assert set(again["train"]) == set(few["train"])


def replace_label(other: protocol.Listed, name: str) -> protocol.Listed:
    """The line with the targets' label if it has this name."""
    return protocol.Listed(other.name, "music", None, other.line) if other.name == name else other


def test_every_fault_is_named_by_file_and_line_and_the_rest_is_used(original):
    table, root = original / "vggsound.csv", original / "vgg sound"
    clean, twice = original / "clean.csv", clip_name(0, 4)
    lines = table.read_bytes().splitlines()
    lines[0] = lines[0].rsplit(b",", 1)[0]
    lines[1] = lines[1].replace(b"dog", b"dog, loudly")
    lines[2] = lines[2].replace(b",60,", b",a minute,")
    lines[7] = lines[6]
    lines[8] = lines[8].replace(b"parade", b"parad\xe9")
    lines[12] = b"short" + lines[12]
    lines[13] = lines[13].replace(b"train", b"both")
    lines[14] = lines[14].replace("çöp kamyonu".encode(), b"")
    table.write_bytes(b"\n".join(lines))
    with clean.open("a") as file:
        file.write(f"a/{twice}_000120.wav,b,4,dog barking\nAAAAAAAAAAA\nwhat,is,4,this\n")
    tar = root / "part_1.tar.gz"
    tar.write_bytes(tar.read_bytes()[:-20_000])
    before = sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*"))
    done = prepare("vggsound", *options(original), "--data", original / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    faults = (original / "data/faults.txt").read_text(encoding="utf-8").splitlines()
    found = {fault.split(": ")[0]: fault for fault in faults}
    for at, what in {
        f"{table}:1": "has 3 columns", f"{table}:2": "has 5 columns",
        f"{table}:3": "'a minute' is no start", f"{table}:8": "_000000 is in line 7, too",
        f"{table}:9": "is not UTF-8", f"{table}:13": "is no YouTube id",
        f"{table}:14": "split 'both'", f"{table}:15": "has no label",
        f"{clean}:7": f"{twice}_000120 is in line 1, too", f"{clean}:8": "is not in vggsound.csv",
        f"{clean}:9": "'what' is no YouTube id", f"{tar}": "is damaged or cut off",
    }.items():  # fmt: skip
        assert what in found[at], (at, faults)
    assert "lines are faulty" in done.stdout
    assert {"dog barking"} <= set(DataDir(original / "data/train").label.values())
    assert sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*")) == before


def test_it_stops_in_one_line_where_nothing_can_be_used(original, tmp_path):
    arguments = options(original)
    (tmp_path / "empty").mkdir()
    arguments[1] = str(tmp_path / "empty")
    done = prepare("vggsound", *arguments, "--data", tmp_path / "data")
    assert done.returncode == 1 and done.stdout.count("fetch it or go without") == 18
    assert done.stderr.count("\n") == 1 and "test: 0 usable classes" in done.stderr


def test_files_are_known_by_the_names_that_mirrors_give_them():
    name = "a-b_c123456"
    for stem in ("_000030", "_30", "_30_40", "_30000_40000"):
        assert vggsound.name_of(name + stem) == f"{name}_000030"
    assert vggsound.name_of(name) == name
    assert vggsound.name_of("readme") is None and vggsound.name_of(f"{name}.f137") is None
    names = vggsound.Names([f"{name}_000030", "twice______000001"[:11] + "_000001", "bare_______"])
    assert names(name) == f"{name}_000030" and names(f"{name}_000040") is None
    assert names("bare________000007") == "bare_______"


def test_only_the_wanted_clips_of_a_tar_are_written_and_its_rest_is_not_read(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("../out_of_here", "x/AAAAAAAAAAA_1", "BBBBBBBBBBB_000002", "CCCCCCCCCCC_3"):
            member = tarfile.TarInfo(f"{name}.mp4")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"clip"))
    with (tmp_path / "a.tar").open("r+b") as file:
        file.truncate(3 * 1024 + 700)  # the last clip is cut, which nobody asks for
    into, faults = tmp_path / "into", []
    into.mkdir()
    wanted = {"AAAAAAAAAAA_000001", "BBBBBBBBBBB_000002"}
    found = dict(mirror.unpack(tmp_path / "a.tar", wanted, vggsound.name_of, into, faults))
    assert not wanted and not faults
    assert {path.name for path in into.iterdir()} == {f"{name}.mp4" for name in found}
    assert {path.read_bytes() for path in found.values()} == {b"clip"}


def test_lists_that_cannot_be_fetched_are_named_with_where_to_put_them(
    tmp_path, monkeypatch, capsys
):
    download = program("vggsound", "download")
    (tmp_path / "vggsound.csv").write_text("AAAAAAAAAAA,1,dog,test\n")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DataError, match="2 of 3 lists could not be fetched"):
        download.run(tmp_path, list(download.WHERE))
    said = capsys.readouterr().out
    assert f"{tmp_path}/vggsound.csv: is there" in said
    assert f"put that file at {tmp_path}/test-good.csv, or give --clean FILE" in said
    assert f"put that file at {tmp_path}/test-no-music.csv, or give --noise FILE" in said
    assert [path.name for path in tmp_path.iterdir()] == ["vggsound.csv"]


class Page(http.server.BaseHTTPRequestHandler):
    """Answers every address with the same text."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"AAAAAAAAAAA_000030\n" if "list" in self.path else b"<p>log in first</p>")

    def log_message(self, *_):
        pass


def test_a_fetched_page_that_is_no_list_is_not_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    wanted = [
        fetch.Source(tmp_path / "good.csv", f"{url}/list", "--clean"),
        fetch.Source(tmp_path / "bad.csv", f"{url}/other", "--noise"),
    ]
    try:
        with pytest.raises(DataError, match="1 of 2 lists"):
            fetch.lists(wanted, lambda path: protocol.read(path, vggsound.name_of))
    finally:
        server.shutdown()
        server.server_close()
    assert "<p>log in first</p>' is no YouTube id" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["good.csv"]
