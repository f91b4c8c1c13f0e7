"""Which recordings, and the names of the files that their parts get."""

import glob
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from os.path import exists, isdir, isfile, realpath
from pathlib import Path

from sep.errors import SepError

KEPT_SUFFIXES = (".wav", ".flac", ".aiff", ".aif", ".caf", ".w64", ".au")  # written as they came
# sound that is not written, as that of `sep.container` is not
UNWRITTEN = (".aifc", ".ape", ".mp2", ".raw", ".rf64", ".snd", ".voc", ".wave", ".wv")


@dataclass(frozen=True)
class Job:
    """A recording and the files of its parts; no targets where only the residual is wanted."""

    source: Path
    targets: tuple[Path, ...]
    residual: Path | None

    @property
    def outputs(self) -> list[Path]:
        """All files to be written."""
        return [*self.targets, *([self.residual] if self.residual else [])]


def listed(name: str) -> list[str]:
    """The inputs that a text file names, one a line; `-` is standard input.

    Raises:
        SepError: the file cannot be read.
    """
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise SepError(f"--list {name}: cannot be read ({reason}); give one file a line") from None
    if "\0" in text:
        raise SepError(f"--list {name}: has characters that no file name has; give one file a line")
    return [line for line in text.removeprefix("\ufeff").splitlines() if line.strip()]


def plan(
    inputs: Sequence[str],
    out: str,
    sounds: Sequence[str] = ("target",),
    residual: bool = True,
    suffix: str | None = None,
) -> list[Job]:
    """Recordings with the names of their parts, no name given twice.

    Folders and patterns are searched for recordings and their tree is kept. Names do not depend on
    the order: where recordings differ only in their suffix, it becomes part of the name.

    Args:
        inputs: recordings, folders and patterns such as `**/*.wav`.
        out: folder of the results or, for one recording and one sound, the target's file; the
            residual's if there are no sounds.
        sounds: ends of the targets' names.
        residual: whether there is a residual.
        suffix: of all results; by default that of the recording.

    Raises:
        SepError: nothing found, or one file named for several.
    """
    from sep.audio import SUFFIXES
    from sep.container import SUFFIXES as CONTAINERS
    from sep.filenames import shortened

    check_name("-o", out)
    destination = Path(out)
    if destination.suffix.lower() in (*CONTAINERS, *UNWRITTEN) and not destination.is_dir():
        raise SepError(
            f"-o {out}: {destination.suffix} files are not written; "
            "use .wav, .flac, .ogg, .opus or .mp3"
        )
    found = list(dict.fromkeys(pair for name in inputs for pair in _found(name, destination)))
    if destination.suffix.lower() in SUFFIXES and not destination.is_dir():
        if len(found) > 1:
            raise SepError(f"-o {out} names one file for {len(found)} recordings; name a folder")
        if len(sounds) > 1:
            raise SepError(f"-o {out} names one file for {len(sounds)} sounds; name a folder")
        if suffix and destination.suffix.lower() != suffix:
            raise SepError(f"-o {out} is not of the --format {suffix[1:]}; leave one of them out")
        if not sounds:
            return [Job(found[0][0], (), destination)]
        end = f".residual{destination.suffix}"
        rest = destination.with_name(shortened(destination.stem, end) + end)
        return [Job(found[0][0], (destination,), rest if residual else None)]
    jobs, taken = [], set()
    alike = Counter(stem for _, stem in {(str(p).lower(), _stem(p).lower()) for _, p in found})
    for source, place in found:
        end = suffix or (source.suffix if source.suffix.lower() in KEPT_SUFFIXES else ".wav")
        stem = unused(str(place) if alike[_stem(place).lower()] > 1 else _stem(place), taken)
        ends = [f".{sound}{end}" for sound in (*sounds, "residual")]
        folder, name = os.path.split(stem)
        name = shortened(name, *ends)
        *targets, rest = (destination / folder / f"{name}{part}" for part in ends)
        jobs.append(Job(source, tuple(targets), rest if residual else None))
    return jobs


def check_name(option: str, path: str) -> None:
    """Refuse a file or folder by a name that no file system holds.

    Raises:
        SepError: names the option.
    """
    from sep.filenames import LONGEST

    for name in Path(path).parts:
        if (size := len(os.fsencode(name))) > LONGEST:
            fault = f"a name of {size} bytes; use one of {LONGEST} at most"
            raise SepError(f"{option} {name[:40]}...: {fault}")


def keep_apart(
    jobs: Sequence[Job], read: Sequence[str], others: Sequence[str], model: str | None = None
) -> None:
    """Refuse results in the place of what is read; a job onto its own recording fails by itself.

    Args:
        jobs: what is planned.
        read: files that are read beside the recordings; names of no file do no harm.
        others: further files that are written.
        model: folder of the model, in which nothing may be written.

    Raises:
        SepError: one would be overwritten.
    """
    taken = {realpath(job.source): str(job.source) for job in jobs}
    taken |= {realpath(name): name for name in read}
    results = [(path, realpath(job.source)) for job in jobs for path in job.outputs]
    results += [(Path(name), "") for name in others]
    home = model and realpath(model)
    for path, own in results:
        place = realpath(path)
        if home and Path(home) in Path(place).parents:
            raise SepError(f"{path}: is in the folder of the model; choose another output")
        if place in taken and place != own:
            raise SepError(
                f"{taken[place]}: is read, and would be overwritten by a result; "
                "choose another output"
            )


def _stem(place: Path) -> str:
    return str(place.with_suffix(""))


def slugs(texts: Sequence[str]) -> list[str]:
    """Ends of file names for texts, no two alike: `a dog, barking!` becomes `a-dog-barking`."""
    taken, names = {"residual"}, []
    for text in texts:
        plain = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFKC", text).casefold()).strip("-")
        short = plain.encode(errors="ignore")[:60].decode(errors="ignore").strip("-")
        names.append(unused(short or "sound", taken))
    return names


def unused(name: str, taken: set[str]) -> str:
    """`name`, or `name-2` and so on where that is taken whatever its case; takes it."""
    number, tried = 1, name
    while tried.lower() in taken:
        number += 1
        tried = f"{name}-{number}"
    taken.add(tried.lower())
    return tried


def _found(name: str, destination: Path) -> Iterator[tuple[Path, Path]]:
    """Recordings that an input names, each with its place below the output folder."""
    from sep.audio import SUFFIXES
    from sep.container import SUFFIXES as CONTAINERS

    if not name:
        raise SepError("a recording with an empty name; name a file, or . for this folder")
    source = Path(name)
    if isdir(source):
        known = (*SUFFIXES, *CONTAINERS)
        inside = sorted(p for p in source.rglob("*") if p.suffix.lower() in known and isfile(p))
        inside = _without_results(inside, source, destination)
        if not inside:
            raise SepError(f"{source}: no recordings in this folder ({', '.join(known)})")
        yield from ((path, path.relative_to(source)) for path in inside)
    elif glob.has_magic(name) and not exists(source):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), source.parts))
        matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]
        matches = [path for path in matches if isfile(path)]
        matches = _without_results(matches, root, destination)
        if not matches:
            raise SepError(f"{name}: matches no files; check the pattern")
        yield from ((path, path.relative_to(root)) for path in matches)
    else:
        yield source, Path(source.name)


def _without_results(paths: list[Path], root: Path, destination: Path) -> list[Path]:
    """Those of `paths` below `root` that are no results of an earlier run."""
    results = destination.resolve()
    if root.resolve() == results:
        return paths
    return [path for path in paths if results not in path.resolve().parents]
