"""Stage 1: AudioCaps to data directories and mixtures at 0 dB, AudioSep's own where its list is.

    python local/prepare.py --tables downloads --audio downloads/audio

Every fault goes to `faults.txt` beside the data; the first ones are printed.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import random
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import families
import torch

from sep import audio
from sep.data import audiocaps, clips, kaldi, mixtures
from sep.data.whole import cut_off
from sep.errors import AudioFileError, DataError
from sep.program import guarded

SPLITS = ("train", "valid", "test")
SHOWN = 30  # faults that are printed
CAPTION = "-caption"  # in the id of a further caption of a clip
WHOLE_S = 2 * audiocaps.CLIP_S  # what is longer is a whole video: the clip is cut out
Wanted = tuple[str, str, str]  # a mixture: target, interferer, caption
Labels = dict[str, str]  # class by id of a clip
Converted = tuple[dict[str, tuple[str, float]], list[str]]


def choose(found: list[audiocaps.Clip], count: int) -> list[audiocaps.Clip]:
    """As many training clips, drawn in turn from the families; all where `count` is 0."""
    train = [clip for clip in found if clip.split == "train"]
    if count and len(train) > count:
        groups: dict[str, list[audiocaps.Clip]] = {}
        for clip in train:
            groups.setdefault(families.of(clip.captions)[0], []).append(clip)
        rng = random.Random(0)
        order = []
        for group in groups.values():
            rng.shuffle(group)
            order += list(enumerate(group))
        train = [clip for _, clip in sorted(order, key=lambda pair: (pair[0], pair[1].id))[:count]]
    return train + [clip for clip in found if clip.split != "train"]


def convert(job: tuple[audiocaps.Clip, Path]) -> list[tuple[str, float]] | str:
    """Clean one clip and write it, trimmed for training; a string says what is wrong with it."""
    clip, wav = job
    torch.set_num_threads(1)
    try:
        if cut_off(clip.path):
            return f"{clip.path}: is cut off; fetch it again"
        wave, rate = audio.read(clip.path)
        if wave.shape[-1] > WHOLE_S * rate:
            wave, rate = audio.read(clip.path, clip.start_s, audiocaps.CLIP_S)
        parts = clips.clean(wave.T.numpy(), rate, trim=clip.split != "test")
        return clips.write(wav, clip.id, parts)
    except AudioFileError as error:
        return str(error)
    except (clips.ClipError, OSError) as error:
        return f"{clip.path}: {error}; fetch it again or remove the line"


def listed(path: Path, used: dict[str, audiocaps.Clip]) -> tuple[list[Wanted], Labels, list[str]]:
    """AudioSep's mixtures whose clips are here, the classes its list gives, and the faults."""
    pairs, faults = audiocaps.read_pairs(path, used)
    labels = {pair.target: pair.labels for pair in pairs}
    wanted = []
    for pair in pairs:
        if labels.get(pair.interferer) == pair.labels:
            faults.append(f"{path}:{pair.line}: the classes of both clips are the same")
        else:
            wanted.append((pair.target, pair.interferer, pair.caption))
    print(f"{path.name}: {len(wanted)} mixtures of {len(pairs) + len(faults)} can be made")
    return wanted, labels, faults


def drawn(found: list[audiocaps.Clip]) -> tuple[list[Wanted], Labels, list[str]]:
    """For each caption of each clip another clip that shares no family of sounds with it."""
    named = {clip.id: families.of(clip.captions) for clip in found}
    sets = {id_: frozenset(kinds) for id_, kinds in named.items()}
    wanted, faults = [], []
    for clip in found:
        others = [id_ for id_, kinds in sets.items() if kinds.isdisjoint(sets[clip.id])]
        if not others:
            faults.append(f"{clip.path}: every other clip shares a sound with it; not mixed")
            continue
        for k, caption in enumerate(clip.captions):
            wanted.append((clip.id, random.Random(f"{clip.id}-{k}").choice(others), caption))
    return wanted, {id_: kinds[0] for id_, kinds in named.items()}, faults


def write_split(
    folder: Path,
    found: dict[str, audiocaps.Clip],
    made: dict[str, tuple[str, float]],
    labels: Labels,
    wanted: list[Wanted],
) -> list[tuple[str, str]]:
    """Write a data directory; returns target and interferer of each wanted mixture.

    A clip is listed once, and once more for each further caption that asks for it.
    """
    entries: dict[str, kaldi.Entry] = {}
    asked: Counter[str] = Counter()
    pairs = []

    def add(id_: str, clip_id: str, caption: str) -> None:
        path, seconds = made[clip_id]
        label = labels.get(clip_id, caption)
        entries[id_] = kaldi.Entry(id_, path, caption, label, seconds)

    for target, interferer, caption in wanted:
        asked[target] += 1
        id_ = target if asked[target] == 1 else f"{target}{CAPTION}{asked[target]}"
        add(id_, target, caption)
        pairs.append((id_, interferer))
    for clip in found.values():
        if clip.id not in entries:
            add(clip.id, clip.id, clip.captions[0])
    kaldi.write(folder, entries.values())
    return pairs


