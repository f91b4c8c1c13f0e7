"""Short recordings made by formula, to try the page with: the toolkit ships no sound files."""

from pathlib import Path

import numpy as np
import torch

from sep import audio

RATE = 32_000
SECONDS = 6.0


def write_examples(folder: Path) -> dict[str, list[str | None]]:
    """Write example recordings into a folder.

    Returns:
        by what is asked: a recording, words (or ""), an example sound (or None).
    """
    made = sounds()
    recordings = {
        "bell_in_rain": made["bell"] + made["rain"],
        "bird_over_drums": made["bird"] + made["drums"],
        "drum": 0.6 * _drums(np.random.default_rng(1), start_s=0.0)[: 2 * RATE],
    }
    paths = {}
    for name, wave in recordings.items():
        paths[name] = folder / "examples" / f"{name}.wav"
        audio.write(paths[name], torch.from_numpy(wave).float(), RATE, "PCM_16", clip="rescale")
    rain, drums = str(paths["bell_in_rain"]), str(paths["bird_over_drums"])
    return {
        "a bell in the rain": [rain, "a bell ringing", None],
        "the rain around a bell": [rain, "rain", None],
        "a bird over drums": [drums, "a bird singing", None],
        "the drums, by the sound of one": [drums, "", str(paths["drum"])],
    }


def sounds() -> dict[str, np.ndarray]:
    """Lone sounds (N,) at `RATE`: bell, rain, bird and drums."""
    random = np.random.default_rng(0)
    return {
        "rain": 0.5 * _rain(random),
        "bird": 0.3 * _chirps(random),
        "drums": 0.5 * _drums(random),
        "bell": 0.35 * _bells((620.0, 830.0, 740.0), (0.3, 2.1, 3.9)),
    }


def _time() -> np.ndarray:
    return np.arange(round(SECONDS * RATE)) / RATE


def _bells(pitches_hz: tuple[float, ...], starts_s: tuple[float, ...]) -> np.ndarray:
    """Struck bells: inharmonic partials, the higher the shorter."""
    wave = np.zeros(round(SECONDS * RATE))
    for pitch, start in zip(pitches_hz, starts_s, strict=True):
        time = (_time() - start).clip(0)
        for ratio, level in ((0.5, 0.4), (1, 1), (1.19, 0.5), (1.5, 0.4), (2, 0.6), (2.74, 0.3)):
            ring = np.exp(-1.2 * ratio * time) * np.sin(2 * np.pi * pitch * ratio * time)
            wave += level * ring / 2
    return wave


def _rain(random: np.random.Generator) -> np.ndarray:
    """Noise that is smooth in level, with drops."""
    count = round(SECONDS * RATE)
    hiss = np.convolve(random.standard_normal(count), [0.5, 0.3, 0.2], "same")
    drops = random.standard_normal(count) * (random.random(count) < 0.002)
    return 0.15 * hiss + 0.6 * np.convolve(drops, np.exp(-np.arange(200) / 40), "same")


def _chirps(random: np.random.Generator) -> np.ndarray:
    """Rising and falling whistles of a tenth of a second."""
    wave = np.zeros(round(SECONDS * RATE))
    time = np.arange(RATE // 9) / RATE
    for start in np.sort(random.uniform(0.2, SECONDS - 0.3, 18)):
        low, span = random.uniform(2800, 3600), random.uniform(-900, 1800)
        phase = 2 * np.pi * (low * time + span * time**2 / (2 * time[-1]))
        place = round(start * RATE)
        wave[place : place + len(time)] += np.hanning(len(time)) * np.sin(phase)
    return wave


def _drums(random: np.random.Generator, start_s: float = 0.25) -> np.ndarray:
    """A beat: falling tones on the beats, short noise between them."""
    wave = np.zeros(round(SECONDS * RATE))
    time = np.arange(RATE // 4) / RATE
    for beat, start in enumerate(np.arange(start_s, SECONDS - 0.3, 0.25)):
        fall = 50 * time + 6 * (1 - np.exp(-20 * time))
        kick = np.exp(-12 * time) * np.sin(2 * np.pi * fall)
        snare = np.exp(-25 * time) * random.standard_normal(len(time)) * 0.5
        wave[round(start * RATE) :][: len(time)] += (kick, 0.3 * snare, snare, 0.3 * snare)[
            beat % 4
        ]
    return wave
