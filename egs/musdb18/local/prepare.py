"""Stage 1: MUSDB18 to chunks of stems, excerpts of songs as mixtures, and the list of test songs.

    python local/prepare.py --musdb downloads/musdb18

Chunks are mono at 16 kHz and as loud as in the song, so that the four of a moment add up to it.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import random
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch

from sep import audio
from sep.data import clips, kaldi, mixtures, musdb
from sep.errors import AudioFileError, DataError
from sep.program import guarded

SPLITS = ("train", "valid", "test")
HEARD_DB, HEARD_S = -50.0, 0.5  # what a chunk or an excerpt of a stem must have
UNLIKE_DB = -10.0  # from the sum of its stems a mixture may differ by; AAC gives -17
Chunk = tuple[str, int, str, float]  # stem, place in the song, id, seconds


def heard(wave: np.ndarray) -> bool:
    """Whether samples (N,) at 16 kHz have half a second of sound."""
    loud = len(wave) and clips.frame_levels(wave).max() > HEARD_DB
    return bool(loud) and clips.active_s(wave) >= HEARD_S


def cut(job: tuple[musdb.Song, Path, float]) -> tuple[list[Chunk], str] | str:
    """Write the chunks of a song's stems that sound, all of one length but the last.

    Returns them and a note on the song, or what is wrong with it.
    """
    song, wav, chunk_s = job
    torch.set_num_threads(1)
    try:
        mixture, stems, rate = musdb.parts(song)
    except AudioFileError as error:
        return str(error)
    rest, whole = ((x.double() ** 2).sum() for x in (mixture - stems.sum(0), mixture))
    unlike_db = float(10 * torch.log10(rest / whole.clamp(min=1e-12)))
    note = ""
    if unlike_db > UNLIKE_DB:
        note = f"{song.path}: the stems add up to the mixture only to {unlike_db:.0f} dB"
    size, made = round(chunk_s * kaldi.SAMPLE_RATE), []
    for name, stem in zip(musdb.STEMS, stems, strict=True):
        mono = audio.resample(stem.mean(0), rate, kaldi.SAMPLE_RATE).numpy()
        for place, start in enumerate(range(0, len(mono), size)):
            chunk = mono[start : start + size]
            if heard(chunk):
                id_ = f"{song.id}-{name}-{place:03d}"
                ((_, seconds),) = clips.write(wav, id_, [chunk])
                made.append((name, place, id_, seconds))
    return made, note


def excerpts(
    data: kaldi.DataDir, place_of: dict[str, tuple[str, int]], count: int, seed: int
) -> list[mixtures.Mixture]:
    """Moments of songs in which all four stems sound, with each stem as the target in turn.

    Args:
        place_of: song and chunk of each id.
        count: how many at most.
        seed: of the order, and of where in a chunk an excerpt lies.
    """
    found: dict[tuple[str, int], dict[str, str]] = {}
    for id_ in data.ids:
        found.setdefault(place_of[id_], {})[data.label[id_]] = id_
    places = [place for place, stems in found.items() if len(stems) == len(musdb.STEMS)]
    rng = random.Random(seed)
    rng.shuffle(places)
    drawn: list[mixtures.Mixture] = []
    for k, place in enumerate(places * len(musdb.STEMS)):
        turn, spot = divmod(k, len(places))
        stems = [musdb.STEMS[(turn + spot + i) % len(musdb.STEMS)] for i in range(4)]
        target, *others = (found[place][stem] for stem in stems)
        room_s = min(data.duration_s[i] for i in (target, *others))
        offset_s = round(rng.uniform(0, max(0.0, room_s - mixtures.SEGMENT / kaldi.SAMPLE_RATE)), 4)
        start = round(offset_s * kaldi.SAMPLE_RATE)
        wave, _ = soundfile.read(data.wav[target], frames=mixtures.SEGMENT, start=start)
        if not heard(wave):
            continue
        ids = [i for i in data.ids if data.label[i] == stems[0] and place_of[i][0] != place[0]]
        drawn.append(
            mixtures.Mixture(
                id=f"mix{len(drawn):04d}",
                target=target,
                interferers=others,
                offsets_s=[offset_s] * 4,
                gains_db=[0.0] * 4,
                text=data.text[target],
                label=stems[0],
                interferer_labels=stems[1:],
                audio_query=rng.choice(ids) if ids else None,
                audio_query_split=data.path.name if ids else None,
                image=None,
                seed=seed,
            )
        )
        if len(drawn) == count:
            break
    return drawn


def run(arguments: argparse.Namespace) -> None:
    """Remove what an earlier run made, convert what is usable, name the rest, write."""
    root, data = arguments.musdb.resolve(), arguments.data.resolve()
    songs, faults = musdb.read(root)
    for old in (*SPLITS, "wav"):
        shutil.rmtree(data / old, ignore_errors=True)
    wav = data / "wav"
    wav.mkdir(parents=True)
    entries: dict[str, list[kaldi.Entry]] = {split: [] for split in SPLITS}
    place_of: dict[str, tuple[str, int]] = {}
    used: list[musdb.Song] = []
    jobs = [(song, wav, arguments.chunk_s) for song in songs]
    with ProcessPoolExecutor(arguments.nj) as pool:
        for song, made in zip(songs, pool.map(cut, jobs), strict=True):
            if isinstance(made, str):
                faults.append(made)
                continue
            if made[1]:
                print(f"note: {made[1]}")
            used.append(song)
            for stem, place, id_, seconds in made[0]:
                path = str(wav / f"{id_}.wav")
                entries[song.split].append(kaldi.Entry(id_, path, stem, stem, seconds))
                place_of[id_] = (song.name, place)
    for fault in faults:
        print(fault)
    count = Counter(song.split for song in used)
    wanted = {"train": 100 - len(musdb.VALID), "valid": len(musdb.VALID), "test": 50}
    for split, number in wanted.items():
        print(f"{split}: {count[split]} songs of {number}, {len(entries[split])} chunks of stems")
    if not entries["valid"]:
        print("valid: none of its songs is here; training songs validate")
        entries["valid"] = entries["train"]
    for split, found in entries.items():
        missing = set(musdb.STEMS) - {entry.label for entry in found}
        if missing:
            raise DataError(f"{root}: {split}: no usable {', '.join(sorted(missing))}")
        kaldi.write(data / split, found)
    for split, number in (
        ("valid", arguments.valid_mixtures),
        ("test", arguments.test_mixtures),
    ):
        drawn = excerpts(kaldi.DataDir(data / split), place_of, number, SPLITS.index(split))
        if not drawn:
            raise DataError(f"{root}: {split}: no moment in which all four stems sound")
        mixtures.save(data / split / kaldi.MIXTURES, drawn)
        print(f"{split}: {len(drawn)} excerpts")
    lines = [f"{song.name}\t{song.path}\n" for song in used if song.split == "test"]
    (data / "songs.tsv").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--musdb", type=Path, required=True, help="train/ and test/")
    parser.add_argument("--chunk-s", type=float, default=10.0, help="length of a chunk")
    parser.add_argument("--valid-mixtures", type=int, default=200)
    parser.add_argument("--test-mixtures", type=int, default=400)
    parser.add_argument("--nj", type=int, default=2, help="processes")
    guarded(run, parser.parse_args())


if __name__ == "__main__":
    main()
