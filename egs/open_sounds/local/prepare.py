"""Stage 1: one data directory of several corpora, each class under one name, sources held out.

python local/prepare.py --esc50 DIR --philharmonia DIR --mini ../mini_sounds/data \\
    --unpacked downloads/unpacked
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import corpora
import further
import numpy as np
import pictures

from sep.data import clips, kaldi, mixtures
from sep.errors import SepError
from sep.program import guarded

TEST_FOLD, VALID_FOLD = "3", "2"  # of ESC-50
PHRASE_S = 6.0
MIXTURES = {"valid": 200, "test": 600}


def convert(job: tuple[Path, str, Path]) -> list[tuple[str, float]] | str:
    """Clean one file and write its clips; a string says why it was left out."""
    path, id_, wav = job
    try:
        parts = clips.clean(*clips.decode(path.read_bytes()))
    except clips.ClipError as error:
        return f"{path}: {error}; left out"
    return clips.write(wav, id_, parts)


def phrases(
    items: list[corpora.Item], wav: Path, prefix: str
) -> Iterator[tuple[str, str, str, float]]:
    """Join the notes of an instrument to phrases of about 6 s: split, id, label, seconds of each.

    Training notes are used twice, in two orders. A note that cannot be used is named and left out.
    """
    for label in sorted({item.label for item in items}):
        for split in corpora.SPLITS:
            mine = [i for i in items if i.label == label and i.split == split]
            for take in range(2 if split in ("train", "tune") else 1):
                order = sorted(mine, key=lambda i: i.path.name)
                random.Random(f"{label}{split}{take}").shuffle(order)
                for k, phrase in enumerate(joined(_notes(order))):
                    name = f"{prefix}-{label.replace(' ', '-')}-{split}{take}-{k:02d}"
                    for id_, seconds in clips.write(wav, name, [phrase]):
                        yield split, id_, label, seconds


def _notes(items: list[corpora.Item]) -> Iterator[np.ndarray]:
    for item in items:
        try:
            yield from clips.clean(*clips.decode(item.path.read_bytes()))[:1]
        except clips.ClipError as error:
            print(f"{item.path}: {error}; left out")


def joined(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Short sounds (N,) at 16 kHz one after the other, to phrases of about 6 s."""
    phrase: list[np.ndarray] = []
    for part in parts:
        phrase.append(part)
        if sum(map(len, phrase)) >= PHRASE_S * clips.SAMPLE_RATE:
            yield np.concatenate(phrase)
            phrase = []
    if phrase:
        yield np.concatenate(phrase)


