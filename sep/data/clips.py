"""Cleaning recordings: mono, 16 kHz, no offset, trimmed, at one peak level, in short clips."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from sep.data.kaldi import SAMPLE_RATE
from sep.errors import SepError

PEAK = 10 ** (-3 / 20)
CLIP_S = 20.0  # longest clip
MAX_CLIPS = 3  # of one recording
MIN_ACTIVE_S = 0.2
_FRAME_S = 0.02
_TRIM_DB, _ACTIVE_DB = -50.0, -40.0  # below the loudest frame


class ClipError(Exception):
    """A recording that cannot be used; the message says why."""


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """Decode any format that libsndfile reads into float32 samples (N, C) and the rate in Hz.

    Raises:
        ClipError: not a recording, or without samples.
    """
    try:
        wave, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = str(error).split(": ", 1)[-1].rstrip(". ")
        raise ClipError(f"not a readable recording ({reason})") from None
    if not len(wave):
        raise ClipError("has no samples")
    return wave, rate


def to_mono(wave: np.ndarray, rate: int) -> np.ndarray:
    """Mix samples (N, C) at `rate` Hz to one channel at 16 kHz, (M,) in float64.

    Raises:
        ClipError: not finite, or too short to have a sample.
    """
    mono = wave.mean(axis=1, dtype=np.float64)
    if not np.isfinite(mono).all():
        raise ClipError("contains NaN or infinite samples")
    mono = soxr.resample(mono, rate, SAMPLE_RATE, quality="HQ")
    if not len(mono):
        raise ClipError("is too short")
    return mono


def clean(wave: np.ndarray, rate: int, trim: bool = True) -> list[np.ndarray]:
    """Turn samples (N, C) at `rate` Hz into clips (M,) at 16 kHz that peak at -3 dBFS.

    A recording longer than 20 s gives up to three clips from even places. Without `trim` the
    silence before and after the sound stays.

    Raises:
        ClipError: silent, not finite, or with less than 0.2 s of sound.
    """
    mono = to_mono(wave, rate)
    mono = mono - mono.mean()
    level_db = frame_levels(mono)
    heard = np.flatnonzero(level_db > level_db.max() + _TRIM_DB)
    if level_db.max() < -80 or not len(heard):
        raise ClipError("is silent")
    if trim:
        frame = round(_FRAME_S * SAMPLE_RATE)
        mono = mono[heard[0] * frame : (heard[-1] + 1) * frame]
    clips = [c for c in _cut(mono) if active_s(c) >= MIN_ACTIVE_S]
    if not clips:
        raise ClipError(f"has less than {MIN_ACTIVE_S} s of sound")
    return [(clip * (PEAK / np.abs(clip).max())).astype(np.float32) for clip in clips]


def write(folder: Path, name: str, parts: Sequence[np.ndarray]) -> list[tuple[str, float]]:
    """Write the clips (M,) of one recording as `folder`/<id>.wav; returns ids and seconds.

    Raises:
        SepError: a file cannot be written.
    """
    written = []
    for k, part in enumerate(parts):
        id_ = name if len(parts) == 1 else f"{name}-part{k + 1}"
        path = folder / f"{id_}.wav"
        try:
            soundfile.write(path, part, SAMPLE_RATE, subtype="PCM_16")
        except (soundfile.SoundFileError, OSError):
            raise SepError(f"{path}: cannot be written; is the disk full?") from None
        written.append((id_, len(part) / SAMPLE_RATE))
    return written


def frame_levels(mono: np.ndarray) -> np.ndarray:
    """Level in dB of each 20 ms frame of samples (N,)."""
    frame = round(_FRAME_S * SAMPLE_RATE)
    count = -(-len(mono) // frame)
    padded = np.zeros(count * frame)
    padded[: len(mono)] = mono
    power = np.square(padded.reshape(count, frame)).mean(axis=1)
    return 10 * np.log10(np.maximum(power, 1e-12))


def active_s(mono: np.ndarray) -> float:
    """Seconds within 40 dB of the loudest frame, silence below -80 dB never counted."""
    level_db = frame_levels(mono)
    threshold = max(level_db.max() + _ACTIVE_DB, -80.0)
    return float((level_db > threshold).sum() * _FRAME_S)


def _cut(mono: np.ndarray) -> list[np.ndarray]:
    size = round(CLIP_S * SAMPLE_RATE)
    if len(mono) <= size:
        return [mono]
    count = min(MAX_CLIPS, math.ceil(len(mono) / size))
    step = (len(mono) - size) / (count - 1)
    return [mono[round(k * step) : round(k * step) + size] for k in range(count)]
