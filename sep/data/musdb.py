"""MUSDB18 as it is published: `train/` and `test/`, a song a file or a folder.

NAME.stem.mp4    MUSDB18: five sound tracks, the mixture and then drums, bass, other, vocals
NAME/*.wav       MUSDB18-HQ: mixture.wav and one file a stem
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sep import audio, container
from sep.errors import AudioFileError, DataError

STEMS = ("vocals", "drums", "bass", "other")
TRACKS = ("mixture", "drums", "bass", "other", "vocals")  # of a .stem.mp4, in order
SONGS = {"train": 100, "test": 50}
SUFFIX = ".stem.mp4"
SLACK = 4096  # samples by which the parts of a song may differ in length: two AAC frames each way
VALID = (  # the songs of train/ that validate, as in the package musdb
    "Actions - One Minute Smile",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Johnny Lokke - Promises & Lies",
    "Patrick Talbot - A Reason To Leave",
    "Triviul - Angelsaint",
    "Alexander Ross - Goodbye Bolero",
    "Fergessen - Nos Palpitants",
    "Leaf - Summerghost",
    "Skelpolu - Human Mistakes",
    "Young Griffo - Pennies",
    "ANiMAL - Rockshow",
    "James May - On The Line",
    "Meaxic - Take A Step",
    "Traffic Experiment - Sirens",
)


@dataclass(frozen=True)
class Song:
    """A song of the split train, valid or test; `path` is its file or folder."""

    name: str
    split: str
    path: Path

    @property
    def mixture(self) -> Path:
        """A recording whose first sound track is the mixture."""
        return self.path / "mixture.wav" if self.path.is_dir() else self.path

    @property
    def id(self) -> str:
        """The name without spaces."""
        return "_".join(self.name.replace(" - ", "-").split())


def read(root: Path) -> tuple[list[Song], list[str]]:
    """Find the songs.

    Returns:
        those that are there in whole, by name, and what is wrong with the others, a line each.

    Raises:
        DataError: neither train/ nor test/ is there.
    """
    songs: dict[str, Song] = {}
    faults: list[str] = []
    if not any((root / subset).is_dir() for subset in SONGS):
        raise DataError(f"{root}: has no train/ and test/; give the folder of MUSDB18")
    for subset in ("test", "train"):
        folder = root / subset
        if not folder.is_dir():
            faults.append(f"{folder}: is not there; fetch it")
            continue
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            song, fault = _song(path, subset)
            if song and song.name in songs:
                other = songs[song.name].path
                twin = other.parent == folder  # both editions: the folder of WAV files comes first
                song, fault = None, "" if twin else f"is in {other.parent}, too; remove one"
            if song:
                songs[song.name] = song
            if fault:
                faults.append(f"{path}: {fault}")
    return sorted(songs.values(), key=lambda song: song.name), faults


def parts(song: Song) -> tuple[Tensor, Tensor, int]:
    """Decode a song: mixture (C, N), stems (4, C, N) in the order of `STEMS`, rate in Hz.

    Raises:
        AudioFileError: a part cannot be read; or they differ in rate, channels or length.
    """
    waves = {name: _part(song, name) for name in TRACKS}
    mixture, rate = waves["mixture"]
    for name, (wave, own) in waves.items():
        if (len(wave), own) != (len(mixture), rate):
            raise AudioFileError(
                f"{song.path}: {name} has {len(wave)} channels at {own} Hz, the mixture "
                f"{len(mixture)} at {rate} Hz; fetch the song again"
            )
    lengths = {name: wave.shape[-1] for name, (wave, _) in waves.items()}
    short, long = min(lengths, key=lengths.get), max(lengths, key=lengths.get)
    if lengths[long] - lengths[short] > SLACK:
        raise AudioFileError(
            f"{song.path}: {short} has {lengths[short]} samples, {long} {lengths[long]}; "
            "one is cut off, fetch the song again"
        )
    count = lengths[short]
    return mixture[:, :count], torch.stack([waves[name][0][:, :count] for name in STEMS]), rate


def _song(path: Path, subset: str) -> tuple[Song | None, str]:
    """The song of a file or folder, or what is wrong with it."""
    name = path.name.removesuffix(SUFFIX)
    if path.is_dir():
        missing = [f"{part}.wav" for part in TRACKS if not (path / f"{part}.wav").is_file()]
        if missing:
            return None, f"has no {', '.join(missing)}; fetch it again"
    elif name == path.name:
        return None, f"is no folder of WAV files and no {SUFFIX}; remove it"
    if len(name.splitlines()) != 1 or "\t" in name:
        return None, "has a tab or a line break in its name; rename it"
    return Song(name, "valid" if subset == "train" and name in VALID else subset, path), ""


def _part(song: Song, name: str) -> tuple[Tensor, int]:
    if song.path.is_dir():
        return audio.read(song.path / f"{name}.wav")
    try:
        wave, rate = container.samples(song.path, track=TRACKS.index(name))
    except AudioFileError as error:
        raise AudioFileError(f"{error} (sound track {TRACKS.index(name)}, {name})") from None
    if not len(wave):
        raise AudioFileError(f"{song.path}: {name} has no samples; fetch the song again")
    return torch.from_numpy(wave.T.copy()), rate
