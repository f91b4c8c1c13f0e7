"""Stage 1: from unpacked packages, or a folder of your own, to data directories and mixtures.

python local/prepare.py [--downloads downloads] [--data data] [--nj 2] [--seed 0] [--full]
python local/prepare.py --sounds DIR      # DIR/<class>/*.wav, .flac, .ogg, .mp3; *.png, *.jpg
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import folder
import sources
import tables
from splits import SPLITS, Clip, assign

from sep.data import kaldi, mixtures
from sep.errors import SepError

TEST_MIXTURES, TEST_MIXTURES_FULL = 400, 800  # valid gets half as many


def share_pictures(pictures: list[str], split: str) -> list[str]:
    """Pictures that a split may show: with two or more, the last is kept for valid and test."""
    if len(pictures) < 2:
        return pictures
    return pictures[:-1] if split == "train" else pictures[-1:]


def write_data(
    data: Path, found: list[Clip], pictures: dict[str, list[str]], counts: dict, seed: int
) -> None:
    """Write data/{train,valid,test}, then the mixtures of valid and test."""
    shown = {s: {c: share_pictures(p, s) for c, p in pictures.items()} for s in SPLITS}
    for split in SPLITS:
        of_split = sorted((c for c in found if c.split == split), key=lambda c: c.id)
        if split == "valid" and len({c.label for c in of_split}) < 2:
            print("too few recordings to hold any out for validation: training ones validate")
            of_split = sorted((c for c in found if c.split == "train"), key=lambda c: c.id)
        if len({c.label for c in of_split}) < 2:
            raise SepError(f"{split}: fewer than two classes; add recordings or classes")
        seen: Counter = Counter()
        entries = []
        for clip in of_split:
            choice = shown[split].get(clip.label, [])
            image = choice[seen[clip.label] % len(choice)] if choice else None
            seen[clip.label] += 1
            entries.append(
                kaldi.Entry(clip.id, clip.path, clip.caption, clip.label, clip.duration_s, image)
            )
        kaldi.write(data / split, entries)
    rows = [
        json.dumps(vars(c), ensure_ascii=False) + "\n" for c in sorted(found, key=lambda c: c.id)
    ]
    (data / "clips.jsonl").write_text("".join(rows), encoding="utf-8")
    dirs = {split: kaldi.DataDir(data / split) for split in SPLITS}
    recordings = {c.id: c.recording for c in found}
    for k, (split, count) in enumerate(counts.items()):
        queries = {s: d for s, d in dirs.items() if s != "test" or split == "test"}
        drawn = mixtures.draw(
            dirs[split], count, seed + k, queries, images=shown[split], recording_of=recordings.get
        )
        mixtures.save(data / split / kaldi.MIXTURES, drawn)


def report(found: list[Clip], pictures: dict[str, list[str]]) -> None:
    """Print clips, classes and hours of each split and group."""
    for split in SPLITS:
        of_split = [c for c in found if c.split == split]
        groups = Counter(c.group for c in {c.label: c for c in of_split}.values())
        hours = sum(c.duration_s for c in of_split) / 3600
        kinds = ", ".join(f"{n} {g}" for g, n in sorted(groups.items()))
        print(f"{split}: {len(of_split)} clips, {hours:.2f} h, classes: {kinds}")
    print(f"classes with a picture: {len({c.label for c in found} & set(pictures))}")


def run(arguments: argparse.Namespace) -> None:
    """Remove what an earlier run made, prepare everything, report."""
    data = arguments.data.resolve()
    for old in (*SPLITS, "wav", "images"):
        shutil.rmtree(data / old, ignore_errors=True)
    wav, images = data / "wav", data / "images"
    wav.mkdir(parents=True)
    images.mkdir()
    count = arguments.mixtures or (TEST_MIXTURES_FULL if arguments.full else TEST_MIXTURES)
    counts = {"valid": -(-count // 2), "test": count}
    if arguments.sounds:
        found, pictures = folder.prepare(arguments.sounds, wav, images, arguments.seed)
    else:
        unpacked = arguments.downloads.resolve() / "unpacked"
        if not unpacked.is_dir():
            raise SepError(f"{unpacked}: not there; run stage 0")
        packages = [p.name for p in tables.packages(arguments.full)]
        found = sources.convert_all(unpacked, packages, wav, arguments.nj)
        found += sources.render_all(unpacked, wav, arguments.seed)
        pictures = sources.draw_pictures(unpacked, packages, images)
        assign(found, {k.name: k.test_package for k in tables.classes().values()})
    write_data(data, found, pictures, counts, arguments.seed)
    report(found, pictures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--downloads", type=Path, default=Path("downloads"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--sounds", type=Path, help="folder of class folders to use instead")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the larger package list")
    parser.add_argument("--mixtures", type=int, help="test mixtures; valid gets half as many")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except SepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"error: {error.filename or arguments.data}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
