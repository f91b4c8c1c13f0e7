"""Stage 6, after the excerpts: separate the whole test songs with every trained system.

Writes `separated/songs/<system>/test/<song>/<stem>.wav`, what the program museval reads. A song is
read once; its four stems are asked for by their names. Songs that are there in whole are kept.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import time
from pathlib import Path

from sep import audio
from sep.data import musdb
from sep.errors import ModelError
from sep.program import guarded, say
from sep.separator import Separator

SYSTEMS = ("supervised", "control", "rl")


def songs(data: Path) -> list[musdb.Song]:
    """The test songs that stage 1 found to be usable."""
    lines = (data / "songs.tsv").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines)
    return [musdb.Song(name, "test", Path(path)) for name, path in pairs]


def separate(separator: Separator, song: musdb.Song, folder: Path) -> None:
    """Write the stems of a song in 16 bit, or as floating point where they could clip."""
    places = [folder / f"{stem}.wav" for stem in musdb.STEMS]
    if all(place.is_file() for place in places):
        return
    peak = max(float(block.abs().max()) for block in audio.blocks(song.mixture))
    separator.split_file(
        song.mixture,
        places,
        queries=list(musdb.STEMS),
        subtype="PCM_16" if peak < 1 else "FLOAT",
    )


def run(arguments: argparse.Namespace) -> None:
    """Separate with each system that is trained."""
    exp = arguments.exp
    found = [s for s in arguments.systems if (exp / s / "best" / "config.json").is_file()]
    if not found:
        raise ModelError(f"{exp}: none of {', '.join(arguments.systems)} is trained")
    wanted = songs(arguments.data)
    for system in found:
        since = time.perf_counter()
        separator = Separator.from_pretrained(exp / system / "best", arguments.device)
        for k, song in enumerate(wanted, 1):
            separate(separator, song, exp / "separated" / "songs" / system / "test" / song.name)
            took = time.perf_counter() - since
            say(f"{system}: song {k} of {len(wanted)}, {took:.0f} s: {song.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--exp", type=Path, default=Path("exp/main"))
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--device", default="auto")
    guarded(run, parser.parse_args())


if __name__ == "__main__":
    main()
