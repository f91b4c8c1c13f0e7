"""Texts in the user's cache: found again, by any number of processes, whatever state it is in."""

import pytest
import torch

from encoders import EncoderError
from encoders.texts import TextCache, user_folder

WORDS = ["a dog barking", "the sound of a dog barking"]


def refuse(texts):
    raise AssertionError(f"{texts} embedded again")


def test_texts_are_embedded_once(small, tmp_path, monkeypatch):
    expected = small.embed_text(WORDS)
    assert torch.equal(TextCache(small, tmp_path)(WORDS), expected)
    monkeypatch.setattr(small, "embed_text", refuse)
    assert torch.equal(TextCache(small, tmp_path)(WORDS), expected)
    with pytest.raises(AssertionError, match="embedded again"):
        TextCache(small, tmp_path)(WORDS[:1])


def test_another_encoder_does_not_find_them(small, tmp_path, monkeypatch):
    TextCache(small, tmp_path)(WORDS)
    monkeypatch.setitem(small._buffers, "text_mean", small.text_mean + 0.01)
    changed = small.embed_text(WORDS)
    assert torch.equal(TextCache(small, tmp_path)(WORDS), changed)
    assert len(list((tmp_path / "texts").iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"\0" * 512, b"\xff" * 512, b"cut off", None])
def test_a_damaged_entry_is_embedded_anew(small, tmp_path, damage):
    cache = TextCache(small, tmp_path)
    expected = cache(WORDS)
    (entry,) = cache.folder.iterdir()
    good = entry.read_bytes()
    if damage is None:
        entry.unlink()
        entry.mkdir()
    else:
        entry.write_bytes(damage)
    assert torch.equal(cache(WORDS), expected)
    if damage is not None:
        assert entry.read_bytes() == good
    assert list(cache.folder.iterdir()) == [entry]  # no temporary file is left


def test_a_folder_that_cannot_be_written_changes_nothing(small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert torch.equal(TextCache(small, tmp_path / "file")(WORDS), small.embed_text(WORDS))


def test_two_writers_leave_one_whole_entry(small, tmp_path):
    caches = [TextCache(small, tmp_path) for _ in range(2)]
    assert torch.equal(*(cache(WORDS) for cache in caches))
    assert len(list(caches[0].folder.iterdir())) == 1


def test_a_text_that_may_be_cut_is_not_kept_so_that_the_warning_comes_again(small, tmp_path):
    cache = TextCache(small, tmp_path)
    for _ in range(2):
        with pytest.warns(UserWarning, match="longer than 256 tokens"):
            cache(["dog " * 300])
    assert not cache.folder.exists()


def test_an_empty_text_is_refused_as_ever(small, tmp_path):
    with pytest.raises(EncoderError, match="empty"):
        TextCache(small, tmp_path)([" "])


def test_the_folder_is_named_by_variables_or_lies_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("SEP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert str(user_folder()) == "/home/somebody/.cache/sep"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/somewhere")
    assert str(user_folder()) == "/var/somewhere/sep"
    monkeypatch.setenv("SEP_CACHE", "/elsewhere")
    assert str(user_folder()) == "/elsewhere"
