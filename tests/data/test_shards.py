"""Packing a data directory into tars, and reading them back."""

import json
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from sep.data import kaldi
from sep.data.bank import QueryBank
from sep.data.kaldi import DataDir
from sep.data.packing import Packing, pack
from sep.data.shards import ShardSet
from sep.errors import DataError, OptionError


@pytest.fixture
def packed(corpus, tmp_path):
    """Tars of five clips, and what they are of."""
    data, queries = DataDir(corpus / "data"), QueryBank(corpus / "queries.safetensors")
    pack(data, queries, tmp_path / "tars", Packing(clips=5), say=lambda line: None)
    return tmp_path / "tars", data, queries


def clips(path):
    """Every clip of a folder by id."""
    shards = ShardSet(path)
    places = [(0, tar, k) for tar, n in enumerate(shards.counts) for k in range(n)]
    samples = [sample for tar in range(len(shards.names)) for sample in shards.members(tar)]
    return {
        json.loads(sample["json"])["id"]: shards.clip(sample, place, 0.0, 10**6)
        for sample, place in zip(samples, places, strict=True)
    }


def test_every_clip_is_packed_once_with_its_sound_label_and_queries(packed):
    path, data, queries = packed
    shards, found = ShardSet(path), clips(path)
    assert shards.counts == [5, 5, 2] and len(shards) == 12
    assert sorted(found) == data.ids and list(found) != data.ids  # in random order
    assert shards.labels == sorted(set(data.label.values())) and shards.encoder == "test"
    for id_, clip in found.items():
        wave, _ = soundfile.read(data.wav[id_], dtype="int16")
        assert np.array_equal(clip.samples, wave)
        assert shards.labels[clip.label] == data.label[id_]
        same = queries.audio[queries.row[id_]].half().numpy()  # as of all clips of the label
        assert clip.query.shape == (3 + 4, 16) and (clip.query == same).all()


def test_audio_queries_are_of_other_recordings_and_pictures_have_a_row(packed, tmp_path):
    _, data, _ = packed
    one_hot = torch.eye(12)
    tensors = {"text": one_hot[:, None].repeat(1, 2, 1), "audio": one_hot, "image": 2 * one_hot}
    tensors["has_image"] = torch.arange(12, dtype=torch.uint8) % 2
    tensors = {name: value.clone() for name, value in tensors.items()}
    save_file(tensors, tmp_path / "q", {"ids": json.dumps(data.ids), "encoder": "test"})
    queries = QueryBank(tmp_path / "q")
    pack(data, queries, tmp_path / "own", Packing(others=5), say=lambda line: None)
    for id_, clip in clips(tmp_path / "own").items():
        own, odd = queries.row[id_], queries.row[id_] % 2
        assert clip.query.shape == (2 + 5 + odd, 12)
        assert clip.query[:2].argmax(1).tolist() == [own, own]
        others = clip.query[2:7].argmax(1).tolist()
        assert len(set(others)) == 3 and own not in others  # all that there are, then again
        assert {data.label[data.ids[k]] for k in others} == {data.label[id_]}
        assert not odd or clip.query[7, own] == 2


def test_an_interrupted_packing_goes_on_to_the_same_tars(packed, tmp_path):
    path, data, queries = packed
    said = []

    def until_two(line):
        said.append(line)
        if len(said) == 2:
            raise KeyboardInterrupt

    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        pack(data, queries, again, Packing(clips=5), say=until_two)
    with pytest.raises(DataError, match=r"index\.json: missing; run recipes/shard\.py"):
        ShardSet(again)
    (again / ".train-00002.tar.x.tmp").write_bytes(b"half")  # of a killed one
    (again / "data-00002.tar").unlink(missing_ok=True)
    before = {p.name: p.stat().st_mtime_ns for p in again.glob("*.tar")}
    assert len(before) == 2
    pack(data, queries, again, Packing(clips=5), say=lambda line: None)
    assert {n: (again / n).stat().st_mtime_ns for n in before} == before
    names = sorted(p.name for p in path.iterdir())
    assert sorted(p.name for p in again.iterdir()) == names
    assert all((again / n).read_bytes() == (path / n).read_bytes() for n in names)


