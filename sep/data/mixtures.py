"""Fixed evaluation mixtures: drawn once by seed, kept as one JSON object a line.

An offset of at least 0 starts reading that many seconds into a recording; a negative one starts
the recording that many seconds into the segment. Lists begin with the target.
"""

import json
import math
import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from sep.data.kaldi import SAMPLE_RATE, DataDir
from sep.errors import DataError

SEGMENT = 65_535
SPLITS = ("test", "valid", "train")
LEVEL_SPREAD_DB = 3.0
PEAK = 0.9
ACTIVE_DB = -40.0  # a 20 ms frame this far below the loudest counts as silence
_TRIES = 20


@dataclass(frozen=True)
class Mixture:
    """One mixture and the queries for its target; `text` is the target's caption."""

    id: str
    target: str
    interferers: list[str]
    offsets_s: list[float]
    gains_db: list[float]
    text: str
    label: str
    interferer_labels: list[str]
    audio_query: str | None
    audio_query_split: str | None
    image: str | None
    seed: int


def load(path: str | Path) -> list[Mixture]:
    """Read a mixture list.

    Raises:
        DataError: names the file and line of the first fault.
    """
    path = Path(path)
    mixtures, found = _parse(path)
    if found:
        raise DataError(found[0])
    return [mixture for _, mixture in mixtures]


