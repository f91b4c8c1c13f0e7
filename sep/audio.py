"""Recordings on disk: read, write and resample without losing rate, channels, depth or length."""

import errno
import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from sep import container
from sep.errors import AudioFileError
from sep.filenames import temporary_of

INTEGER_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
FLOAT_SUBTYPES = ("FLOAT", "DOUBLE")
LOSSY_SUBTYPES = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
SUFFIXES = (
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aiff",
    ".aif",
    ".au",
    ".caf",
    ".w64",
)
BLOCK = 2**20  # samples a channel that are converted at once
LOWEST_HZ, HIGHEST_HZ = 100, 10_000_000  # rates beyond are damaged headers
LARGEST = 1e12  # magnitude of samples; beyond, spectra overflow
CLIP_RULES = ("none", "clamp", "rescale")
LONGEST_BYTES = 0xF000_0000  # of samples; the sizes of WAV, AIFF and AU have 32 bits
SUBTYPE_BYTES = {"FLOAT": 4, "DOUBLE": 8, **{name: n // 8 for name, n in INTEGER_BITS.items()}}
NOTICED_S = 0.1  # shorter gaps are the rounding of lossy formats
CUT_WAV = re.compile(r"^data\s*: (\d+) \(should be \d+\)", re.MULTILINE)  # of libsndfile's log
HEADLESS = ("RAW", "SD2")  # formats of libsndfile whose files do not say what they hold
OPUS_HZ = (8000, 12_000, 16_000, 24_000, 48_000)
LIBSNDFILE_SYSTEM = 2  # its code for faults of the system, such as a full disk


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: rate in Hz, channels C, frames N, subtype and container."""

    sample_rate: int
    channels: int
    frames: int
    subtype: str
    format: str

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


def info(path: str | Path, longest_s: float | None = None) -> AudioInfo:
    """Read a file's header; a container of ffmpeg's is decoded once, to FLOAT samples.

    Args:
        path: the file.
        longest_s: where a container is no longer decoded; what is longer seems to end there.

    Raises:
        AudioFileError: missing, not audio, without samples or with a rate of 0.
    """
    _check_present(path)
    if container.claims(path):
        form = ("FLOAT", Path(path).suffix[1:].upper())
        head = AudioInfo(*container.header(path, longest_s), *form)
    else:
        with _open(path) as file:
            head = AudioInfo(file.samplerate, file.channels, file.frames, file.subtype, file.format)
    if not LOWEST_HZ <= head.sample_rate <= HIGHEST_HZ:
        raise AudioFileError(
            f"{path}: says its sample rate is {head.sample_rate} Hz; convert it to WAV again"
        )
    if head.frames <= 0:
        raise AudioFileError(f"{path}: has no samples; give a recording with sound in it")
    return head


def read(
    path: str | Path, start_s: float = 0.0, duration_s: float | None = None
) -> tuple[Tensor, int]:
    """Read a file, or the part of it from `start_s`, at most `duration_s` long.

    Returns:
        float32 samples (C, N), full scale 1.0, and the rate in Hz.

    Raises:
        AudioFileError: as in `info`; or a start past the end, a damaged file, NaN or infinity.
    """
    head = info(path)
    start = round(start_s * head.sample_rate)
    if not 0 <= start < head.frames:
        raise AudioFileError(
            f"{path}: lasts {head.duration_s:.3f} s, so nothing starts at {start_s:g} s; "
            "give a start inside the recording"
        )
    count = head.frames - start
    if duration_s is not None:
        count = min(count, max(1, round(duration_s * head.sample_rate)))
    wave = torch.empty(head.channels, count)
    filled = 0
    for block in blocks(path, start, count):
        wave[:, filled : filled + block.shape[-1]] = block
        filled += block.shape[-1]
    return wave[:, :filled], head.sample_rate


def blocks(
    path: str | Path, start: int = 0, count: int | None = None, size: int = BLOCK
) -> Iterator[Tensor]:
    """Read a file block by block: float32 samples (C, n), n at most `size`.

    Args:
        start: first sample.
        count: how many samples in all; None reads to the end.

    Raises:
        AudioFileError: as in `info`; or a damaged file, no samples, NaN or infinity.
    """
    head = info(path)
    count = head.frames - start if count is None else count
    samples = container.blocks if container.claims(path) else _samples
    found = False
    for block in samples(path, start, count, size):
        found = found or len(block) > 0
        wave = torch.from_numpy(np.ascontiguousarray(block.T))
        peak = float(torch.linalg.vector_norm(wave, math.inf)) if wave.numel() else 0.0
        if not peak < LARGEST:
            what = "samples of 1e12 and more" if math.isfinite(peak) else "NaN or infinite samples"
            raise AudioFileError(f"{path}: contains {what}; make the file again")
        yield wave
    if not found:
        raise AudioFileError(f"{path}: has no samples; give a recording with sound in it")


def load_mono(
    path: str | Path, sample_rate: int, start_s: float = 0.0, duration_s: float | None = None
) -> Tensor:
    """Read a recording, or a part of it, as the mean of its channels at `sample_rate` Hz.

    Returns:
        (N,); shorter than `duration_s` where the recording ends earlier.
    """
    wave, rate = read(path, start_s, duration_s)
    return resample(wave.mean(0), rate, sample_rate)


def resample(wave: Tensor, from_hz: int, to_hz: int, length: int | None = None) -> Tensor:
    """Change the rate of waveforms (..., N) to (..., round(N * to_hz / from_hz)).

    Band-limited by the SoX resampler: exact for every pair of rates, where a polyphase kernel
    such as torchaudio's grows to gigabytes when the rates share no factor (44,099 Hz), and its
    phase is linear, so that nothing is shifted in time. Runs on the CPU, without gradient; the
    result is on the device of `wave`.

    Args:
        wave: (..., N).
        from_hz: rate of `wave` in Hz.
        to_hz: rate wanted in Hz.
        length: samples of the result, trimmed or padded with zeros, in place of the rule above;
            pass the original N on the way back so that down and up gives N samples again.

    Raises:
        AudioFileError: a rate that is not positive.
    """
    if from_hz <= 0 or to_hz <= 0:
        raise AudioFileError(f"sample rate {min(from_hz, to_hz)} Hz: rates must be positive")
    count = max(1, round(wave.shape[-1] * to_hz / from_hz)) if length is None else length
    if from_hz == to_hz:
        return fit_length(wave, count)
    rows = wave.detach().reshape(-1, wave.shape[-1]).cpu().numpy()
    result = torch.zeros(len(rows), count, dtype=wave.dtype)
    for row, out in zip(rows, result, strict=True):
        resampled = torch.from_numpy(soxr.resample(row, from_hz, to_hz, quality="HQ"))[:count]
        out[: len(resampled)] = resampled
    return result.reshape(*wave.shape[:-1], count).to(wave.device)


class Resampler:
    """`resample` for waveforms that arrive in blocks.

    Args:
        channels: C.
        from_hz, to_hz: rates.
    """

    def __init__(self, channels: int, from_hz: int, to_hz: int):
        self.same = from_hz == to_hz
        self.stream = soxr.ResampleStream(from_hz, to_hz, channels, "float32", quality="HQ")

    def push(self, wave: Tensor, last: bool = False) -> Tensor:
        """Take samples (C, n) and return those that are ready (C, m); `last` gives the rest."""
        if self.same:
            return wave
        rows = np.ascontiguousarray(wave.T.numpy(), dtype=np.float32)
        rows = self.stream.resample_chunk(rows, last=last)
        return torch.from_numpy(np.ascontiguousarray(rows.reshape(-1, wave.shape[0]).T))


def fit_length(wave: Tensor, length: int) -> Tensor:
    """Cut waveforms (..., N) or pad them with zeros at the end to (..., length)."""
    if wave.shape[-1] >= length:
        return wave[..., :length]
    return torch.nn.functional.pad(wave, (0, length - wave.shape[-1]))


def apply_clip(waves: list[Tensor], rule: str) -> list[Tensor]:
    """Keep waveforms that belong together inside full scale.

    Args:
        waves: any shapes; `rescale` divides all of them by one gain, so their sum keeps its shape.
        rule: `none` leaves the samples, `clamp` limits each to [-1, 1], `rescale` divides by the
            largest peak if that exceeds 1.
    """
    if rule not in CLIP_RULES:
        raise AudioFileError(f"clip rule '{rule}' is unknown; use {', '.join(CLIP_RULES)}")
    if rule == "clamp":
        return [wave.clamp(-1, 1) for wave in waves]
    if rule == "rescale":
        peak = max((float(wave.abs().max()) for wave in waves if wave.numel()), default=0.0)
        return [wave / peak for wave in waves] if peak > 1 else waves
    return waves


def write(
    path: str | Path, wave: Tensor, sample_rate: int, subtype: str | None = None, clip: str = "none"
) -> None:
    """Write a file; it appears under its name only when it is complete.

    Integer samples are round(x * 2^(bits - 1)), the inverse of `read`, so samples that came from
    a file of that depth go back bit by bit.

    Args:
        path: the suffix names the container (.wav, .flac, ...); its folder is made if missing.
        wave: (C, N) or (N,), full scale 1.0.
        sample_rate: in Hz.
        subtype: of libsndfile (PCM_16, PCM_24, FLOAT, ...); by default the deepest the container
            has, so that nothing is lost.
        clip: see `apply_clip`.

    Raises:
        AudioFileError: unknown suffix or subtype, samples that are not finite or that an integer
            subtype cannot hold, no permission, a full disk.
    """
    (wave,) = apply_clip([wave.detach().cpu()], clip)
    wave = wave.reshape(-1, wave.shape[-1])
    with Writer(path, sample_rate, len(wave), subtype, wave.shape[-1]) as writer:
        for block in wave.split(BLOCK, dim=-1):
            writer.write(block)


class Writer:
    """Writes a file block by block, as a context; it appears under its name only when complete.

    Leaving the context puts the file in place, or removes what was written where there was an
    error. `finish` alone leaves that for later, so that files that belong together appear together.

    Args:
        path, sample_rate, subtype: as in `write`.
        channels: C.
        frames: how many samples are to come, so that a WAV file of more than 4 GB is made as RF64.

    Raises:
        AudioFileError: as in `write`, there or in `write` and `finish`; or too long.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        channels: int,
        subtype: str | None = None,
        frames: int = 0,
    ):
        self.path = path = Path(path)
        container, self.subtype = form_of(path, sample_rate, channels, subtype)
        if frames * channels * SUBTYPE_BYTES.get(self.subtype, 1) > LONGEST_BYTES:
            if container in ("AIFF", "AU"):
                raise AudioFileError(f"{path}: too long for this container; use .w64")
            container = {"WAV": "RF64"}.get(container, container)
        self.temporary = temporary_of(path)
        self.file: soundfile.SoundFile | None = None
        with self._faults():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = soundfile.SoundFile(
                _native(self.temporary), "w", sample_rate, channels, self.subtype, format=container
            )

    def write(self, block: Tensor) -> None:
        """Append samples (C, n), full scale 1.0."""
        samples = _encoded(self.path, block.T.numpy(), self.subtype)
        with self._faults():
            self.file.write(samples)

    def finish(self) -> None:
        """Flush and close; the file is not yet in place."""
        if self.file is not None:
            with self._faults():
                self.file.close()
            self.file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *error: Any) -> None:
        try:
            if kind is None:
                self.finish()
                with self._faults():
                    os.replace(self.temporary, self.path)
        finally:
            if self.file is not None:
                with suppress(Exception):
                    self.file.close()
            self._discard()

    def _discard(self) -> None:
        with suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        # soundfile asserts on a short write
        except (OSError, RuntimeError, AssertionError) as error:
            self._discard()
            raise AudioFileError(
                f"{self.path}: cannot be written ({_write_fault(self.path, error)})"
            ) from None


