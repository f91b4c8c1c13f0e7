"""The fixed evaluation of CLIPSep and OmniSep: lists of clips, and which two of them are mixed.

Lists such as `test-good.csv` have lines `audio file, folder of frames, frames, label`; files
have YouTube ids as names, with the start or without, and there is a frame a second. Target k is the
clip of line k, its interferer line `random.Random(k).randint(0, n - 1)` of a second list of n; both
are cut around the middle frame and halved, at the levels that they have. As this depends on the
lists alone, a part of the recordings gives a part of the same mixtures.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sep.data import table
from sep.data.kaldi import DataDir
from sep.data.mixtures import SPLITS, Mixture
from sep.errors import DataError

HALF_DB = -6.0206
_AGAIN = 1000  # draws after which every clip of the second list has the target's label


@dataclass(frozen=True)
class Listed:
    """A line of an evaluation list; what it does not say is empty or None."""

    name: str
    label: str
    centre_s: float | None
    line: int


def read(path: Path, name_of: Callable[[str], str | None]) -> tuple[list[Listed], list[str]]:
    """Read a list in the format above, or one of ids, each with a label behind it or without.

    Args:
        path: the list.
        name_of: file name without suffix to the name of the clip, None for others.

    Returns:
        the lines in order, those with a fault under an empty name, as each line has its number in
        the draw; and what is wrong, as `file:line: what; fix`.

    Raises:
        DataError: there is no list, or no line of it names a clip.
    """
    listed: list[Listed] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for number, fields, fault in table.bare(path):
        file = PurePosixPath(fields[0]) if fields else PurePosixPath()
        name = name_of(file.stem if len(fields) > 2 else file.name) or ""
        if not fault and not name:
            fault = f"{fields[0]!r} is no YouTube id; restore the line"
        if fault:
            faults.append(f"{path}:{number}: {fault}")
            name = ""
        elif name in seen:  # which changes the draw of the others, if it is removed
            faults.append(f"{path}:{number}: {name} is in line {seen[name]}, too; both count")
        seen.setdefault(name, number)
        label = " ".join(fields[-1].replace("_", " ").split()) if len(fields) in (2, 4) else ""
        centre = None
        if len(fields) == 4 and fields[2].isascii() and fields[2].isdecimal():
            centre = int(fields[2]) // 2 - 0.5
        listed.append(Listed(name, label, centre, number))
    if not any(entry.name for entry in listed):
        raise DataError(
            f"{faults[0] if faults else f'{path}: is empty'}; a list has lines "
            "`audio file,frames folder,frames,label`, or YouTube ids"
        )
    return listed, faults


@dataclass(frozen=True)
class Fixed:
    """Which clips are mixed.

    Attributes:
        pairs: target and interferer of each line by name, None where they cannot be mixed.
        centres_s: {name: middle} of the clips that they need.
        again: how many interferers were drawn again, as the first had the target's label.
    """

    pairs: list[tuple[str, str] | None]
    centres_s: dict[str, float | None]
    again: int


def fix(targets: list[Listed], others: list[Listed]) -> Fixed:
    """Draw the interferer of each line of `targets` from `others`, always of another label."""
    fixed = Fixed([], {}, 0)
    again = 0
    for k, target in enumerate(targets):
        rng = random.Random(k)
        for count in range(_AGAIN):
            other = others[rng.randint(0, len(others) - 1)]
            if plain(other.label) != plain(target.label):
                again += count > 0
                break
        else:
            other = Listed("", "", None, 0)
        if not (target.name and other.name):
            fixed.pairs.append(None)
            continue
        fixed.pairs.append((target.name, other.name))
        for clip in (target, other):
            fixed.centres_s.setdefault(clip.name, clip.centre_s)
    return replace(fixed, again=again)


def plain(label: str) -> str:
    """A label as those lists write it, without commas."""
    return " ".join(label.replace(",", " ").split())


def mixtures(
    fixed: Fixed,
    data: DataDir,
    query_dirs: dict[str, DataDir],
    seed: int = 1,
    recording_of: Callable[[str], str] = str,
) -> list[Mixture]:
    """The mixtures whose two clips are there; mixture k keeps its number in a part of a list.

    The picture is the target's own. The audio query is another recording of its class, from test,
    valid or train in this order, and may differ between parts of a list.

    Args:
        fixed: the list; names are ids in `data`.
        data: the split that holds both, as clips of the length of a mixture.
        query_dirs: {split name: data directory} that audio queries may come from.
        seed: of the audio queries.
        recording_of: id to the recording it was cut from.
    """
    groups = {s: query_dirs[s].by_label() for s in SPLITS if s in query_dirs}
    drawn = []
    for k, found in enumerate(fixed.pairs):
        if found is None or not all(id_ in data.wav for id_ in found):
            continue
        target, other = found
        label, rng = data.label[target], random.Random(f"{seed}-{k}")
        used = {recording_of(id_) for id_ in found}
        split = query = None
        for name, group in groups.items():
            free = [id_ for id_ in group.get(label, []) if recording_of(id_) not in used]
            if free:
                split, query = name, rng.choice(free)
                break
        drawn.append(
            Mixture(
                id=f"mix{k:04d}",
                target=target,
                interferers=[other],
                offsets_s=[0.0, 0.0],
                gains_db=[HALF_DB, HALF_DB],
                text=data.text[target],
                label=label,
                interferer_labels=[data.label[other]],
                audio_query=query,
                audio_query_split=split,
                image=data.image.get(target),
                seed=seed,
            )
        )
    return drawn


def coverage(title: str, fixed: Fixed, data: DataDir, made: int) -> str:
    """How much of a fixed list `made` mixtures are, and why not more.

    Args:
        title: what the mixtures are.
        fixed: the list.
        data: the test split.
        made: how many mixtures there are.
    """
    whole, unlisted = len(fixed.pairs), fixed.pairs.count(None)
    targets = sum(pair is not None and pair[0] not in data.wav for pair in fixed.pairs)
    text = f"- {title}: {made} of the {whole} mixtures of the fixed list."
    if made < whole:
        text += (
            f" These scores are of that part only: {targets} targets and "
            f"{whole - made - targets - unlisted} interferers are not here or not usable, "
            f"{unlisted} lines are faulty."
        )
    if fixed.again:
        text += f" {fixed.again} interferers were drawn again, for the first was of the same class."
    return text
