"""Clips, rendered phrases and pictures from the unpacked packages."""

import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import melody
import tables
from containers import ContainerError, read_bytes, read_image
from splits import Clip

from sep.data import clips

PHRASES = {"train": 12, "valid": 3}
PHRASE_S = (6.0, 8.0)
_IGNORE = (signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C


def convert_all(unpacked: Path, packages: list[str], wav: Path, nj: int) -> list[Clip]:
    """Convert every listed sound whose package is there; name each that fails in one line.

    Args:
        unpacked: folder that holds one folder a package.
        packages: those to use.
        wav: where the clips go.
        nj: processes.
    """
    classes = tables.classes()
    jobs, names = [], Counter()
    for row in tables.read("sounds"):
        if row["package"] in packages and (unpacked / row["package"]).is_dir():
            file = row["path"].split("/")[-1]
            stem = file if "#" in file else file.rsplit(".", 1)[0]
            name = slug(f"{row['class']} {row['package'].removesuffix('-data')} {stem}")
            names[name] += 1
            jobs.append((row, name if names[name] == 1 else f"{name}-{names[name]}"))
    found, failed = [], 0
    for (row, _), result in zip(jobs, _map(_convert, jobs, unpacked, wav, nj), strict=True):
        if isinstance(result, str):
            print(f"{result}; left out")
            failed += 1
            continue
        kind = classes[row["class"]]
        for id_, seconds in result:
            own = (row["caption"], *kind.captions)
            found.append(
                Clip(id_, str(wav / f"{id_}.wav"), kind.name, own[_hash(id_) % len(own)],
                     row["package"], row["recording"], seconds, kind.group)
            )  # fmt: skip
    print(f"{len(found)} clips from {len(jobs) - failed} recordings, {failed} left out")
    return found


def _convert(unpacked: Path, wav: Path, job: tuple[dict, str]) -> list[tuple[str, float]] | str:
    row, name = job
    try:
        wave, rate = clips.decode(read_bytes(unpacked / row["package"], row["path"]))
        parts = clips.clean(wave, rate)
    except (clips.ClipError, ContainerError) as error:
        return f"{row['package']}: {row['path'].split('/')[-1]}: {error}"
    return clips.write(wav, name, parts)


def render_all(unpacked: Path, wav: Path, seed: int) -> list[Clip]:
    """Render phrases of every instrument: one sound font trains, another validates."""
    classes = tables.classes()
    found = []
    for font in tables.read("fonts"):
        path, split = unpacked / font["package"] / font["path"], font["split"]
        if not path.exists():
            print(f"{font['package']} is not there: no rendered instruments for {split}")
            continue
        renderer = melody.Renderer(path, clips.SAMPLE_RATE)
        for instrument in tables.instruments():
            kind = classes[instrument.name]
            for k in range(PHRASES[split]):
                key = f"{seed}-{split}-{instrument.name}-{k}"
                length_s = PHRASE_S[0] + (PHRASE_S[1] - PHRASE_S[0]) * (_hash(key) % 100) / 100
                notes = melody.compose(instrument, key, length_s - 0.7)
                programs = instrument.programs
                program = programs[k % len(programs)]
                wave = renderer.play(instrument, notes, program, length_s)
                name = f"{slug(instrument.name)}-{font['package'].split('-')[0]}-phrase{k + 1:02d}"
                for id_, seconds in clips.write(wav, name, clips.clean(wave[:, None], 16_000)):
                    found.append(
                        Clip(id_, str(wav / f"{id_}.wav"), kind.name,
                             kind.captions[k % len(kind.captions)], font["package"], id_, seconds,
                             kind.group, split)
                    )  # fmt: skip
    print(f"{len(found)} rendered phrases")
    return found


def draw_pictures(unpacked: Path, packages: list[str], images: Path) -> dict[str, list[str]]:
    """Convert every class's pictures to 224 x 224 PNG: {class: paths}."""
    found: dict[str, list[str]] = {}
    for kind in tables.classes().values():
        for k, (package, source) in enumerate(kind.pictures):
            if package not in packages or not (unpacked / package).is_dir():
                continue
            path = images / f"{slug(kind.name)}-{k + 1}.png"
            try:
                image = read_image(unpacked / package, source)
            except (ContainerError, OSError) as error:
                print(f"{package}: {source.split('/')[-1]}: {error}; left out")
                continue
            image.save(path)
            found.setdefault(kind.name, []).append(str(path))
    print(f"{sum(map(len, found.values()))} pictures of {len(found)} classes")
    return found


def slug(text: str) -> str:
    """Lower-case ASCII letters, digits and dashes."""
    kept = "".join(c.lower() if c.isascii() and c.isalnum() else "-" for c in text)
    return "-".join(part for part in kept.split("-") if part)


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


def _map(function: Callable, jobs: list, unpacked: Path, wav: Path, nj: int) -> Iterator:
    """Results of `function(unpacked, wav, job)` in order, with progress."""
    with ProcessPoolExecutor(nj, initializer=signal.signal, initargs=_IGNORE) as pool:
        step, begun = max(1, len(jobs) // 5), time.time()
        for k, result in enumerate(
            pool.map(partial(function, unpacked, wav), jobs, chunksize=8), 1
        ):
            if k % step == 0:
                print(f"converted {k} of {len(jobs)}, {time.time() - begun:.0f} s", flush=True)
            yield result