def container_of(path: str | Path) -> str:
    """The libsndfile container that a file name's suffix asks for.

    Raises:
        AudioFileError: no container has this suffix.
    """
    name = Path(path).suffix[1:].upper()
    name = {"AIF": "AIFF", "OGA": "OGG", "OPUS": "OGG"}.get(name, name)
    if name in HEADLESS or name not in soundfile.available_formats():
        raise AudioFileError(f"{path}: '{Path(path).suffix}' is no audio format; use .wav or .flac")
    return name


def form_of(
    path: str | Path, sample_rate: int, channels: int, subtype: str | None = None
) -> tuple[str, str]:
    """Container and sample type of a file to be written; arguments as for `Writer`.

    Raises:
        AudioFileError: what the suffix names cannot hold the sample type, rate or channels.
    """
    container, held = container_of(path), _subtypes(path)
    subtype = (subtype or _first_held(path, "FLOAT", "PCM_24", "PCM_16")).upper()
    if subtype not in held:
        name = Path(path).suffix[1:].upper()
        raise AudioFileError(f"{path}: {name} cannot hold {subtype}; use one of {', '.join(held)}")
    if sample_rate <= 0:
        raise AudioFileError(f"{path}: sample rate {sample_rate} Hz; rates must be positive")
    if subtype == "OPUS" and sample_rate not in OPUS_HZ:
        rates = ", ".join(map(str, OPUS_HZ))
        raise AudioFileError(
            f"{path}: Opus has rates of {rates} Hz, not {sample_rate}; use .ogg, .flac or .wav"
        )
    try:
        if subtype == "VORBIS" and (sample_rate > 200_000 or channels > 255):
            raise RuntimeError  # here libsndfile would crash
        trial = io.BytesIO()
        soundfile.SoundFile(trial, "w", sample_rate, channels, subtype, format=container).close()
    except RuntimeError:
        raise AudioFileError(
            f"{path}: {container} cannot hold its {sample_rate} Hz or its number of channels "
            f"({channels}); use .wav, or --format wav"
        ) from None
    return container, subtype


