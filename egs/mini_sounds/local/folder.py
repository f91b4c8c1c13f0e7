"""Your own recordings: a folder of class folders, split by file."""

import random
from pathlib import Path

from containers import ContainerError, read_image
from sources import slug
from splits import Clip

from sep.data import clips
from sep.errors import SepError

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif"}
VALID, TEST = 0.1, 0.2  # the shares of a class's files


def prepare(
    root: Path, wav: Path, images: Path, seed: int
) -> tuple[list[Clip], dict[str, list[str]]]:
    """Clean every file of `root/<class>/`, split each class by file, convert pictures.

    A file that cannot be used is named in one line and skipped.

    Raises:
        SepError: no such folder, or fewer than two classes with two usable files.
    """
    if not root.is_dir():
        raise SepError(f"--sounds {root}: no such folder; give a folder of class folders")
    names = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise SepError(
            f"--sounds {root}: has no class folders; put recordings into {root}/<class>/"
        )
    found: list[Clip] = []
    pictures: dict[str, list[str]] = {}
    for number, place in enumerate(names):
        label = " ".join(place.name.replace("_", " ").replace("-", " ").split())
        usable = []
        for path in sorted(p for p in place.rglob("*") if p.is_file() and p.name[0] != "."):
            stem = f"{slug(label) or 'class'}-{number:02d}-{len(usable):04d}"
            if path.suffix.lower() in PICTURES:
                _picture(path, images / f"{number:02d}-{len(pictures.get(label, []))}.png",
                         pictures.setdefault(label, []))  # fmt: skip
            elif made := _clips(path, wav, stem):
                usable.append((stem, made))
        print(f"{label}: {len(usable)} recordings, {len(pictures.get(label, []))} pictures")
        for (stem, made), split in zip(
            usable, split_files(len(usable), f"{seed}-{label}"), strict=True
        ):
            for id_, seconds in made:
                found.append(
                    Clip(id_, str(wav / f"{id_}.wav"), label, f"the sound of {label}",
                         str(root), stem, seconds, "env", split)
                )  # fmt: skip
    two = sorted({c.label for c in found if c.split == "test"})
    if len(two) < 2:
        raise SepError(
            f"--sounds {root}: needs at least two classes of two usable recordings each, "
            f"found {len(two)}; add recordings or classes"
        )
    return found, pictures


def split_files(count: int, seed: str) -> list[str]:
    """Splits of a class's files: 70/10/20 by seed, one test file from two files on, one valid
    file from three on; a class of one file only trains."""
    test = round(TEST * count) or int(count >= 2)
    valid = round(VALID * count) or int(count >= 3)
    splits = ["test"] * test + ["valid"] * valid
    splits += ["train"] * (count - len(splits))
    random.Random(seed).shuffle(splits)
    return splits


def _clips(path: Path, wav: Path, stem: str) -> list[tuple[str, float]]:
    try:
        parts = clips.clean(*clips.decode(path.read_bytes()))
    except (clips.ClipError, OSError) as error:
        print(f"{path}: {error}; left out", flush=True)
        return []
    return clips.write(wav, stem, parts)


def _picture(path: Path, into: Path, kept: list[str]) -> None:
    try:
        image = read_image(path.parent, path.name)
    except (ContainerError, OSError) as error:
        print(f"{path}: not a readable picture ({error}); left out", flush=True)
        return
    image.save(into)
    kept.append(str(into))
