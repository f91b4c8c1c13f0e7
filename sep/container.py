"""Containers that libsndfile cannot read (M4A, MP4, MKV, WebM, ...), decoded by ffmpeg.

Sound comes through a pipe as floating-point AU, whose short header says rate and channels; nothing
is written to disk.
"""

import io
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from shutil import which
from typing import IO, TYPE_CHECKING

import numpy as np

from sep.errors import AudioFileError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".mkv", ".mka", ".webm", ".aac", ".avi")
SUFFIXES += (".wma", ".wmv", ".flv", ".ts", ".3gp", ".amr", ".ac3")
DEMUXERS = "mov,matroska,aac,avi,asf,flv,mpegts,amr,ac3,ogg,wav,flac,mp3"  # read no further files
INSTALL = "install it with `apt-get install ffmpeg` or `pip install imageio-ffmpeg`"


def claims(path: str | Path) -> bool:
    """Whether a file is for ffmpeg, by its suffix or its first bytes."""
    if Path(path).suffix.lower() in SUFFIXES:
        return True
    with open(path, "rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp" or start[:4] == b"\x1aE\xdf\xa3":
            return True
        return _uncounted_mp3(start, file) and _found() is not None


def _uncounted_mp3(start: bytes, file: IO[bytes]) -> bool:
    """Whether an MP3 does not say how long it is; libsndfile would guess, and cut off the rest."""
    tag = start[:3] == b"ID3" and len(start) == 12
    place = 10 + int("".join(f"{byte & 127:07b}" for byte in start[6:10]), 2) if tag else 0
    file.seek(place)
    frame = file.read(256)
    mpeg = frame[:1] == b"\xff" and frame[1:2] >= b"\xe0" and frame[1:2] != b"\xff"
    return mpeg and not any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def ffmpeg() -> str:
    """The program: on the PATH, or that of the package imageio-ffmpeg.

    Raises:
        AudioFileError: there is none.
    """
    if found := _found():
        return found
    raise AudioFileError(f"ffmpeg is needed to read this kind of file; {INSTALL}")


def _found() -> str | None:
    if found := which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


def header(path: str | Path, longest_s: float | None = None) -> tuple[int, int, int]:
    """Rate in Hz, channels and frames; the file is decoded once to count them, up to `longest_s`.

    Raises:
        AudioFileError: as in `blocks`.
    """
    status = Path(path).stat()
    return _header(str(path), status.st_size, status.st_mtime_ns, longest_s)


@lru_cache(maxsize=256)
def _header(path: str, size: int, changed: int, longest_s: float | None) -> tuple[int, int, int]:
    with _decoded(path, longest_s) as (pipe, rate, channels):
        count = 0
        while block := pipe.read(2**20):
            count += len(block)
    return rate, channels, count // (4 * channels)


def blocks(path: str | Path, start: int, count: int, size: int) -> Iterator[np.ndarray]:
    """Decode the first sound track: float32 samples (n, C), n at most `size`.

    Args:
        start: first sample; what comes before is decoded and dropped.
        count: how many samples in all.

    Raises:
        AudioFileError: no ffmpeg, no sound track, or a damaged file.
    """
    with _decoded(path) as (pipe, _, channels):
        frame, left, skipped = 4 * channels, count, 0
        while skipped < start and (block := pipe.read(min(size, start - skipped) * frame)):
            skipped += len(block) // frame
        while left > 0 and (block := pipe.read(min(size, left) * frame)):
            samples = np.frombuffer(block[: len(block) // frame * frame], ">f4")
            yield samples.astype(np.float32).reshape(-1, channels)
            left -= len(block) // frame


def samples(
    path: str | Path, longest_s: float | None = None, track: int = 0
) -> tuple[np.ndarray, int]:
    """Decode a sound track at once, up to `longest_s`: float32 (N, C) and the rate in Hz.

    Args:
        track: counted from 0.

    Raises:
        AudioFileError: as in `blocks`; or no track of this number.
    """
    with _decoded(path, longest_s, track) as (pipe, rate, channels):
        data = pipe.read()
    whole = np.frombuffer(data[: len(data) // (4 * channels) * (4 * channels)], ">f4")
    return whole.astype(np.float32).reshape(-1, channels), rate


def picture(path: str | Path, at_s: float = 0.0) -> "Image.Image":
    """The frame that a video shows at `at_s` seconds.

    Raises:
        AudioFileError: no ffmpeg, no such file, or nothing to see there.
    """
    from PIL import Image

    if not Path(path).is_file():
        raise AudioFileError(f"{path}: no such file; check the name")
    try:
        command = [*_command(path, f"-ss {at_s:f}"), *"-map 0:v:0 -frames:v 1 -c:v png".split()]
        done = subprocess.run([*command, *"-f image2pipe pipe:1".split()], capture_output=True)
    except AudioFileError as error:
        raise AudioFileError(f"{path}: {error}") from None
    if done.returncode or not done.stdout:
        raise AudioFileError(f"{path}: no picture at {at_s:g} s; give a video and a time in it")
    return Image.open(io.BytesIO(done.stdout))


def _command(path: str | Path, place: str = "") -> list[str]:
    options = f"-nostdin -v error {place} -protocol_whitelist file -format_whitelist {DEMUXERS}"
    return [ffmpeg(), *options.split(), "-i", f"file:{path}"]


@contextmanager
def _decoded(
    path: str | Path, longest_s: float | None = None, track: int = 0
) -> Iterator[tuple[IO[bytes], int, int]]:
    """A pipe of big-endian float32 samples, their rate in Hz and channels."""
    try:
        place = "" if longest_s is None else f"-t {longest_s:f}"
        wanted = f"-map 0:a:{track} -c:a pcm_f32be -f au pipe:1"
        command = [*_command(path, place), *wanted.split()]
    except AudioFileError as error:
        raise AudioFileError(f"{path}: {error}") from None
    with (
        tempfile.TemporaryFile() as said,  # not a pipe, which would fill up and stop ffmpeg
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        try:
            start = process.stdout.read(24)
            if len(start) < 24:
                process.wait()
                raise AudioFileError(f"{path}: {_fault(said)}")
            _, offset, _, _, rate, channels = struct.unpack(">4s5I", start)
            process.stdout.read(offset - 24)
            yield process.stdout, rate, channels
            if not process.stdout.read(1) and process.wait():
                raise AudioFileError(f"{path}: {_fault(said)}")
        finally:
            process.kill()


def _fault(said: IO[bytes]) -> str:
    """What ffmpeg said first, and what to do."""
    said.seek(0)
    lines = said.read(2**16).decode(errors="replace").strip().splitlines()
    if any("matches no streams" in line for line in lines):
        return "has no sound track; give a recording"
    plain = re.sub(r"\[[^]]*\] *", "", lines[0] if lines else "no output").rpartition(": ")[2]
    return f"not a readable recording (ffmpeg: {plain[:80].rstrip('.')}); convert it to WAV or FLAC"