def kept_subtype(subtype: str, path: str | Path) -> str:
    """The input's sample type where the container of `path` has it; lossy types become float."""
    kept = subtype if subtype in (*INTEGER_BITS, *FLOAT_SUBTYPES) else "FLOAT"
    return _first_held(path, kept, "PCM_24", "PCM_16")


def limited(subtype: str) -> bool:
    """Whether a sample type ends at full scale: integers, and what is coded from them."""
    return subtype not in (*FLOAT_SUBTYPES, *LOSSY_SUBTYPES)


def exact_parts(mixture: Tensor, target: Tensor, subtype: str) -> tuple[Tensor, Tensor]:
    """Target and residual whose written samples add up to the mixture's.

    For an integer subtype both are put on its steps of 2^(1 - bits), and the target is limited
    where the residual would leave full scale. The sum of the integers is then the mixture
    exactly, if the mixture is on those steps, otherwise within half a step. PCM_32 is treated as
    24 bits, all that float32 samples have, and so is what is coded from integers (ULAW), before its
    coding. Float subtypes add up within a rounding of float32.

    Args:
        mixture: any shape, in [-1, 1] for a subtype that is `limited`.
        target: same shape.
        subtype: of libsndfile.

    Returns:
        target and residual.
    """
    if not limited(subtype):
        return target, mixture - target
    scale = 2.0 ** (min(INTEGER_BITS.get(subtype, 24), 24) - 1)
    parts = torch.empty_like(mixture), torch.empty_like(mixture)
    for start in range(0, mixture.shape[-1], BLOCK):
        block = (..., slice(start, start + BLOCK))
        whole = (mixture[block] * scale).round_().clamp_(-scale, scale - 1)  # exact in float32
        part = (target[block] * scale).round_().clamp_(-scale, scale - 1)
        part = torch.clamp(part, whole - (scale - 1), whole + scale)
        parts[0][block], parts[1][block] = part / scale, (whole - part) / scale
    return parts


