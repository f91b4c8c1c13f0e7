"""The order in which clips come out of shards."""

import random
import warnings
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from sep.data import clip_stream
from sep.data.bank import QueryBank
from sep.data.clip_stream import ClipStream, Reader, shuffled
from sep.data.kaldi import DataDir
from sep.data.packing import Packing, pack
from sep.data.shards import ShardSet
from sep.errors import DataError, OptionError
from sep.train.checkpoint import read_state, write_state


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    """Twelve clips of three labels in six tars."""
    path = tmp_path_factory.mktemp("tars")
    data, queries = DataDir(corpus / "data"), QueryBank(corpus / "queries.safetensors")
    pack(data, queries, path, Packing(clips=2), say=lambda line: None)
    return path


def places(groups):
    return [clip.place for group in groups for clip in group]


def test_a_shuffle_buffer_gives_each_item_once():
    drawn = list(shuffled(range(100), 20, random.Random(0)))
    assert sorted(drawn) == list(range(100)) and drawn != sorted(drawn)
    assert all(item < 20 + k for k, item in enumerate(drawn))  # nothing comes before it is read
    assert list(shuffled("abc", 1, random.Random(0))) == ["a", "b", "c"]
    assert sorted(shuffled("abc", 10, random.Random(0))) == ["a", "b", "c"]


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (2, 2), (2, 1), (1, 4)])
def test_each_clip_is_read_once_an_epoch_over_all_ranks_and_workers(folder, world, workers):
    shards, read = ShardSet(folder), {}
    for rank in range(world):
        for reader in ClipStream(shards, rank, world, workers, buffer=4).readers:
            for epoch, _, clip in reader.clips(0, 0):
                if epoch == 3:
                    break
                assert clip.place[0] == epoch
                read.setdefault(epoch, []).append(clip.place[1:])
    everything = sorted((tar, member) for tar in range(6) for member in range(2))
    assert all(sorted(read[epoch]) == everything for epoch in range(3))
    assert read[0] != read[1] != read[2]


def test_groups_hold_different_labels_and_no_clip_runs_ahead(folder):
    stream = ClipStream(ShardSet(folder), workers=2, buffer=4)
    seen = Counter()
    for _ in range(20):
        groups = stream.groups(3, 2)
        assert all(len({clip.label for clip in group}) == 2 for group in groups)
        seen.update(place[1:] for place in places(groups))
    assert len(seen) == 12 and sum(seen.values()) == 120
    assert min(seen.values()) >= 9 and max(seen.values()) <= 11  # ten epochs
    assert len(set(map(len, stream.groups(2, 3)))) == 1


def test_a_restored_stream_goes_on_where_the_state_was_taken(folder, tmp_path):
    options = {"workers": 2, "buffer": 4, "seed": 5, "most": 4_000}
    stream, waiting = ClipStream(ShardSet(folder), **options), set()
    groups = [stream.groups(2, 3) for _ in range(12)]
    for drawn in (0, 3, 6, 10):
        stream = ClipStream(ShardSet(folder), **options)
        for _ in range(drawn):
            stream.groups(2, 3)
        write_state(tmp_path / "state.pt", stream.state())
        waiting.add(len(stream.state()["waiting"]))
        again = ClipStream(ShardSet(folder), **options)
        again.restore(read_state(tmp_path / "state.pt"))
        for expected in groups[drawn:]:
            found = again.groups(2, 3)
            assert places(found) == places(expected)
            for a, b in zip(chain(*found), chain(*expected), strict=True):
                assert np.array_equal(a.samples, b.samples)
    assert len(waiting) > 1  # clips that wait for a partner are part of the state


def test_what_was_used_before_a_restored_place_is_not_read_again(folder, monkeypatch):
    shards, opened = ShardSet(folder), []
    members = shards.members
    monkeypatch.setattr(shards, "members", lambda tar: opened.append(tar) or members(tar))
    reader = Reader(shards, 0, 1, 1, 4_000, 0)  # a buffer of one: in the order of the tars
    next(iter(reader.clips(0, 8)))
    assert opened == reader.tars(0)[4:5]


def test_seed_alone_decides_the_order(folder):
    def first(**options):
        return places(ClipStream(ShardSet(folder), buffer=4, **options).groups(4, 2))

    assert first(seed=1) == first(seed=1)
    assert first(seed=1) != first(seed=2)


def test_clips_that_never_find_a_partner_are_left_out_and_said(corpus, tmp_path, monkeypatch):
    from sep.data import kaldi

    data = DataDir(corpus / "data")
    entries = [
        kaldi.Entry(i, data.wav[i], "a sound", "hiss" if k == 3 else "tone", data.duration_s[i])
        for k, i in enumerate(data.ids)
    ]
    kaldi.write(tmp_path / "data", entries)
    queries = QueryBank(corpus / "queries.safetensors")
    pack(DataDir(tmp_path / "data"), queries, tmp_path / "tars", Packing(clips=3), say=len)
    monkeypatch.setattr(clip_stream, "_WAITING", 5)
    stream = ClipStream(ShardSet(tmp_path / "tars"), workers=1)
    with pytest.warns(UserWarning, match="clips of 'tone' find no clip of another label") as said:
        groups = stream.groups(10, 2)
    assert all({clip.label for clip in group} == {0, 1} for group in groups)
    assert len(said) == 1 and stream.left_out > 50


def test_a_damaged_clip_is_named_once_and_left_out(corpus, tmp_path):
    data, queries = DataDir(corpus / "data"), QueryBank(corpus / "queries.safetensors")
    pack(data, queries, tmp_path, Packing(clips=6), say=len)
    tar = tmp_path / "data-00001.tar"
    content = bytearray(tar.read_bytes())
    middle = content.index(b"fLaC") + 2_000
    content[middle] ^= 0x55
    tar.write_bytes(content)
    stream = ClipStream(ShardSet(tmp_path), workers=2)
    with pytest.warns(UserWarning, match=r"data-00001\.tar: clip .*damaged") as said:
        drawn = [place for _ in range(30) for place in places(stream.groups(2, 2))]
    assert len(said) == 1 and "left out, 1 such clips" in str(said[0].message)
    assert len({place[1:] for place in drawn}) == 11

    content[content.index(b"fLaC", middle) + 2_000] ^= 0x55
    tar.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(DataError, match="1 before it"):
        stream = ClipStream(ShardSet(tmp_path), workers=2)
        [stream.groups(2, 2) for _ in range(10)]


def test_a_tar_that_breaks_while_it_is_read_stops_with_its_name(folder, tmp_path):
    import shutil

    path = shutil.copytree(folder, tmp_path / "tars")
    shards = ShardSet(path)
    for tar in path.glob("*.tar"):
        tar.write_bytes(tar.read_bytes()[:1_500])
    with pytest.raises(DataError, match=r"data-0000\d\.tar: "), warnings.catch_warnings():
        ClipStream(shards).groups(4, 2)


def test_more_readers_than_tars_are_refused(folder):
    with pytest.raises(DataError, match=r"6 tars for 8 readers"):
        ClipStream(ShardSet(folder), world=4, workers=2)
    with pytest.raises(OptionError, match="tar_workers"):
        ClipStream(ShardSet(folder), workers=0)