def mix(data: kaldi.DataDir, pairs: list[tuple[str, str]], samples: int) -> None:
    """Place the clips of each mixture at 0 dB; the audio query is another clip of the class."""
    split = data.path.name
    found = mixtures.draw(
        data,
        None,
        SPLITS.index(split),
        {split: data},
        samples,
        recording_of=lambda id_: id_.partition(CAPTION)[0],
        snr_db=0.0,
        pairs=pairs,
    )
    mixtures.save(data.path / kaldi.MIXTURES, found)
    print(f"{split}: {len(found)} mixtures")


def first_only(wanted: list[Wanted]) -> list[Wanted]:
    """The first mixture of each target."""
    first: dict[str, Wanted] = {}
    for mixture in wanted:
        first.setdefault(mixture[0], mixture)
    return list(first.values())


def report(faults: list[str], place: Path) -> None:
    """Print the first faults, and write all."""
    for fault in faults[:SHOWN]:
        print(fault)
    if len(faults) > SHOWN:
        print(f"... and {len(faults) - SHOWN} more")
    place.write_text("".join(f"{fault}\n" for fault in faults), encoding="utf-8")
    if faults:
        print(f"{len(faults)} faults, all in {place}")


def convert_all(found: list[audiocaps.Clip], wav: Path, tables: Path, nj: int) -> Converted:
    """Convert the clips; path and seconds of each by id, and what is wrong with the others."""
    made: dict[str, tuple[str, float]] = {}
    faults = []
    with ProcessPoolExecutor(nj) as pool:
        results = pool.map(convert, [(clip, wav) for clip in found], chunksize=16)
        for clip, result in zip(found, results, strict=True):
            if isinstance(result, str):
                table = tables / audiocaps.TABLES[clip.split]
                faults.append(f"{table}:{clip.line}: {result}")
            else:
                ((id_, seconds),) = result
                made[id_] = (str(wav / f"{id_}.wav"), seconds)
    return made, faults


def run(arguments: argparse.Namespace) -> None:
    """Remove what an earlier run made, convert what is usable, name the rest, write."""
    tables, data = arguments.tables.resolve(), arguments.data.resolve()
    recordings = audiocaps.recordings(arguments.audio.resolve())
    named, faults = audiocaps.read(tables, recordings)
    found = [clip for clip in named if clip.path]
    for split in SPLITS:
        here, there = (sum(clip.split == split for clip in part) for part in (found, named))
        print(f"{split}: {here} of {there} clips have a recording")
    for old in (*SPLITS, "wav"):
        shutil.rmtree(data / old, ignore_errors=True)
    (data / "wav").mkdir(parents=True)
    chosen = choose(found, arguments.train_clips)
    made, damaged = convert_all(chosen, data / "wav", tables, arguments.nj)
    used = {
        split: {clip.id: clip for clip in chosen if clip.split == split and clip.id in made}
        for split in SPLITS
    }
    if len(used["valid"]) < 2:
        print("valid: fewer than two clips; training clips validate")
        used["valid"] = used["train"]
    kinds = {id_: families.of(clip.captions)[0] for id_, clip in used["train"].items()}
    valid = drawn(list(used["valid"].values()))
    if arguments.pairs:
        test = listed(arguments.pairs, used["test"])
    else:
        test = drawn(list(used["test"].values()))
    report(faults + damaged + valid[2] + test[2], data / "faults.txt")
    rng, count = random.Random(0), arguments.valid_mixtures
    wanted = {
        "train": [],
        "valid": rng.sample(first := first_only(valid[0]), min(len(first), count)),
        "test": test[0] if arguments.captions == "all" else first_only(test[0]),
    }
    for split, labels in (("train", kinds), ("valid", valid[1]), ("test", test[1])):
        clip_count, classes = len(used[split]), len({labels.get(i, i) for i in used[split]})
        if classes < 2 or (split != "train" and not wanted[split]):
            raise DataError(
                f"{tables}: {split}: {clip_count} usable clips, {classes} kinds of sound and "
                f"{len(wanted[split])} mixtures; two kinds are needed"
            )
        pairs = write_split(data / split, used[split], made, labels, wanted[split])
        print(f"{split}: {clip_count} clips, {classes} kinds of sound")
        if split != "train":
            length = arguments.test_samples if split == "test" else mixtures.SEGMENT
            mix(kaldi.DataDir(data / split), pairs, length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--tables", type=Path, required=True, help="train.csv, val.csv, test.csv")
    parser.add_argument("--audio", type=Path, required=True, help="recordings, at any depth")
    parser.add_argument("--pairs", type=Path, help="AudioSep's audiocaps_eval.csv")
    parser.add_argument("--captions", choices=("first", "all"), default="first", help="of a clip")
    parser.add_argument("--train-clips", type=int, default=6000, help="0: all")
    parser.add_argument("--valid-mixtures", type=int, default=200)
    parser.add_argument("--test-samples", type=int, default=160_000, help="of a test mixture")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    guarded(run, parser.parse_args())


if __name__ == "__main__":
    main()