def _check_present(path: str | Path) -> None:
    if not os.path.exists(path):
        raise AudioFileError(f"{path}: no such file; check the name")
    if os.path.isdir(path):
        raise AudioFileError(f"{path}: is a folder; give a recording")
    if not os.path.isfile(path):
        raise AudioFileError(f"{path}: is a pipe or a device; write the recording to a file first")
    if not os.access(path, os.R_OK):
        raise AudioFileError(f"{path}: may not be read; change its permissions")
    if os.path.getsize(path) == 0:
        raise AudioFileError(f"{path}: is empty; give a recording")


def _native(path: str | Path) -> str | bytes:
    """A name for libsndfile, which on POSIX may hold bytes that are no text."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _open(path: str | Path) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(_native(path))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw needs more arguments
        if "SF_INFO" in _reason(error):  # libsndfile's word for a 0 in the header
            fault = "says its sample rate or its number of channels is 0"
            raise AudioFileError(f"{path}: {fault}; make the file again") from None
        raise AudioFileError(
            f"{path}: not a readable recording ({_reason(error)}); convert it to WAV or FLAC"
        ) from None


def _samples(path: str | Path, start: int, count: int, size: int) -> Iterator[np.ndarray]:
    """Blocks (n, C) of what libsndfile reads."""
    with _open(path) as file:
        try:
            file.seek(start)
            file.seekable = lambda: False  # else read() seeks each time, and MP3 loses its place
            left = count
            while left > 0 and len(block := file.read(min(size, left), "float32", always_2d=True)):
                yield block
                left -= len(block)
            missing = max(left, _promised(file) - file.frames)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioFileError(
                f"{path}: damaged ({_reason(error)}); make the file again"
            ) from None
    if missing > NOTICED_S * file.samplerate:
        warnings.warn(
            f"{path}: ends {missing / file.samplerate:.1f} s before its header says, and what is "
            "there is used; copy the file again for the rest",
            stacklevel=1,  # here, so that it is said once however often the file is read
        )


def _promised(file: soundfile.SoundFile) -> int:
    """Frames that the header of a WAV file names; 0 where it leaves that open."""
    said = CUT_WAV.search(file.extra_info)
    size = int(said[1]) if said else 0
    streamed = size > LONGEST_BYTES or size == 0x7FFF_FFFF  # a writer that could not go back
    width = SUBTYPE_BYTES.get(file.subtype, 0) * file.channels
    return size // width if width and not streamed else 0


def _subtypes(path: str | Path) -> list[str]:
    """Sample types that a file of this name can hold."""
    if Path(path).suffix.lower() == ".opus":
        return ["OPUS"]
    return list(soundfile.available_subtypes(container_of(path)))


def _first_held(path: str | Path, *subtypes: str) -> str:
    """The first of some sample types that a file of this name can hold, or its usual one."""
    held = _subtypes(path)
    usual = soundfile.default_subtype(container_of(path))
    return next((s for s in (*subtypes, usual) if s in held), held[0])


def _encoded(path: Path, samples: np.ndarray, subtype: str) -> np.ndarray:
    """Samples (N, C) as the type from which libsndfile makes `subtype` without changing them."""
    if not np.isfinite(samples).all():
        raise AudioFileError(f"{path}: not written, the result has NaN or infinite samples")
    if limited(subtype) and np.abs(samples).max(initial=0.0) > 1:
        raise AudioFileError(
            f"{path}: samples beyond full scale do not fit {subtype}; "
            "use --subtype FLOAT, --clip rescale or --clip clamp"
        )
    if subtype not in INTEGER_BITS:
        return samples
    bits = INTEGER_BITS[subtype]
    scale = 2.0 ** (bits - 1)
    exact = np.float64 if bits == 32 else np.float32
    steps = np.clip(np.rint(samples * exact(scale)), -scale, scale - 1).astype(np.int32)
    return steps << (32 - bits)


def _reason(error: Exception) -> str:
    text = str(getattr(error, "error_string", "") or error).strip()
    return text.rstrip(".") or type(error).__name__


def _write_fault(path: Path, error: Exception) -> str:
    """What went wrong and what to do; libsndfile says only `System error` when the disk is full."""
    if getattr(error, "code", LIBSNDFILE_SYSTEM) != LIBSNDFILE_SYSTEM:
        return f"{_reason(error)}; use .wav, or --format wav"
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission; choose another folder"
    if number in (errno.ENOTDIR, errno.EEXIST):
        return f"{path.parent} is not a folder; choose another one"
    if number is not None and number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{os.strerror(number)}; choose another folder"
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
        return "no permission; choose another folder"
    return "the disk or quota is full; make room or choose another folder"
