"""`sep separate`: every recording to the sounds asked for and everything else."""

import argparse
import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sep.commands.plan import Job, check_name, keep_apart, listed, plan, slugs
from sep.commands.pool import Outcome, died, outcomes
from sep.commands.values import MOST, factor, few, positive, seconds, weights
from sep.commands.verdict import facts, is_summary, line, progress, write_summary
from sep.errors import AudioFileError, OptionError, QueryError, SepError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from sep.results import FileSplit

FORMATS = ("wav", "flac", "ogg", "mp3")
SKIPPED = "results are there and left alone, whatever was asked for then"
LAUNCHERS = ("local", "ray")  # those of sep.cluster, which takes long to import


def add(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "separate",
        help="split recordings into the sounds asked for and everything else",
        description="Split recordings into the sounds that the query names and everything else. "
        "All files keep the recording's rate, channels, length and sample type, and add up to "
        "the recording, exactly in 8 to 24 bit, within a rounding of float32 otherwise. "
        "Several --text are several sounds; a text, sounds and pictures together, or several "
        "--audio or --image, describe one.",
        epilog="example: sep separate street.wav --text 'a dog barking' --negative traffic -o out",
    )
    parser.set_defaults(run=run)
    _add_inputs(parser.add_argument_group("recordings"))
    _add_query(parser.add_argument_group("what to look for"))
    _add_results(parser.add_argument_group("results"))
    _add_running(parser.add_argument_group("model and machine"))


def _add_inputs(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="recordings, folders, patterns like '**/*.wav'")
    add("--list", metavar="FILE", help="file with more of them, one a line; - reads from the input")