def test_a_truncated_or_missing_tar_is_named_at_the_start_and_packed_again(packed):
    path, data, queries = packed
    tar = path / "data-00001.tar"
    content = tar.read_bytes()
    for damage in (lambda: tar.write_bytes(content[:7_000]), tar.unlink):
        damage()
        with pytest.raises(DataError, match=r"data-00001\.tar: missing or cut off"):
            ShardSet(path)
        pack(data, queries, path, Packing(clips=5), say=lambda line: None)
        assert tar.read_bytes() == content and len(ShardSet(path)) == 12


@pytest.mark.parametrize("noise", [b"\xff", b"\0"])
def test_a_tar_that_lost_its_clips_without_losing_its_size_is_named(packed, noise):
    path, *_ = packed
    content = bytearray((path / "data-00000.tar").read_bytes())
    with tarfile.open(path / "data-00000.tar") as tar:
        third = tar.getmembers()[6].offset
    content[third : third + 512] = 512 * noise
    (path / "data-00000.tar").write_bytes(content)
    shards = ShardSet(path)
    with pytest.raises(DataError, match=r"data-00000\.tar: .*delete it and run recipes/shard\.py"):
        list(shards.members(0))


def test_a_long_clip_is_cut_where_it_is_asked(packed):
    path, *_ = packed
    shards = ShardSet(path)
    sample = max(shards.members(0), key=lambda sample: len(sample["flac"]))
    whole = shards.clip(sample, (0, 0, 0), 0.0, 10**6).samples
    for start, first in ((0.0, 0), (0.5, (len(whole) - 999) // 2), (0.99999, len(whole) - 1000)):
        cut = shards.clip(sample, (0, 0, 0), start, 1000).samples
        assert np.array_equal(cut, whole[first : first + 1000])


def test_a_folder_of_other_data_or_settings_is_refused(packed):
    path, data, queries = packed
    for options in (Packing(clips=4), Packing(clips=5, audio="wav"), Packing(clips=5, seed=1)):
        with pytest.raises(DataError, match="other data or settings"):
            pack(data, queries, path, options)
    with pytest.raises(OptionError, match="audio 'mp3' is unknown; use flac or wav"):
        Packing(audio="mp3")
    index = path / "index.json"
    index.write_text(index.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(DataError, match="packed by another version"):
        ShardSet(path)
    index.write_text("{}")
    with pytest.raises(DataError, match=r"index\.json: damaged"):
        ShardSet(path)


def test_what_cannot_be_read_is_said_and_left_out_and_any_id_is_kept(tmp_path):
    entries = []
    for id_ in ("a.b/c", "a.b", "__x__", "vögel", "y" * 200, "gone"):
        wave = np.full(800, len(id_), dtype=np.int16)
        soundfile.write(tmp_path / f"{len(entries)}.wav", wave, 16_000)
        path = str(tmp_path / f"{len(entries)}.wav")
        picture = str(tmp_path / "a.JPG") if id_ == "a.b" else None
        entries.append(kaldi.Entry(id_, path, "ein Geräusch, laut", "tür", 0.05, picture))
    kaldi.write(tmp_path / "data", entries)
    (tmp_path / "5.wav").write_bytes(b"not a recording")
    (tmp_path / "a.JPG").write_bytes(b"a picture")
    data, said = DataDir(tmp_path / "data"), []
    rows = torch.ones(6, 4)
    tensors = {"text": rows[:, None].clone(), "audio": rows.clone(), "image": rows.clone()}
    tensors["has_image"] = torch.zeros(6, dtype=torch.uint8)
    save_file(tensors, tmp_path / "q", {"ids": json.dumps(data.ids), "encoder": "e"})
    options = Packing(images=True)
    index = pack(data, QueryBank(tmp_path / "q"), tmp_path / "tars", options, say=said.append)
    assert index["left_out"] == ["gone"]
    assert f"{tmp_path / '5.wav'}: not a readable recording; gone is left out" in said
    with tarfile.open(tmp_path / "tars" / "data-00000.tar") as tar:
        assert tar.extractfile("a%2Eb.jpg").read() == b"a picture"
    found = clips(tmp_path / "tars")
    assert sorted(found) == [i for i in data.ids if i != "gone"]
    assert all(clip.samples[0] == len(id_) for id_, clip in found.items())
