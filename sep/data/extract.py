"""From recordings and videos to clips: 16 kHz WAV files, and a picture for each."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sep import container
from sep.data import clips, mirror
from sep.data.kaldi import SAMPLE_RATE
from sep.data.vggsound import CLIP_S
from sep.data.whole import cut_off
from sep.errors import AudioFileError, SepError

WHOLE_S = 20.0  # a file this long is no clip of 10 s but the video that it is to be cut from
PICTURE_SIDE = 320  # pixels of the longer side, at most
PROGRESS_S = 5
JOURNAL = "made.jsonl"  # what is made, so that an interrupted run goes on


@dataclass(frozen=True)
class Job:
    """A clip to make.

    Args:
        name: of the clip and its files.
        folder: gets `wav/<id>.wav` and `images/<id>.jpg`.
        place: where the recording is.
        start_s: where the clip of 10 s starts if the file is the whole video; None: take it whole.
        samples: N of an evaluation clip, cut around its middle at the level that it has; None for
            clips to train on, cleaned as `clips.clean` does.
        centre_s: the middle, None: of the recording.
        origin: what the recording is called in messages; default: its path.
        temporary: delete the recording afterwards.
    """

    name: str
    folder: Path
    place: mirror.Place = field(default_factory=mirror.Place)
    start_s: float | None = None
    samples: int | None = None
    centre_s: float | None = None
    origin: str = ""
    temporary: bool = False

    def form(self) -> list[float | None]:
        """What its files depend on beside the recording."""
        return [self.start_s, self.samples, self.centre_s]


@dataclass(frozen=True)
class Made:
    """The clips of a job as (id, seconds, picture); or why there are none, or no picture."""

    name: str
    clips: tuple[tuple[str, float, str | None], ...] = ()
    fault: str = ""
    note: str = ""


def extract(
    data: Path,
    found: mirror.Mirror,
    wanted: dict[str, Job],
    name_of: Callable[[str], str | None],
    nj: int,
) -> dict[str, Made]:
    """Make the wanted clips of a mirror, the files of its folder first, then those of its tars.

    Args:
        data: the folder of the jobs; what an interrupted run has made is taken from its journal.
        found: what `mirror.look` has found; damaged tars are added to its faults.
        wanted: jobs by name of the clip, whose place is filled in here.
        name_of: as for `mirror.look`.
        nj: processes.

    Returns:
        what was made of each clip that was found, by name of its job.

    Raises:
        AudioFileError: there are videos, but no ffmpeg.
    """
    if any(place.video for place in found.places.values()):
        container.ffmpeg()
    journal, unpacked = data / JOURNAL, data / ".unpacked"
    named = {job.name: job for job in wanted.values()}
    made = earlier(journal, named)

    def jobs() -> Iterator[Job]:
        left = {name for name, job in wanted.items() if job.name not in made}
        for name in sorted(left & found.places.keys()):
            left.discard(name)
            yield replace(wanted[name], place=found.places[name])
        for tar in sorted(found.tars) if left else ():
            print(f"{tar}: reading", flush=True)
            for name, file in mirror.unpack(tar, left, name_of, unpacked, found.faults):
                kind = "sound" if file.suffix in mirror.SOUNDS else "video"
                origin = f"{tar}: {file.name}"
                place = mirror.Place(**{kind: file})
                yield replace(wanted[name], place=place, origin=origin, temporary=True)

    if made:
        print(f"{len(made)} of {len(wanted)} recordings were read before")
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    spoke = time.monotonic()
    try:
        for one in make_all(jobs(), nj):
            made[one.name] = one
            if one.clips:
                note_down(journal, named[one.name], one)
            if time.monotonic() - spoke > PROGRESS_S:
                spoke = time.monotonic()
                print(f"{len(made)} of {len(wanted)} recordings read", flush=True)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return made


def earlier(journal: Path, jobs: dict[str, Job]) -> dict[str, Made]:
    """What the lines of a journal say was made of jobs, by their names.

    A line counts where its job was the same and its files are there.
    """
    made: dict[str, Made] = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else ():
        try:
            row = json.loads(line)
            one = Made(row["name"], tuple(tuple(clip) for clip in row["clips"]), note=row["note"])
        except (ValueError, KeyError, TypeError):  # such as the last line of a killed run
            continue
        job = jobs.get(one.name)
        wavs = [journal.with_name("wav") / f"{id_}.wav" for id_, _, _ in one.clips]
        if job and row.get("form") == job.form() and all(wav.is_file() for wav in wavs):
            made[one.name] = one
    return made


def note_down(journal: Path, job: Job, made: Made) -> None:
    """Add what was made of a job to a journal."""
    row = {"name": made.name, "form": job.form(), "clips": made.clips, "note": made.note}
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def make_all(jobs: Iterable[Job], nj: int) -> Iterator[Made]:
    """Do jobs in `nj` processes; results come as they are ready, jobs are drawn as needed."""
    with ProcessPoolExecutor(nj) as pool:
        running: set[Future] = set()
        for job in jobs:
            running.add(pool.submit(make, job))
            if len(running) >= 4 * nj:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in wait(running).done)


def make(job: Job) -> Made:
    """Write the clips of one recording."""
    place = job.place
    source = place.sound or place.video
    if source is None:
        return Made(job.name, fault=f"{place.frames}: has frames but no sound; add its recording")
    try:
        longest_s = None if job.start_s is None else max(WHOLE_S + 1, job.start_s + CLIP_S)
        wave, rate = decode(source, longest_s)
        begin = 0
        if job.start_s is not None and len(wave) > WHOLE_S * rate:
            begin = round(job.start_s * rate)
            wave = wave[begin : begin + round(CLIP_S * rate)]
        seconds = len(wave) / rate
        if not seconds:
            raise clips.ClipError(f"ends before {job.start_s:g} s")
        if job.samples:
            parts = [segment(clips.to_mono(wave, rate), job.samples, job.centre_s)]
        else:
            parts = clips.clean(wave, rate)
        written = clips.write(job.folder / "wav", job.name, parts)
        made, notes = [], []
        for k, (id_, length_s) in enumerate(written):
            share = (k + 0.5) / len(written)
            if job.centre_s is not None and job.centre_s < seconds:
                share = job.centre_s / seconds
            image, note = picture(job, id_, begin / rate, seconds, share)
            made.append((id_, length_s, image))
            notes += [note] if note else []
        return Made(job.name, tuple(made), note=notes[0] if notes else "")
    except (clips.ClipError, AudioFileError, OSError) as error:
        what = str(error).removeprefix(f"{source}: ")
        return Made(job.name, fault=f"{job.origin or source}: {what}")
    finally:
        if job.temporary:
            source.unlink(missing_ok=True)


def decode(path: Path, longest_s: float | None = None) -> tuple[np.ndarray, int]:
    """Float32 samples (N, C) and the rate in Hz of a recording or the sound of a video.

    Args:
        path: the file.
        longest_s: videos are not decoded beyond.

    Raises:
        ClipError, AudioFileError, OSError: not readable, cut off, or without sound.
    """
    if cut_off(path):
        raise clips.ClipError("is cut off; fetch it again")
    if container.claims(path):
        wave, rate = container.samples(path, longest_s)
        if not len(wave):
            raise clips.ClipError("has no samples")
        return wave, rate
    return clips.decode(path.read_bytes())


def segment(mono: np.ndarray, samples: int, centre_s: float | None) -> np.ndarray:
    """Cut (N,) out of (M,) at 16 kHz around a place, default the middle; too short repeats itself.

    Raises:
        ClipError: silent there.
    """
    if len(mono) < samples:
        mono = np.tile(mono, samples // len(mono) + 1)
    centre = len(mono) // 2
    if centre_s is not None and centre_s * SAMPLE_RATE < len(mono):
        centre = int(centre_s * SAMPLE_RATE)
    begin = centre - samples // 2
    out = np.zeros(samples, np.float32)
    part = mono[max(0, begin) : begin + samples]
    out[max(0, -begin) : max(0, -begin) + len(part)] = part.clip(-1, 1)
    if clips.frame_levels(out).max() < -80:
        raise clips.ClipError("is silent around its middle")
    return out


def picture(
    job: Job, id_: str, begin_s: float, seconds: float, share: float
) -> tuple[str | None, str]:
    """The picture at `share` of a clip, and why there is none where one should be.

    Args:
        job: with the frames or the video.
        id_: of the clip.
        begin_s: where the clip begins in its video.
        seconds: length of the clip.
        share: 0 to 1.
    """
    from PIL import Image

    frames, video = job.place.frames, job.place.video
    if frames is not None:
        names = sorted(n for n in os.listdir(frames) if n.lower().endswith(mirror.PICTURES))
        if names:
            path = frames / names[max(0, int(share * len(names)) - 1)]
            try:
                with Image.open(path) as image:
                    image.load()
                return str(path), ""
            except (OSError, SyntaxError, ValueError):
                return None, f"{path}: not a readable picture; used without one"
        if video is None:
            return None, f"{frames}: has no frames; used without a picture"
    if video is None:
        return None, ""
    at_s = begin_s + share * seconds
    try:
        try:
            image = container.picture(video, at_s)
        except AudioFileError:
            image = container.picture(video, begin_s)
    except AudioFileError:
        return None, f"{job.origin or video}: shows no picture; used without one"
    image = image.convert("RGB")
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    path = job.folder / "images" / f"{id_}.jpg"
    try:
        image.save(path, quality=90)
    except OSError:
        raise SepError(f"{path}: cannot be written; is the disk full?") from None
    return str(path), ""
