"""Tables of further wordings of classes."""

import pytest

from sep.data import wording
from sep.errors import DataError


def table(tmp_path, *lines):
    path = tmp_path / "wordings.tsv"
    path.write_text("class\twordings\n" + "".join(f"{line}\n" for line in lines))
    return path


def test_a_class_has_its_own_wordings_and_those_of_every_class(tmp_path):
    path = table(tmp_path, "dog\ta hound | woof", "*\t{} in the background")
    known = wording.read(path)
    assert wording.of(known, "dog") == ["a hound", "woof", "dog in the background"]
    assert wording.of(known, "cat") == ["cat in the background"]
    assert wording.of(wording.read(None), "dog") == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("dog", "wordings.tsv:2: no class and wordings"),
        ("dog\t |", "wordings.tsv:2: no class and wordings"),
        ("*\ta sound", r"wordings.tsv:2: a wording of \* has no {}"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, what):
    with pytest.raises(DataError, match=what):
        wording.read(table(tmp_path, line))


def test_a_class_that_is_there_twice_and_a_missing_table_are_told(tmp_path):
    with pytest.raises(DataError, match=r"wordings.tsv:3: dog is there twice"):
        wording.read(table(tmp_path, "dog\ta", "dog\tb"))
    with pytest.raises(DataError, match=r"none\.tsv: cannot be read"):
        wording.read(tmp_path / "none.tsv")
