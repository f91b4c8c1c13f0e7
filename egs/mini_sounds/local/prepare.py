"""Stage 1: from unpacked packages, or a folder of your own, to data directories and mixtures.

python local/prepare.py [--downloads downloads] [--data data] [--nj 2] [--seed 0] [--full]
python local/prepare.py --sounds DIR      # DIR/<class>/*.wav, .flac, .ogg, .mp3; *.png, *.jpg
"""

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import clips
import folder
import melody
import soundfile
import tables
from containers import ContainerError, read_bytes, read_image
from splits import SPLITS, Clip, assign

from sep.data import kaldi, mixtures
from sep.errors import SepError

MIXTURES = {"valid": 100, "test": 200}
MIXTURES_FULL = {"valid": 200, "test": 400}
PHRASES = {"train": 12, "valid": 3}
PHRASE_S = (6.0, 8.0)


def convert_all(downloads: Path, wav: Path, nj: int) -> list[Clip]:
    """Convert every listed sound whose package is there; name each that fails in one line."""
    classes = tables.classes()
    jobs, names = [], Counter()
    for row in tables.read("sounds"):
        if (downloads / row["package"]).is_dir():
            stem = slug(Path(row["path"].replace("#", "-")).stem if "#" not in row["path"]
                        else row["path"].split("/")[-1])  # fmt: skip
            name = f"{slug(row['class'])}-{slug(row['package'].removesuffix('-data'))}-{stem}"
            names[name] += 1
            jobs.append((row, name if names[name] == 1 else f"{name}-{names[name]}"))
    found, failed = [], 0
    for (row, _), result in zip(jobs, _map(_convert, jobs, downloads, wav, nj), strict=True):
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


def _convert(downloads: Path, wav: Path, job: tuple[dict, str]) -> list[tuple[str, float]] | str:
    row, name = job
    try:
        wave, rate = clips.decode(read_bytes(downloads / row["package"], row["path"]))
        parts = clips.clean(wave, rate)
    except (clips.ClipError, ContainerError) as error:
        return f"{row['package']}: {row['path'].split('/')[-1]}: {error}"
    return write_clips(wav, name, parts)


def write_clips(wav: Path, name: str, parts: list) -> list[tuple[str, float]]:
    """Write clips of one recording and return their ids and lengths."""
    written = []
    for k, part in enumerate(parts):
        id_ = name if len(parts) == 1 else f"{name}-part{k + 1}"
        soundfile.write(wav / f"{id_}.wav", part, clips.SAMPLE_RATE, subtype="PCM_16")
        written.append((id_, len(part) / clips.SAMPLE_RATE))
    return written


def render_all(downloads: Path, wav: Path, seed: int) -> list[Clip]:
    """Render phrases of every instrument: one sound font trains, another validates."""
    classes = tables.classes()
    found = []
    for font in tables.read("fonts"):
        path, split = downloads / font["package"] / font["path"], font["split"]
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
                for id_, seconds in write_clips(wav, name, clips.clean(wave[:, None], 16_000)):
                    found.append(
                        Clip(id_, str(wav / f"{id_}.wav"), kind.name,
                             kind.captions[k % len(kind.captions)], font["package"], id_, seconds,
                             kind.group, split)
                    )  # fmt: skip
    print(f"{len(found)} rendered phrases")
    return found


def draw_pictures(downloads: Path, images: Path) -> dict[str, list[str]]:
    """Convert every class's pictures to 224 x 224 PNG: {class: paths}."""
    found: dict[str, list[str]] = {}
    for kind in tables.classes().values():
        for k, (package, source) in enumerate(kind.pictures):
            if not (downloads / package).is_dir():
                continue
            path = images / f"{slug(kind.name)}-{k + 1}.png"
            try:
                read_image(downloads / package, source).save(path)
            except (ContainerError, OSError) as error:
                print(f"{package}: {source.split('/')[-1]}: {error}; left out")
                continue
            found.setdefault(kind.name, []).append(str(path))
    print(f"{sum(map(len, found.values()))} pictures of {len(found)} classes")
    return found


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
        if not of_split:
            raise SepError(f"no recordings for {split}; add recordings or classes")
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
        drawn = mixtures.draw(
            dirs[split], count, seed + k, dirs, images=shown[split], recording_of=recordings.get
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


def slug(text: str) -> str:
    """Lower-case ASCII letters, digits and dashes."""
    kept = "".join(c.lower() if c.isascii() and c.isalnum() else "-" for c in text)
    return "-".join(part for part in kept.split("-") if part)


def _hash(text: str) -> int:
    import zlib

    return zlib.crc32(text.encode())


def _map(function, jobs: list, downloads: Path, wav: Path, nj: int):
    with ProcessPoolExecutor(max_workers=nj) as pool:
        step, begun = max(1, len(jobs) // 5), time.time()
        work = partial(function, downloads, wav)
        for k, result in enumerate(pool.map(work, jobs, chunksize=8), 1):
            if k % step == 0:
                print(f"converted {k} of {len(jobs)}, {time.time() - begun:.0f} s", flush=True)
            yield result


def run(arguments: argparse.Namespace) -> None:
    """Prepare into a temporary folder of `--data`, then swap it in."""
    data = arguments.data.resolve()
    if data.exists():
        shutil.rmtree(data)
    wav, images = data / "wav", data / "images"
    wav.mkdir(parents=True)
    images.mkdir()
    counts = MIXTURES_FULL if arguments.full else MIXTURES
    if arguments.sounds:
        found, pictures = folder.prepare(arguments.sounds, wav, images, arguments.seed)
    else:
        downloads = arguments.downloads.resolve() / "unpacked"
        if not downloads.is_dir():
            raise SepError(f"{downloads}: not there; run stage 0")
        found = convert_all(downloads, wav, arguments.nj)
        found += render_all(downloads, wav, arguments.seed)
        pictures = draw_pictures(downloads, images)
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
    parser.add_argument("--full", action="store_true", help="more mixtures")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except SepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