def save(path: str | Path, mixtures: list[Mixture]) -> None:
    """Write a mixture list under a temporary name, then rename it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    lines = (json.dumps(asdict(m), ensure_ascii=False) + "\n" for m in mixtures)
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, path)


def draw(
    data: DataDir,
    count: int | None,
    seed: int,
    query_dirs: dict[str, DataDir],
    segment: int = SEGMENT,
    images: dict[str, list[str]] | None = None,
    recording_of: Callable[[str], str] = str,
    snr_db: float | None = None,
    pairs: list[tuple[str, str]] | None = None,
) -> list[Mixture]:
    """Draw mixtures of two different labels, target labels uniformly (each once before again).

    A label can be a target when another recording of it exists to serve as the audio query; that
    is taken from `query_dirs` in the order test, valid, train.

    Args:
        data: the split that the sources come from.
        count: how many mixtures; None: one for each recording as the target, in order of class and
            id, without an audio query where no other recording of the class exists.
        seed: mixture k is a function of `seed` and k alone.
        query_dirs: {split name: data directory} that audio queries may come from.
        segment: N in samples.
        images: pictures of each label; default: those of `data`.
        recording_of: id to the recording it was cut from, so that a query is never the target's.
        snr_db: energy of the target over that of the interferer, exactly; None: their levels
            where they sound differ by up to 3 dB.
        pairs: target and interferer of each mixture, where `count` is None.

    Raises:
        DataError: fewer than two labels, or no label with two recordings.
    """
    groups = data.by_label()
    if len(groups) < 2:
        raise DataError(f"{data.path}: mixtures need two classes, found {len(groups)}; add a class")
    queries = {label: _queries(label, query_dirs) for label in groups}
    usable = {
        label: [id_ for id_ in ids if _others(queries[label], recording_of(id_), recording_of)]
        for label, ids in groups.items()
    }
    targets = [label for label, ids in usable.items() if ids]
    if not targets and count is not None:
        raise DataError(
            f"{data.path}: no class has a second recording to query with; add recordings"
        )
    if images is None:
        images = {
            label: [data.image[i] for i in ids if i in data.image] for label, ids in groups.items()
        }
    # label of the target, and target and interferer unless they are drawn
    chosen: list[tuple[str, str | None, str | None]] = []
    if pairs is not None:
        chosen = [(data.label[target], target, other) for target, other in pairs]
    elif count is None:
        chosen = [(label, id_, None) for label, ids in groups.items() for id_ in ids]
    else:
        rng = random.Random(f"{seed}-targets")
        while len(chosen) < count:
            chosen += [(label, None, None) for label in rng.sample(targets, len(targets))]
    mixtures = []
    for k, (label, given, beside) in enumerate(chosen[:count]):
        rng = random.Random(f"{seed}-{k}")
        target = given or rng.choice(usable[label])
        if beside is None:
            beside = rng.choice(groups[rng.choice([name for name in groups if name != label])])
        other, other_label = beside, data.label[beside]
        offsets, gains = _place(data, [target, other], segment, rng, snr_db)
        others = _others(queries[label], recording_of(target), recording_of)
        split, query = rng.choice(others) if others else (None, None)
        pictures = sorted(set(images.get(label, [])))
        mixtures.append(
            Mixture(
                id=f"mix{k:04d}",
                target=target,
                interferers=[other],
                offsets_s=offsets,
                gains_db=gains,
                text=data.text[target],
                label=label,
                interferer_labels=[other_label],
                audio_query=query,
                audio_query_split=split,
                image=rng.choice(pictures) if pictures else None,
                seed=seed,
            )
        )
    return mixtures


def render(
    mixture: Mixture, data: DataDir, segment: int = SEGMENT, sample_rate: int = SAMPLE_RATE
) -> Tensor:
    """Return the sources (S, N), target first, gains applied; the mixture is their sum.

    Raises:
        DataError: a recording is missing or not at `sample_rate`.
    """
    ids = [mixture.target, *mixture.interferers]
    waves = []
    for id_, offset_s, gain_db in zip(ids, mixture.offsets_s, mixture.gains_db, strict=True):
        if id_ not in data.wav:
            raise DataError(f"{data.path}: mixture {mixture.id} wants {id_}, which is not there")
        wave = _cut(_read(data.wav[id_], sample_rate), offset_s, segment, sample_rate)
        waves.append(wave * 10 ** (gain_db / 20))
    return torch.from_numpy(np.stack(waves).astype(np.float32))


def active_rms(wave: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float:
    """RMS of wave (N,) over the 20 ms frames within 40 dB of the loudest; 0 for silence."""
    frame = max(1, sample_rate // 50)
    count = -(-len(wave) // frame)
    power = np.zeros(count * frame)
    power[: len(wave)] = np.square(wave, dtype=np.float64)
    power = power.reshape(count, frame).mean(1)
    active = power[power > power.max() * 10 ** (ACTIVE_DB / 10)]
    return float(np.sqrt(active.mean())) if len(active) else 0.0


def faults(path: str | Path, labels: dict[str, str]) -> list[str]:
    """Return what is wrong with a mixture list whose sources have these labels."""
    path = Path(path)
    mixtures, found = _parse(path)
    seen = set()
    for line, m in mixtures:
        at = f"{path}:{line}:"
        if m.id in seen:
            found.append(f"{at} {m.id} is there twice; draw the list again")
        seen.add(m.id)
        sources = [m.target, *m.interferers]
        missing = [id_ for id_ in sources if id_ not in labels]
        if missing:
            found.append(f"{at} {missing[0]} is not in wav.scp; draw the list again")
            continue
        named = [m.label, *m.interferer_labels]
        if [labels[id_] for id_ in sources] != named:
            found.append(f"{at} its labels differ from utt2label; draw the list again")
        if len(set(named)) != len(named):
            found.append(f"{at} two sources have one label; draw the list again")
        if m.audio_query in sources:
            found.append(f"{at} the audio query is a source of the mixture; draw the list again")
        if m.image and not Path(m.image).is_file():
            found.append(f"{at} {m.image} is not there; restore it or draw the list again")
    return found


def _parse(path: Path) -> tuple[list[tuple[int, Mixture]], list[str]]:
    """Read the lines of a list into (line number, mixture) pairs, and what is wrong."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return [], [f"{path}: is missing; run stage 1"]
    names = {field.name for field in fields(Mixture)}
    mixtures, found = [], []
    for number, raw in enumerate(lines, 1):
        try:
            values = json.loads(raw.decode("utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError):
            found.append(f"{path}:{number}: is not a line of JSON; draw the list again")
            continue
        odd = sorted(names ^ set(values)) if isinstance(values, dict) else ["the object"]
        if odd:
            found.append(f"{path}:{number}: {odd[0]} is missing or unknown; draw the list again")
            continue
        mixture = Mixture(**values)
        fault = _shape_fault(mixture)
        if fault:
            found.append(f"{path}:{number}: {fault}; draw the list again")
            continue
        mixtures.append((number, mixture))
    return mixtures, found


def _shape_fault(m: Mixture) -> str | None:
    sources = 1 + len(m.interferers) if isinstance(m.interferers, list) else 0
    if sources < 2:
        return "it has no interferer"
    for name in ("offsets_s", "gains_db"):
        values = getattr(m, name)
        if not isinstance(values, list) or len(values) != sources:
            return f"{name} needs {sources} numbers"
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            return f"{name} holds something that is not a number"
    if not isinstance(m.interferer_labels, list) or len(m.interferer_labels) != sources - 1:
        return f"interferer_labels needs {sources - 1} names"
    if not m.text:
        return "its text is empty"
    if m.audio_query is not None and m.audio_query_split not in SPLITS:
        return f"audio_query_split is none of {', '.join(SPLITS)}"
    return None


def _queries(label: str, query_dirs: dict[str, DataDir]) -> list[tuple[str, str]]:
    """(split, id) of every recording of a label, test first."""
    found = []
    for split in SPLITS:
        if split in query_dirs:
            found += [(split, id_) for id_ in query_dirs[split].by_label().get(label, [])]
    return found


def _others(queries: list[tuple[str, str]], recording: str, recording_of) -> list[tuple[str, str]]:
    """Queries from another recording, all from the first split that has one."""
    other = [(split, id_) for split, id_ in queries if recording_of(id_) != recording]
    return [(split, id_) for split, id_ in other if split == other[0][0]]


def _place(
    data: DataDir, ids: list[str], segment: int, rng: random.Random, snr_db: float | None
) -> tuple[list[float], list[float]]:
    """Choose offsets at which the sources overlap and gains that level them."""
    waves = [_read(data.wav[id_], SAMPLE_RATE) for id_ in ids]
    best, best_overlap = None, -1.0
    for _ in range(_TRIES):
        starts = []
        for wave in waves:
            room = len(wave) - segment
            starts.append(rng.randint(0, room) if room >= 0 else -rng.randint(0, -room))
        offsets = [round(start / SAMPLE_RATE, 4) for start in starts]
        cuts = [_cut(w, o, segment, SAMPLE_RATE) for w, o in zip(waves, offsets, strict=True)]
        overlap = _overlap(cuts)
        if overlap > best_overlap:
            best, best_overlap = (offsets, cuts), overlap
        if overlap >= 0.5:
            break
    offsets, cuts = best
    if snr_db is None:
        spread = [0.0, rng.uniform(-LEVEL_SPREAD_DB, LEVEL_SPREAD_DB)]
        levels = [active_rms(cut) for cut in cuts]
    else:
        spread = [0.0, -snr_db]
        levels = [float(np.sqrt(np.square(cut, dtype=np.float64).mean())) for cut in cuts]
    gains = [g - 20 * math.log10(max(level, 1e-4)) for g, level in zip(spread, levels, strict=True)]
    mixed = sum(cut * 10 ** (gain / 20) for cut, gain in zip(cuts, gains, strict=True))
    peak_db = 20 * math.log10(max(float(np.abs(mixed).max()), 1e-9) / PEAK)
    return offsets, [round(gain - peak_db, 3) for gain in gains]


def _overlap(cuts: list[np.ndarray]) -> float:
    """Shared active time of the sources over the active time of the shorter one."""
    active = []
    for cut in cuts:
        frames = np.square(cut[: len(cut) // 320 * 320].reshape(-1, 320), dtype=np.float64).mean(1)
        active.append(frames > max(frames.max() * 10 ** (ACTIVE_DB / 10), 1e-12))
    shortest = min(int(a.sum()) for a in active)
    return float(np.logical_and.reduce(active).sum() / shortest) if shortest else -1.0


def _cut(wave: np.ndarray, offset_s: float, segment: int, sample_rate: int) -> np.ndarray:
    start = round(offset_s * sample_rate)
    out = np.zeros(segment, dtype=np.float32)
    begin = max(0, -start)
    part = wave[max(0, start) : max(0, start) + segment - begin]
    out[begin : begin + len(part)] = part
    return out


def _read(path: str, sample_rate: int) -> np.ndarray:
    try:
        wave, rate = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run stage 1 again") from None
    if rate != sample_rate or wave.ndim != 1:
        raise DataError(f"{path}: is not mono at {sample_rate} Hz; run stage 1 again")
    return wave
