"""Recordings that a stopped download has cut off."""

import numpy as np
import pytest
import soundfile

from sep.data.whole import cut_off

RATE = 16_000


def test_a_file_that_ends_early_is_noticed(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.ones(1000) / 2, RATE)
    whole = path.read_bytes()
    assert not cut_off(path)
    path.write_bytes(whole[:-10])
    assert cut_off(path)
    path.write_bytes(whole[:4] + b"\xff\xff\xff\xff" + whole[8:-10])  # streamed: no size is known
    assert not cut_off(path)
    boxes = b"\0\0\0\x10ftypmp42\0\0\0\0", b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x14abcd"
    path.write_bytes(b"".join(boxes))
    assert not cut_off(path)
    path.write_bytes(b"".join(boxes)[:-1])
    assert cut_off(path)


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\1\2" + bytes(130)])  # 1 * 128 + 2
@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_half_of_a_compressed_file_is_noticed(tmp_path, suffix, tag):
    path = tmp_path / f"x.{suffix}"
    noise = np.random.default_rng(0).normal(size=5 * RATE) * 0.1
    soundfile.write(path, noise, RATE)
    whole = path.read_bytes()
    if suffix == "mp3":
        whole = tag + whole
        path.write_bytes(whole)
    assert not cut_off(path)
    for part in (0.1, 0.5, 0.7):
        path.write_bytes(whole[: int(part * len(whole))])
        assert cut_off(path), part


def test_what_does_not_say_its_length_counts_as_whole(tmp_path):
    path = tmp_path / "x.mp3"
    for content in (b"", b"ID3", b"\xff\xfb\x90", b"\xff\xfb\x90" + bytes(2000), b"fLaC", b"hello"):
        path.write_bytes(content)
        assert not cut_off(path)
    path.write_bytes(b"\xff\xfb\x90\xc4" + bytes(246) + b"Xing")  # its header is not all there
    assert not cut_off(path)
    path.write_bytes(b"OggS")
    assert cut_off(path)
