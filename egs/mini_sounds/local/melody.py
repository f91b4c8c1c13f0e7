"""Random but musical solo lines, rendered from a sound font."""

import random

import numpy as np
import tinysoundfont
from tables import Instrument

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "pentatonic": (0, 2, 4, 7, 9),
}
RHYTHMS = ((1, 1, 1, 1), (2, 1, 1), (1.5, 0.5, 1, 1), (0.5, 0.5, 1, 2), (0.5,) * 4 + (1, 1), (3, 1))
DRUM_PATTERNS = ("x.x.x.x.", "x..x..x.", "x.xxx.xx", "x...x.x.", "xxxxxxxx", "x.xx.xx.")
_BLOCK = 160  # samples between events, 10 ms at 16 kHz

Note = tuple[float, float, int, int]  # start and length in s, key, velocity


def compose(instrument: Instrument, seed: str, length_s: float) -> list[Note]:
    """Make a phrase: a motif of scale steps, repeated with changes, in one tempo and dynamic.

    Args:
        instrument: style `line` legato single notes, `plucked` single notes that ring, `chords`
            a line over triads, `drums` patterns over the percussion keys.
        seed: the phrase is a function of it.
        length_s: notes start before this time.
    """
    rng = random.Random(seed)
    beat_s = 60 / rng.uniform(72, 152)
    loudness = rng.randint(62, 112)
    if instrument.style == "drums":
        return _drums(instrument, rng, beat_s, loudness, length_s)
    scale = SCALES[rng.choice(sorted(SCALES))]
    tonic = rng.randint(0, 11)
    keys = [k for k in range(instrument.low, instrument.high + 1) if (k - tonic) % 12 in scale]
    span = min(len(keys), 12)
    first = rng.randint(0, len(keys) - span)
    keys = keys[first : first + span]
    at = rng.randrange(span)
    motif = [rng.choice((-2, -1, -1, 1, 1, 2, 3, -3, 0)) for _ in range(rng.randint(3, 6))]
    hold = {"line": rng.uniform(0.85, 1.0), "plucked": 1.6, "chords": rng.uniform(0.7, 1.0)}
    notes: list[Note] = []
    time_s = 0.0
    while time_s < length_s:
        if rng.random() < 0.3:
            motif = [rng.choice((-2, -1, 1, 2, -4, 4, 0)) for _ in motif]
        rhythm = rng.choice(RHYTHMS)
        if instrument.style == "chords" and rng.random() < 0.6:
            root = rng.randrange(max(1, span - 4))
            notes += [
                (time_s, sum(rhythm) * beat_s, keys[min(root + step, span - 1)], loudness - 10)
                for step in (0, 2, 4)
            ]
        for k, beats in enumerate(rhythm):
            at = min(max(at + motif[k % len(motif)], 0), span - 1)
            if at in (0, span - 1):
                motif = [-step for step in motif]
            velocity = min(127, max(30, loudness + rng.randint(-12, 12) + (8 if k == 0 else 0)))
            length = beats * beat_s * hold[instrument.style]
            notes.append((time_s, length, keys[at], velocity))
            time_s += beats * beat_s
        if rng.random() < 0.15:
            time_s += beat_s
    return [note for note in notes if note[0] < length_s]


def _drums(instrument, rng, beat_s, loudness, length_s) -> list[Note]:
    patterns = {key: rng.choice(DRUM_PATTERNS) for key in instrument.programs}
    notes: list[Note] = []
    step = 0
    while step * beat_s / 2 < length_s:
        for key, pattern in patterns.items():
            if pattern[step % 8] == "x" and rng.random() < 0.9:
                accent = 12 if step % 4 == 0 else 0
                velocity = min(127, loudness + accent + rng.randint(-10, 10))
                notes.append((step * beat_s / 2, beat_s / 2, key, velocity))
        step += 1
        if step % 16 == 0:
            key = rng.choice(instrument.programs)
            patterns[key] = rng.choice(DRUM_PATTERNS)
    return notes


class Renderer:
    """A sound font that plays phrases.

    Args:
        path: the .sf2 or .sf3 file.
        sample_rate: in Hz.
    """

    def __init__(self, path, sample_rate: int = 16_000):
        self.sample_rate = sample_rate
        self.synth = tinysoundfont.Synth(samplerate=sample_rate)
        self.font = self.synth.sfload(str(path))

    def play(self, instrument: Instrument, notes: list[Note], program: int, length_s: float):
        """Render a phrase and let it ring until `length_s`: float32 samples (N,), mono."""
        drums = instrument.style == "drums"
        channel = 9 if drums else 0
        if drums:
            self.synth.program_select(channel, self.font, 128, 0, True)
        else:
            self.synth.program_select(channel, self.font, 0, program)
        events = [(start, 1, key, velocity) for start, _, key, velocity in notes]
        events += [(start + length, 0, key, 0) for start, length, key, _ in notes]
        events.sort()
        blocks, at = [], 0
        for k in range(int(length_s * self.sample_rate) // _BLOCK):
            while at < len(events) and events[at][0] * self.sample_rate < (k + 1) * _BLOCK:
                _, on, key, velocity = events[at]
                if on:
                    self.synth.noteon(channel, key, velocity)
                else:
                    self.synth.noteoff(channel, key)
                at += 1
            blocks.append(np.frombuffer(bytes(self.synth.generate(_BLOCK)), dtype=np.float32))
        self.synth.sounds_off(channel)
        self.synth.generate(_BLOCK)
        return np.concatenate(blocks).reshape(-1, 2).mean(1)
