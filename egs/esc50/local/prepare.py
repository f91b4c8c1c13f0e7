"""Stage 1: ESC-50 to data directories and mixtures, a fold or ten classes held out.

python local/prepare.py --esc50 downloads/ESC-50-master --fold 1
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from sep.data import clips, esc50, kaldi, mixtures
from sep.data.whole import cut_off
from sep.errors import DataError
from sep.program import guarded

SPLITS = ("train", "valid", "test")
# The third and the eighth of every ten: animals, nature, people, indoors, outdoors.
HELD_OUT = (
    "pig", "insects", "crackling fire", "pouring water", "clapping", "brushing teeth",
    "keyboard typing", "clock alarm", "siren", "airplane",
)  # fmt: skip


def split_of(clip: esc50.Clip, fold: int, zero_shot: bool) -> str:
    """Where a clip goes: `fold` tests, the next one validates, the others train.

    With `zero_shot` every clip of the held-out classes tests, and of the others `fold` trains, too.
    """
    if zero_shot and clip.label in HELD_OUT:
        return "test"
    if int(clip.fold) == fold % 5 + 1:
        return "valid"
    return "test" if int(clip.fold) == fold and not zero_shot else "train"


def convert(job: tuple[Path, Path, bool]) -> list[tuple[str, float]] | str:
    """Clean one file and write it, trimmed or whole; a string says what is wrong with it."""
    path, wav, trim = job
    try:
        if cut_off(path):
            return "is cut off; fetch it again"
        wave, rate = clips.decode(path.read_bytes())
        return clips.write(wav, path.stem, clips.clean(wave, rate, trim=trim))
    except (clips.ClipError, OSError) as error:
        return f"{error}; fetch it again or remove the line"


def write_mixtures(
    data: Path, recording: dict[str, str], valid_count: int, test_samples: int
) -> None:
    """Draw the mixtures of valid and test at 0 dB; every test clip is a target once."""
    dirs = {split: kaldi.DataDir(data / split) for split in SPLITS}
    seen = {split: dirs[split] for split in ("valid", "train")}
    drawn = {
        "valid": mixtures.draw(
            dirs["valid"], valid_count, 0, seen, recording_of=recording.get, snr_db=0.0
        ),
        "test": mixtures.draw(
            dirs["test"], None, 1, dirs, test_samples, recording_of=recording.get, snr_db=0.0
        ),
    }
    for split, found in drawn.items():
        mixtures.save(data / split / kaldi.MIXTURES, found)
        print(f"{split}: {len(found)} mixtures")


def run(arguments: argparse.Namespace) -> None:
    """Remove what an earlier run made, convert what is usable, name the rest, write."""
    root, data = arguments.esc50.resolve(), arguments.data.resolve()
    listed, faults = esc50.read(root)
    for old in (*SPLITS, "wav"):
        shutil.rmtree(data / old, ignore_errors=True)
    wav = data / "wav"
    wav.mkdir(parents=True)
    of_clip = [split_of(clip, arguments.fold, arguments.zero_shot) for clip in listed]
    jobs = [(c.path, wav, split != "test") for c, split in zip(listed, of_clip, strict=True)]
    entries: dict[str, list[kaldi.Entry]] = {split: [] for split in SPLITS}
    recording: dict[str, str] = {}
    with ProcessPoolExecutor(arguments.nj) as pool:
        results = pool.map(convert, jobs, chunksize=16)
        for clip, split, made in zip(listed, of_clip, results, strict=True):
            if isinstance(made, str):
                faults.append(f"{esc50.table(root)}:{clip.line}: audio/{clip.path.name}: {made}")
                continue
            for id_, seconds in made:
                path, text = str(wav / f"{id_}.wav"), f"the sound of {clip.label}"
                entries[split].append(kaldi.Entry(id_, path, text, clip.label, seconds))
                recording[id_] = clip.source
    for fault in faults:
        print(fault)
    if faults:
        print(f"{len(faults)} listed clips are left out; {len(recording)} are used")
    if len({entry.label for entry in entries["valid"]}) < 2:
        print("valid: fewer than two classes; training clips validate")
        entries["valid"] = entries["train"]
    for split, found in entries.items():
        classes = len({entry.label for entry in found})
        if classes < 2:
            raise DataError(f"{root}: {split}: {classes} usable classes, two are needed")
        kaldi.write(data / split, found)
        print(f"{split}: {len(found)} clips of {classes} classes")
    write_mixtures(data, recording, arguments.valid_mixtures, arguments.test_samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--esc50", type=Path, required=True, help="audio/ and meta/esc50.csv")
    parser.add_argument("--fold", type=int, choices=range(1, 6), default=1, help="of the test")
    parser.add_argument("--zero-shot", action="store_true", help="ten classes test instead")
    parser.add_argument("--valid-mixtures", type=int, default=200)
    parser.add_argument("--test-samples", type=int, default=80_000, help="of a test mixture")
    parser.add_argument("--nj", type=int, default=2, help="processes")
    guarded(run, parser.parse_args())


if __name__ == "__main__":
    main()
