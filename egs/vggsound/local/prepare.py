"""Stage 1: VGGSound to data directories, and the fixed mixtures of VGGSound-clean+.

python local/prepare.py --vggsound DIR --csv downloads/vggsound.csv \\
    --clean downloads/test-good.csv --noise downloads/test-no-music.csv
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from sep.data import mirror, mixtures, protocol, vggsound
from sep.data.collection import Collection, by_hash
from sep.data.extract import Job, extract
from sep.program import guarded

VALID = 2  # clips of a class at most


def choose(
    listed: list[vggsound.Clip], tested: set[str], there: set[str] | None, per_class: int
) -> dict[str, list[vggsound.Clip]]:
    """The clips that train and validate, by split; no video is on two sides.

    Args:
        listed: the whole list.
        tested: videos that neither train nor validate.
        there: names of the clips that are to be had and come first; None where that is not known.
        per_class: most training clips of a class, 0: all.
    """
    of_label: dict[str, dict[str, vggsound.Clip]] = defaultdict(dict)
    for clip in listed:
        if clip.video not in tested:
            of_label[clip.label][clip.name] = clip
    chosen: dict[str, list[vggsound.Clip]] = {"train": [], "valid": []}
    order = {label: by_hash(named) for label, named in of_label.items()}
    for label, names in order.items():
        if there is not None:
            names.sort(key=lambda name: name not in there)
        first = min(VALID, len(names) // 5)
        chosen["valid"] += [of_label[label][name] for name in names[:first]]
        order[label] = names[first:]
    held = {clip.video for clip in chosen["valid"]}
    for label, names in order.items():
        found = [of_label[label][name] for name in names]
        found = [clip for clip in found if clip.video not in held]
        chosen["train"] += found[: per_class or None]
    return chosen


def read_list(
    path: Path, named: dict[str, vggsound.Clip], faults: list[str]
) -> list[protocol.Listed]:
    """Read an evaluation list with the names and labels of `named`; adds to `faults`."""
    lines, found = protocol.read(path, vggsound.name_of)
    faults += found
    names = vggsound.Names(named)
    listed = []
    for line in lines:
        clip = named.get(names(line.name) or "")
        if line.name and clip is None:
            faults.append(f"{path}:{line.line}: {line.name} is not in vggsound.csv; correct the id")
        label = clip.label if clip else line.label
        listed.append(replace(line, name=clip.name if clip else "", label=label))
    return listed


def run(arguments: argparse.Namespace) -> None:
    """Remove what an earlier run made, extract what is usable, name the rest, write."""
    table = arguments.csv
    listed, faults = vggsound.read(table)
    named = {clip.name: clip for clip in listed}
    clean = read_list(arguments.clean, named, faults)
    noise = read_list(arguments.noise, named, faults) if arguments.noise else clean
    fixed = protocol.fix(clean, noise)
    names = vggsound.Names(named)
    found = mirror.look(arguments.vggsound.resolve(), names)
    there = None if found.tars else set(found.places)
    if there is not None:
        print(f"{arguments.vggsound}: {len(there)} of {len(listed)} listed clips are there")
    collection = Collection(arguments.data.resolve())
    split_of = {name: "test" for name in fixed.centres_s}
    tested = {clip.video for clip in listed if clip.split == "test" or clip.name in split_of}
    for split, clips in choose(listed, tested, there, arguments.per_class).items():
        split_of |= {clip.name: split for clip in clips}
    wanted = {
        name: Job(
            name,
            collection.data,
            start_s=named[name].start_s,
            samples=mixtures.SEGMENT if split == "test" else None,
            centre_s=fixed.centres_s.get(name),
        )
        for name, split in split_of.items()
    }
    made = extract(collection.data, found, wanted, names, arguments.nj)
    collection.faults += [*faults, *found.faults]
    for clip in listed:
        split = split_of.get(clip.name)
        if split:
            at = f"{table}:{clip.line}: {clip.name}"
            one = made.get(clip.name)
            collection.take(split, clip.label, clip.label, at, one, arguments.vggsound)
    collection.write()
    title = f"Targets of {arguments.clean.name}, interferers of "
    title += (arguments.noise or arguments.clean).name
    collection.mix(fixed, title, arguments.valid_mixtures, video_of)


def video_of(id_: str) -> str:
    """The video that a clip was cut from."""
    return id_[:11]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--vggsound", type=Path, required=True, help="folder or tar of the clips")
    parser.add_argument("--csv", type=Path, required=True, help="vggsound.csv")
    parser.add_argument("--clean", type=Path, required=True, help="list of the targets")
    parser.add_argument("--noise", type=Path, help="list of the interferers; default: --clean")
    parser.add_argument("--per-class", type=int, default=50, help="training clips; 0: all")
    parser.add_argument("--valid-mixtures", type=int, default=200)
    parser.add_argument("--nj", type=int, default=2, help="processes")
    guarded(run, parser.parse_args())


if __name__ == "__main__":
    main()
