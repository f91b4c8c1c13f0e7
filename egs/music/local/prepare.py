"""Stage 1: MUSIC solos to data directories, and the fixed mixtures of MUSIC-clean+.

python local/prepare.py --music DIR --list downloads/MUSIC21_solo_videos.json \\
    --test downloads/test.csv --vggsound DIR --noise downloads/test-good-no-music.csv
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from sep.data import mirror, mixtures, music, protocol, vggsound
from sep.data.collection import Collection, by_hash
from sep.data.extract import Job, extract
from sep.program import guarded

SHARE = 10  # every tenth video of an instrument tests, where no list says so, and validates
NOISE = "vggsound-"  # in front of the ids of interferers


def music_id(stem: str) -> str | None:
    """The video that a file is of by its name without suffix; None for other files."""
    return stem if re.fullmatch(vggsound.ID, stem, re.ASCII) else None


def read_test(
    path: Path, videos: dict[str, music.Video], faults: list[str]
) -> list[protocol.Listed]:
    """Read a list of the test solos; those that `videos` lacks are added to it."""
    lines, found = protocol.read(path, music_id)
    faults += found
    listed = []
    for line in lines:
        video = videos.get(line.name)
        label = video.label if video else line.label
        if line.name and not label:
            faults.append(f"{path}:{line.line}: {line.name} has no instrument; restore the line")
            line = replace(line, name="")
        elif line.name and video is None:
            videos[line.name] = music.Video(line.name, label, path, line.line)
        listed.append(replace(line, label=label))
    return listed


def draw_test(videos: dict[str, music.Video]) -> list[protocol.Listed]:
    """Every tenth video of each instrument, by hash: the same ones whatever is there of them."""
    return [
        protocol.Listed(name, label, None, videos[name].line)
        for label, names in of_label(videos).items()
        for name in by_hash(names)[: max(1, len(names) // SHARE)]
    ]


def of_label(videos: dict[str, music.Video]) -> dict[str, list[str]]:
    """Names of the videos of each instrument."""
    groups: dict[str, list[str]] = defaultdict(list)
    for video in videos.values():
        groups[video.label].append(video.name)
    return groups


def split(videos: dict[str, music.Video], tested: set[str]) -> dict[str, str]:
    """{name: split} of every video."""
    found = dict.fromkeys(tested, "test")
    for names in of_label(videos).values():
        free = by_hash(name for name in names if name not in tested)
        held = max(1, len(free) // SHARE) if len(free) > 2 else 0
        found |= {name: "valid" if k < held else "train" for k, name in enumerate(free)}
    return found


def read_noise(path: Path, faults: list[str]) -> list[protocol.Listed]:
    """Read the list of the interferers from VGGSound."""
    lines, found = protocol.read(path, vggsound.name_of)
    faults += found
    listed = []
    for line in lines:
        if line.name and not line.label:
            faults.append(f"{path}:{line.line}: {line.name} has no label; put one behind a comma")
        usable = line.name and line.label
        listed.append(replace(line, name=f"{NOISE}{line.name}" if usable else ""))
    return listed


def add_noise(
    arguments: argparse.Namespace, noise: list[protocol.Listed], collection: Collection
) -> None:
    """Extract the interferers that the mixtures need."""
    wanted = {}
    for line in noise:
        key = line.name.removeprefix(NOISE)
        wanted[key] = Job(
            line.name,
            collection.data,
            start_s=float(key[12:]) if key[12:] else None,
            samples=mixtures.SEGMENT,
            centre_s=line.centre_s,
        )
    names = vggsound.Names(wanted)
    found = mirror.look(arguments.vggsound.resolve(), names)
    made = extract(collection.data, found, wanted, names, arguments.nj)
    collection.faults += found.faults
    for line in noise:
        at = f"{arguments.noise}:{line.line}: {line.name.removeprefix(NOISE)}"
        one = made.get(line.name)
        collection.take("test", line.label, line.label, at, one, arguments.vggsound)


def run(arguments: argparse.Namespace) -> None:
    """Remove what an earlier run made, extract what is usable, name the rest, write."""
    listed, faults = music.read(arguments.list)
    videos = {video.name: video for video in listed}
    if arguments.test:
        targets = read_test(arguments.test, videos, faults)
    else:
        targets = draw_test(videos)
    noise = read_noise(arguments.noise, faults) if arguments.vggsound else targets
    fixed = protocol.fix(targets, noise)
    division = split(videos, {line.name for line in targets if line.name})
    collection = Collection(arguments.data.resolve())
    wanted = {
        name: Job(
            name,
            collection.data,
            samples=mixtures.SEGMENT if part == "test" else None,
            centre_s=fixed.centres_s.get(name),
        )
        for name, part in division.items()
    }
    found = mirror.look(arguments.music.resolve(), lambda stem: stem if stem in videos else None)
    made = extract(collection.data, found, wanted, music_id, arguments.nj)
    collection.faults += [*faults, *found.faults]
    for video in videos.values():
        at = f"{video.list}:{video.line}: {video.name}"
        text, one = f"playing {video.label}", made.get(video.name)
        collection.take(division[video.name], video.label, text, at, one, arguments.music)
    if arguments.vggsound:
        used = {line.name: line for line in noise if line.name in fixed.centres_s}
        add_noise(arguments, list(used.values()), collection)
    collection.write()
    solos = f"Solos of {arguments.test.name}" if arguments.test else "A tenth of the solos"
    mates = f"with clips of {arguments.noise.name}" if arguments.vggsound else "with each other"
    collection.mix(fixed, f"{solos}, mixed {mates}", arguments.valid_mixtures, video_of)


def video_of(id_: str) -> str:
    """The video that a clip was cut from."""
    return id_.removeprefix(NOISE)[:11]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--music", type=Path, required=True, help="folder of the solos")
    parser.add_argument("--list", type=Path, required=True, help="MUSIC21_solo_videos.json")
    parser.add_argument("--test", type=Path, help="list of the test solos; default: every tenth")
    parser.add_argument("--vggsound", type=Path, help="folder or tar that interferers come from")
    parser.add_argument("--noise", type=Path, help="their list, with --vggsound")
    parser.add_argument("--valid-mixtures", type=int, default=200)
    parser.add_argument("--nj", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    if arguments.vggsound and not arguments.noise:
        parser.error("--vggsound needs --noise, the list of the interferers")
    guarded(run, arguments)


if __name__ == "__main__":
    main()