def _add_query(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--text", action="append", metavar="TEXT", help="a sound in words; again for another sound")
    add("--audio", action="append", metavar="FILE", help="a recording of such a sound")
    add(
        "--from",
        dest="start",
        type=seconds,
        metavar="SECONDS",
        help="where the example begins in --audio or, without one, in the recording itself",
    )
    add("--to", dest="stop", type=seconds, metavar="SECONDS", help="where it ends")
    add(
        "--image",
        action="append",
        metavar="FILE",
        help="a picture of what makes the sound, or a video of it",
    )
    add("--at", type=seconds, metavar="SECONDS", help="which frame of the video (default: first)")
    add(
        "--negative",
        action="append",
        metavar="TEXT|FILE",
        help="what is not wanted: words, or a file with a sound or picture of it",
    )
    add(
        "--weights",
        type=weights,
        metavar="KIND=W,...",
        help="weights of the kinds, such as text=1,audio=0.5,negative=0.3 "
        "(default: 1 each, negative 0.5); OmniSep's are image=2,text=2,audio=1,negative=0.333",
    )
    add(
        "--template",
        action="append",
        metavar="WORDING",
        help="what a text is put into in the place of {}, such as 'a photo of {}'; again for the "
        "mean of several (default: '{}' and 'the sound of {}')",
    )
    add(
        "--candidates",
        type=few,
        default=1,
        metavar="K",
        help=f"try K masks, at most {MOST}: the more similar to the query a result, the more it "
        "weighs; takes longer (default: %(default)s)",
    )
    add(
        "--refine",
        action=argparse.BooleanOptionalAction,
        help="separate twice, the second time by the query and what it found around each moment, "
        "less what else the model knows; --no-refine is twice as fast (default: where the model "
        "has a memory of what it knows, as the one that ships)",
    )
    add(
        "--each-channel",
        action="store_true",
        help="a mask for every channel, by what is heard in it, in place of one for all: for "
        "sounds that lie in different channels; in stereo takes two to three times as long",
    )
    add(
        "--sharpness",
        type=factor,
        default=1.0,
        metavar="X",
        help="above 1 masks come nearer to all or nothing, below they get softer (default: 1)",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "-o",
        "--out",
        default="separated",
        metavar="DIR|FILE",
        help="folder for NAME.target.wav (with several --text NAME.the-text.wav) and "
        "NAME.residual.wav, or, for one recording, the name of the target file, which says its "
        "format: .wav, .flac, .ogg, .opus, .mp3, .aiff, .caf, .au or .w64 (default: %(default)s)",
    )
    add(
        "--residual",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write everything else to a file of its own (default: yes)",
    )
    add("--remove", action="store_true", help="write only everything but the sounds")
    add(
        "--format",
        choices=FORMATS,
        help="of the results (default: the recording's where it keeps the samples, else wav)",
    )
    add(
        "--subtype",
        type=str.upper,
        metavar="TYPE",
        help="sample type, such as PCM_16 or FLOAT (default: input's)",
    )
    add(
        "--clip",
        choices=("none", "clamp", "rescale"),
        default="none",
        help="samples beyond full scale: leave or, in integer files, move them to the other file; "
        "cut them off; or divide all files by one gain (default: %(default)s)",
    )
    add(
        "--figure",
        metavar="FILE.png",
        help="picture of one recording, its masks and targets, and the prior of a model with one "
        "(where results are refined that of the query as it was asked)",
    )
    add("--summary", metavar="FILE.json", help="how every recording went, for other programs")
    existing = group.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace earlier results")
    existing.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave recordings alone whose results are there, whatever they had been asked for",
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--model",
        metavar="DIR",
        help="model folder (default: $SEP_MODEL, or the one that ships)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    add(
        "--jobs",
        type=positive,
        default=1,
        metavar="N",
        help="recordings done at once, by processes that share the cores (default: %(default)s)",
    )
    add(
        "--launcher",
        choices=LAUNCHERS,
        default="local",
        help="ray: --jobs workers of Ray, of one core or GPU each, on this machine or those of the "
        "cluster that RAY_ADDRESS names (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Do every recording; 1 if some failed."""
    _check(options)
    from sep.filenames import clear_dead

    sounds = slugs(options.text) if len(options.text or []) > 1 else ["target"]
    inputs = [*options.inputs, *(listed(options.list) if options.list else [])]
    if not inputs:
        raise SepError("no recordings given; name files, folders or --list FILE")
    jobs = plan(
        inputs,
        options.out,
        [] if options.remove else sounds,
        options.residual,
        options.format and f".{options.format}",
    )
    if options.figure and len(jobs) > 1:
        raise OptionError(f"--figure draws one recording, not {len(jobs)}; leave it out")
    named = (options.audio, options.image, options.negative, options.list and [options.list])
    read = [name for names in named for name in names or []]
    others = [name for name in (options.figure, options.summary) if name]
    keep_apart(jobs, read, others, options.model)
    summary = options.summary
    if summary and os.path.exists(summary) and not (options.overwrite or is_summary(summary)):
        raise OptionError(f"--summary {summary}: exists and is no summary; use --overwrite")
    clear_dead([*(path for job in jobs for path in job.outputs), *map(Path, others)])
    worker, went = Worker(options), []
    several = functools.partial(Worker, options, worker.vectors)
    if options.launcher == "ray":
        from sep import cluster

        gpu = worker.separator.device.type == "cuda"
        found = cluster.outcomes(jobs, several, options.jobs, gpu, lost=died)
        results = (outcome for _, outcome in found)
    else:
        results = outcomes(jobs, several if options.jobs > 1 else lambda: worker, options.jobs)
    try:
        for outcome in results:
            went.append(outcome)
            if outcome.status == "failed":
                print(f"error: {outcome.line}", file=sys.stderr, flush=True)
            else:
                print(outcome.line, flush=True)
    finally:
        if options.summary:
            write_summary(Path(options.summary), went)
    failed = {outcome.job for outcome in went if outcome.status == "failed"}
    if failed and len(jobs) > 1:
        print(f"{len(jobs) - len(failed)} of {len(jobs)} files done; failed:", file=sys.stderr)
        print("\n".join(f"  {job.source}" for job in jobs if job in failed), file=sys.stderr)
    return 1 if failed else 0


class Worker:
    """Does one job after the other with one model; what `sep.commands.pool.outcomes` prepares.

    Args:
        options: of the command line.
        vectors: the embedded queries (Q, D), where another worker has them.

    Raises:
        SepError: the model or the query cannot be used.
    """

    def __init__(self, options: argparse.Namespace, vectors: "np.ndarray | None" = None):
        from sep.separator import Separator, default_model

        self.options = options
        self.separator = Separator.from_pretrained(
            options.model or default_model(), options.device, options.each_channel
        )
        self.itself = _given(options.start, options.stop) and not options.audio
        self.vectors = vectors
        if vectors is None and not self.itself:
            self.vectors = self._queries().numpy()

    def __call__(self, job: Job) -> Outcome:
        from encoders.base import EncoderError
        from sep.parts import outputs

        begun = time.perf_counter()
        try:
            outputs(job.source, job.targets or None, job.residual, len(job.targets))
            wanted = [*job.outputs, *filter(None, [self.options.figure])]
            there = [path for path in wanted if os.path.exists(path)]
            if self.options.skip_existing and len(there) == len(wanted):
                return Outcome(job, "skipped", f"{job.source}: {SKIPPED}")
            if there and not (self.options.overwrite or self.options.skip_existing):
                raise AudioFileError(f"{there[0]}: exists; use --overwrite or --skip-existing")
            result = self._separate(job)
        except (SepError, EncoderError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            named = str(job.source) in reason
            return Outcome(job, "failed", reason if named else f"{job.source}: {reason}")
        except (RuntimeError, MemoryError) as error:
            from sep.device import NO_ROOM, out_of_memory

            if not out_of_memory(error):
                raise
            return Outcome(job, "failed", f"{job.source}: {NO_ROOM}")
        found = facts(result, self.names, time.perf_counter() - begun)
        return Outcome(job, "done", line(job, result, self.names, found["took_s"]), found)

    @property
    def names(self) -> list[str]:
        """What the sounds are called in messages."""
        return [" ".join(text.split()) for text in self.options.text or ["query"]]

    def _separate(self, job: Job) -> "FileSplit":
        import torch

        from sep import audio

        options, picture = self.options, None
        queries = self._queries(job.source) if self.itself else torch.from_numpy(self.vectors)
        if options.figure:
            from sep.figure import Picture

            refine = self.separator.refines if options.refine is None else options.refine
            picture = Picture(self.separator.model, self.names, queries, refine)
        result = self.separator.split_file(
            job.source,
            job.targets or None,
            job.residual,
            queries=list(queries),
            candidates=options.candidates,
            refine=options.refine,
            sharpness=options.sharpness,
            subtype=options.subtype,
            clip=options.clip,
            progress=progress(job.source, audio.info(job.source).sample_rate),
            ears=picture and picture.ears,
        )
        if picture:
            picture.write(options.figure, title=str(job.source))
        return result

    def _queries(self, source: Path | None = None) -> "Tensor":
        """Embed the queries (Q, D); a stretch of `source` is one where there is no --audio."""
        options = self.options
        texts, sounds = options.text or [], [source] if self.itself else options.audio or []
        if _given(options.start, options.stop):
            sounds = [_stretch(sounds[0], options.start or 0.0, options.stop)]
        pictures = [_picture(name, options.at) for name in options.image or []]
        shared = {"negative": options.negative, "weights": options.weights}
        shared["templates"] = options.template
        if len(texts) > 1:
            return self.separator.queries([{"text": text, **shared} for text in texts])
        asked = {"text": texts, "audio": sounds, "image": pictures}
        return self.separator.queries([{**asked, **shared}])


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if options.launcher == "ray":
        from sep import cluster

        cluster.check(options.launcher)
    texts, audio, image = options.text or [], options.audio or [], options.image or []
    stretch = _given(options.start, options.stop)
    if not any((texts, audio, image, stretch)):
        raise SepError("nothing to look for: give --text, --audio, --image or --from and --to")
    if len(texts) > 1 and (audio or image or stretch):
        raise OptionError(
            "several --text are several sounds, which --audio, --image or --from cannot describe "
            "together; give one --text, or run once for each sound"
        )
    if len({" ".join(text.split()) for text in texts}) < len(texts):
        raise OptionError("the same --text is given twice; name each sound once")
    if stretch and len(audio) > 1:
        raise OptionError("--from and --to cut one example; give one --audio")
    if options.stop is not None and options.stop <= (options.start or 0.0):
        raise OptionError(f"--to {options.stop:g} is not after --from {options.start or 0:g}")
    if options.at is not None and not any(_is_video(name) for name in image):
        raise OptionError("--at chooses the frame of a video; give one by --image")
    if options.remove and not options.residual:
        raise OptionError("--remove writes only the residual, --no-residual only the rest; use one")
    for name, suffix in (("figure", ".png"), ("summary", ".json")):
        path = getattr(options, name)
        if path and Path(path).suffix.lower() != suffix:
            raise OptionError(f"--{name} {path}: end the name in {suffix}")
        if path:
            _check_writable(f"--{name}", path)
    if options.subtype:
        _check_subtype(options.subtype, options.format)


def _check_writable(option: str, path: str) -> None:
    """Refuse a file that cannot be written, before the work rather than after it."""
    check_name(option, path)
    folder = next(p for p in map(str, Path(path).absolute().parents) if os.path.exists(p))
    if os.path.isdir(path):
        raise OptionError(f"{option} {path}: is a folder; name a file")
    if not os.path.isdir(folder):
        raise OptionError(f"{option} {path}: {folder} is not a folder; choose another one")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(f"{option} {path}: no permission to write; choose another folder")


def _check_subtype(subtype: str, suffix: str | None) -> None:
    """Refuse a sample type that no container has, or not that of --format."""
    import soundfile

    formats = [suffix.upper()] if suffix else soundfile.available_formats()
    if not any(subtype in soundfile.available_subtypes(name) for name in formats):
        where = f"{suffix} has" if suffix else "there are"
        known = soundfile.available_subtypes(formats[0] if suffix else "WAV")
        raise OptionError(f"--subtype {subtype}: {where} {', '.join(known)}")


def _given(*values: Any) -> bool:
    return any(value is not None for value in values)


def _stretch(path: str | Path, start: float, stop: float | None) -> "tuple[Tensor, int]":
    """The example that --from and --to cut out of a recording, with its rate."""
    from sep import audio
    from sep.query import SHORTEST_S, check_length

    end = audio.info(path).duration_s
    check_length(path, min(end, end if stop is None else stop) - start)
    wave, rate = audio.read(path, start, None if stop is None else stop - start)
    if wave.shape[-1] < SHORTEST_S * rate:
        lasts = 1000 * wave.shape[-1] / rate
        raise QueryError(
            f"{path}: --from {start:g} leaves {lasts:.0f} ms of it, too short to describe a sound; "
            f"give at least {1000 * SHORTEST_S:.0f} ms"
        )
    return wave, rate


def _is_video(name: str) -> bool:
    from sep.container import SUFFIXES

    return Path(name).suffix.lower() in SUFFIXES


def _picture(name: str, at: float | None) -> Any:
    """A picture's path, or the frame of a video."""
    if not _is_video(name):
        return name
    from sep import container

    return container.picture(name, at or 0.0)
