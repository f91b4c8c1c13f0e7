"""Further recordings to train on, from the packages that stage 0 unpacked."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import packages
from containers import ContainerError, read_bytes
from sources import slug  # of mini_sounds

from sep.data import clips

PREFIX = "more-"  # of their ids
Join = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]


def convert(unpacked: Path, wav: Path, join: Join) -> list[tuple[str, str, float]]:
    """Clean every listed recording that is there and write its clips: id, class, seconds.

    Those of one name under `joined`, keys of a keyboard or single steps, are put together by
    `join`. Each that cannot be used is named and left out; a package that was not fetched, once.
    """
    made, groups, taken = [], {}, set()
    listed = packages.read("sounds")
    rows = [row for row in listed if (unpacked / row["package"]).is_dir()]
    absent = {row["package"] for row in listed} - {row["package"] for row in rows}
    if absent:
        print(f"not fetched: the recordings of {', '.join(sorted(absent))}")

    def write(label: str, package: str, title: str, parts: list[np.ndarray]) -> None:
        name = PREFIX + slug(f"{label} {package.removesuffix('-data')} {title}")
        while name in taken:
            name += "-2"
        taken.add(name)
        made.extend((id_, label, seconds) for id_, seconds in clips.write(wav, name, parts))

    for row in rows:
        label, package, path = row["class"], row["package"], Path(row["path"])
        try:
            parts = clips.clean(*clips.decode(read_bytes(unpacked / package, row["path"])))
        except (clips.ClipError, ContainerError) as error:
            print(f"{package}: {path.name}: {error}; left out")
            continue
        if row["joined"]:
            groups.setdefault((label, package, row["joined"]), []).append(parts[0])
        else:
            write(label, package, path.stem, parts)
    for (label, package, joined), short in groups.items():
        for k, phrase in enumerate(join(short)):
            write(label, package, f"{joined} {k:02d}", [phrase])
    count = len({label for _, label, _ in made})
    print(f"further recordings: {len(made)} clips of {count} classes")
    return made