def run(arguments: argparse.Namespace) -> None:
    """Remove what an earlier run made, convert, and write the data directories."""
    if not (arguments.esc50 or arguments.philharmonia or arguments.mini):
        raise SepError("no corpus: give --esc50, --philharmonia or --mini")
    data = arguments.data.resolve()
    for old in (*corpora.SPLITS, "wav", "images"):
        shutil.rmtree(data / old, ignore_errors=True)
    wav, images = data / "wav", data / "images"
    wav.mkdir(parents=True)
    images.mkdir()
    valid_fold = "" if arguments.final else VALID_FOLD
    names = corpora.labels()
    canonical = {other: name for name, label in names.items() for other in label.also}
    splits = [split for split in corpora.SPLITS if split != "tune" or arguments.tune]
    rows: dict[str, list[tuple[str, str, str, float]]] = {split: [] for split in splits}
    recordings: dict[str, str] = {}  # where several clips were cut from one
    captions = {name: list(label.captions) for name, label in names.items()}
    shown = {split: {} for split in corpora.SPLITS}  # {split: {class: pictures}}

    def add(split: str, id_: str, path: str, label: str, seconds: float) -> None:
        captions.setdefault(label, [])
        rows[split].append((id_, path, label, seconds))

    if arguments.esc50:
        items = corpora.read(arguments.esc50.resolve())
        corpora.hold_out(items, TEST_FOLD, valid_fold, arguments.tune)
        corpora.report("esc50", items)
        jobs = [(item.path, f"esc-{item.path.stem}", wav) for item in items]
        with ProcessPoolExecutor(arguments.nj) as pool:
            for item, made in zip(items, pool.map(convert, jobs, chunksize=16), strict=True):
                if isinstance(made, str):
                    print(made)
                    continue
                for id_, seconds in made:
                    recordings[id_] = f"esc-{item.source}"
                    add(item.split, id_, str(wav / f"{id_}.wav"), item.label, seconds)
    if arguments.philharmonia:
        items = corpora.read(arguments.philharmonia.resolve())
        corpora.hold_out(items, TEST_FOLD, valid_fold, arguments.tune)
        corpora.report("philharmonia", items)
        for split, id_, label, seconds in phrases(items, wav, "phil"):
            add(split, id_, str(wav / f"{id_}.wav"), label, seconds)
    if arguments.mini:
        lines = (arguments.mini / "clips.jsonl").read_text(encoding="utf-8").splitlines()
        for clip in map(json.loads, lines):
            recordings[f"mini-{clip['id']}"] = f"mini-{clip['recording']}"
        other = kaldi.DataDir(arguments.mini / "train")
        sources = {id_: (other.label[id_], recordings[f"mini-{id_}"]) for id_ in other.ids}
        apart = corpora.keep_apart(sources.values(), arguments.tune)
        for split in ("train", "valid", "test"):
            other = kaldi.DataDir(arguments.mini / split)
            for id_ in other.ids:
                label = canonical.get(other.label[id_], other.label[id_])
                part = "tune" if split == "train" and sources[id_][1] in apart else split
                add(part, f"mini-{id_}", other.wav[id_], label, other.duration_s[id_])
                if other.text[id_] not in captions[label]:
                    captions[label].append(other.text[id_])
                if id_ in other.image:
                    shown[split].setdefault(label, set()).add(other.image[id_])
    if arguments.unpacked:
        for id_, label, seconds in further.convert(arguments.unpacked, wav, joined):
            add("train", id_, str(wav / f"{id_}.wav"), label, seconds)
        for split, of_split in pictures.draw(arguments.unpacked, images).items():
            for label, paths in of_split.items():
                shown[split].setdefault(label, set()).update(paths)
    shown["tune"] = shown["train"]
    for split, of_split in rows.items():
        if split not in ("train", "tune"):  # what held-out recordings show was never trained on
            seen = shown["train"]
            shown[split] = {k: paths - seen.get(k, set()) for k, paths in shown[split].items()}
        kaldi.write(data / split, _entries(of_split, captions, shown[split]))
        kaldi.write_pictures(
            data / split, ((path, label) for label in shown[split] for path in shown[split][label])
        )
    dirs = {split: kaldi.DataDir(data / split) for split in splits}
    old = [i for i in dirs["train"].ids if not i.startswith(further.PREFIX)]
    dirs["train"].ids = old  # test mixtures and their queries stay when recordings to train on come
    for seed, (split, count) in enumerate(MIXTURES.items()):
        queries = {s: d for s, d in dirs.items() if s != "test" or split == "test"}
        drawn = mixtures.draw(
            dirs[split],
            arguments.mixtures or count,
            seed,
            queries,
            images={label: sorted(paths) for label, paths in shown[split].items()},
            recording_of=lambda id_: recordings.get(id_, id_),
        )
        mixtures.save(data / split / kaldi.MIXTURES, drawn)


def _entries(
    rows: list[tuple[str, str, str, float]],
    captions: dict[str, list[str]],
    shown: dict[str, set[str]],
) -> Iterator[kaldi.Entry]:
    """Give each recording of a class the next of its captions and pictures."""
    seen: Counter = Counter()
    for id_, path, label, seconds in sorted(rows):
        texts, paths = captions[label], sorted(shown.get(label, ()))
        k = seen[label]
        seen[label] += 1
        image = paths[k % len(paths)] if paths else None
        yield kaldi.Entry(id_, path, texts[k % len(texts)], label, seconds, image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--esc50", type=Path, help="ESC-50, or a part of it with meta.tsv")
    parser.add_argument("--philharmonia", type=Path, help="single notes with meta.tsv")
    parser.add_argument("--mini", type=Path, help="data directories of mini_sounds")
    parser.add_argument("--unpacked", type=Path, help="where stage 0 unpacked its packages")
    parser.add_argument(
        "--final", action="store_true", help="train on what esc50 and philharmonia validate, too"
    )
    parser.add_argument(
        "--tune", type=float, default=0.0, help="share of training recordings for stage 5 alone"
    )
    parser.add_argument("--mixtures", type=int, help="of valid and of test, instead of 200 and 600")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    guarded(run, parser.parse_args())


if __name__ == "__main__":
    main()
