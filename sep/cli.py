"""The `sep` command. Exit codes: 0 done, 1 some files failed, 2 wrong usage, 130 interrupted.

Everything heavy is imported after the arguments are known, so that `sep --help` answers at once.
"""

import argparse
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sep import web
from sep.errors import AudioFileError, SepError

if TYPE_CHECKING:
    from torch import Tensor

    from sep.separator import FileSeparation, Separator

KEPT_SUFFIXES = (".wav", ".flac", ".aiff", ".aif", ".caf", ".w64", ".au")  # written as they came
KINDS = ("text", "audio", "image", "negative")
ABSENT_DB = -40.0  # a target this far below its recording is named as not found


def build_parser() -> argparse.ArgumentParser:
    """The command line of `sep`."""
    parser = argparse.ArgumentParser(
        prog="sep", description="Take the sound that a query names out of a recording."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    separate = commands.add_parser(
        "separate",
        help="split recordings into the sound asked for and everything else",
        description="Split recordings into the sound that the query names and everything else. "
        "Both files keep the recording's rate, channels, length and sample type, and add up to "
        "the recording. Queries of several kinds, and several of one kind, are mixed.",
        epilog="example: sep separate street.wav --text 'a dog barking' --negative traffic -o out",
    )
    add = separate.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="recordings, or folders of them")
    add("--text", action="append", metavar="TEXT", help="what to look for in words")
    add("--audio", action="append", metavar="FILE", help="a recording of such a sound")
    add("--image", action="append", metavar="FILE", help="a picture of what makes the sound")
    add(
        "--negative",
        action="append",
        metavar="TEXT|FILE",
        help="what is not wanted: words, or a file with a sound or picture of it",
    )
    add(
        "--weights",
        type=_weights,
        metavar="KIND=W,...",
        help="weights of the kinds, such as text=1,audio=0.5,negative=0.3 "
        "(default: 1 each, negative 0.5)",
    )
    add(
        "-o",
        "--out",
        default="separated",
        metavar="DIR|FILE",
        help="folder for NAME.target.wav and NAME.residual.wav, or, for one recording, the name of "
        "the target file (default: %(default)s)",
    )
    add(
        "--residual",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write everything else to a second file (default: yes)",
    )
    add(
        "--model",
        metavar="DIR",
        help="model folder (default: $SEP_MODEL, or the newest that a recipe has trained)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    add(
        "--candidates",
        type=_positive,
        default=1,
        metavar="K",
        help="try K masks and keep the result most similar to the query (default: %(default)s)",
    )
    add(
        "--clip",
        choices=("none", "clamp", "rescale"),
        default="none",
        help="samples beyond full scale: leave or, in integer files, move them to the other file; "
        "cut them off; or divide both files by one gain (default: %(default)s)",
    )
    add("--subtype", metavar="TYPE", help="sample type, such as PCM_16 or FLOAT (default: input's)")
    existing = separate.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace earlier results")
    existing.add_argument("--skip-existing", action="store_true", help="leave finished files alone")
    score = commands.add_parser(
        "score",
        help="score a folder of estimates against references",
        description="Score estimates against references of the same name.",
    )
    score.add_argument("reference", metavar="REF_DIR", help="folder of the true targets")
    score.add_argument("estimate", metavar="EST_DIR", help="folder of the estimates")
    score.add_argument(
        "--mixture", metavar="MIX_DIR", help="folder of the recordings: adds improvement, SIR, SAR"
    )
    score.add_argument("--out", metavar="FILE", help="write the scores of each file as CSV")
    web.add_options(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `sep` command and return its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    warnings.formatwarning = lambda message, *_: f"notice: {message}\n"
    # Waiting threads sleep rather than spin: on a busy machine this is several times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    try:
        return {"separate": separate, "score": score, "serve": web.serve}[options.command](options)
    except SepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; finished files are complete and kept", file=sys.stderr)
        return 130


def separate(options: argparse.Namespace) -> int:
    """`sep separate`: every input to its target and residual file."""
    if not any((options.text, options.audio, options.image)):
        raise SepError("nothing to look for: give --text, --audio or --image")
    jobs = plan(options.inputs, options.out)
    from sep.separator import Separator, default_model

    separator = Separator.from_pretrained(options.model or default_model(), options.device)
    query = separator.query(
        **{kind: getattr(options, kind) for kind in KINDS}, weights=options.weights
    )
    failed = []
    for source, target, residual in jobs:
        try:
            print(_separate_one(separator, query, source, target, residual, options), flush=True)
        except SepError as error:
            failed.append(source)
            print(f"error: {error}", file=sys.stderr, flush=True)
    if failed and len(jobs) > 1:
        print(f"{len(jobs) - len(failed)} of {len(jobs)} files done; failed:", file=sys.stderr)
        print("\n".join(f"  {source}" for source in failed), file=sys.stderr)
    return 1 if failed else 0


def plan(inputs: Sequence[str], out: str) -> list[tuple[Path, Path, Path]]:
    """Recordings with the names of their target and residual files, no name given twice.

    Folders are searched for recordings and their tree is kept.
    """
    from sep.audio import SUFFIXES

    found: list[tuple[Path, Path]] = []  # recording, its place below the output folder
    for name in inputs:
        source = Path(name)
        if not source.is_dir():
            found.append((source, Path(source.name)))
            continue
        inside = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not inside:
            raise SepError(f"{source}: no recordings in this folder ({', '.join(SUFFIXES)})")
        found.extend((path, path.relative_to(source)) for path in inside)
    destination = Path(out)
    if destination.suffix.lower() in SUFFIXES and not destination.is_dir():
        if len(found) > 1:
            raise SepError(f"-o {out} names one file for {len(found)} recordings; name a folder")
        residual = destination.with_name(f"{destination.stem}.residual{destination.suffix}")
        return [(found[0][0], destination, residual)]
    jobs, taken = [], set()
    for source, place in found:
        suffix = source.suffix if source.suffix.lower() in KEPT_SUFFIXES else ".wav"
        stem, number = place.with_suffix(""), 1
        while (name := f"{stem}-{number}" if number > 1 else str(stem)).lower() in taken:
            number += 1
        taken.add(name.lower())
        parts = (destination / f"{name}.{part}{suffix}" for part in ("target", "residual"))
        jobs.append((source, *parts))
    return jobs


def _separate_one(
    separator: "Separator",
    query: "Tensor",
    source: Path,
    target: Path,
    residual: Path,
    options: argparse.Namespace,
) -> str:
    """Separate one recording, write its files and say how it went."""
    from sep import audio

    begun = time.perf_counter()
    outputs = [target, residual] if options.residual else [target]
    there = [path for path in outputs if path.exists()]
    if options.skip_existing and len(there) == len(outputs):
        return f"{source}: done before, left alone"
    if there and not (options.overwrite or options.skip_existing):
        raise AudioFileError(f"{there[0]}: exists; use --overwrite or --skip-existing")
    head = audio.info(source)
    result = separator.separate_file(
        source,
        *outputs,
        query=query,
        candidates=options.candidates,
        subtype=options.subtype,
        clip=options.clip,
        progress=_progress(source, head.sample_rate),
    )
    names = " + ".join(str(path) for path in outputs)
    return (
        f"{source}: {head.duration_s:.1f} s -> {names} | {_verdict(result)} | "
        f"took {time.perf_counter() - begun:.1f} s"
    )


def _verdict(result: "FileSeparation") -> str:
    """Similarities to the query before and after, and a word when hardly anything was found."""
    if math.isnan(result.mixture_similarity):
        return "silent recording, silent result"
    before = f"similarity to the query: mixture {result.mixture_similarity:.3f}"
    if result.level_db < ABSENT_DB or math.isnan(result.similarity):
        level = f"target at {result.level_db:.0f} dB of the mixture"
        return f"{before}; the sound was hardly found ({level})"
    return f"{before}, target {result.similarity:.3f}"


def _progress(source: Path, rate: int) -> Callable[[int, int], None]:
    """Show how far a recording of several segments is: a line that moves, or one every 5 s."""
    live, shown = sys.stderr.isatty(), [time.monotonic()]

    def show(done: int, total: int) -> None:
        now = time.monotonic()
        if total < 30 * rate or (not live and now - shown[0] < 5):
            return
        shown[0] = now
        end = "\r" if live and done < total else "\n"
        text = f"{source}: {done / rate:.0f} of {total / rate:.0f} s"
        print(text, end=end, file=sys.stderr, flush=True)

    return show


def score(options: argparse.Namespace) -> int:
    """`sep score`: print the mean of every score and write those of each file."""
    from sep.metrics import report
    from sep.metrics.statistics import summarise

    rows = report.score_folder(options.reference, options.estimate, options.mixture)
    print(f"{len(rows)} files, mean ± standard error, [95 % interval]")
    for name, (title, digits) in report.METRICS.items():
        values = [row[name] for row in rows if name in row]
        if not values:
            continue
        entry = summarise(values)
        line = f"{title:<18} {entry['mean']:8.{digits}f} ± {entry['sem']:.{digits}f}"
        line += f"  [{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"
        print(line + (f"  undefined for {entry['undefined']}" if entry["undefined"] else ""))
    if options.out:
        try:
            report.write_csv(Path(options.out), rows)
        except OSError as error:
            raise SepError(f"--out {options.out}: cannot be written ({error.strerror})") from None
        print(f"scores of each file: {options.out}")
    return 0


def _weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        kind, _, value = part.partition("=")
        try:
            weights[kind.strip()] = float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{part}' is not KIND=NUMBER") from None
        if kind.strip() not in KINDS or not 0 <= weights[kind.strip()] < math.inf:
            raise argparse.ArgumentTypeError(
                f"'{part}': kinds are {', '.join(KINDS)}, numbers 0 or more"
            )
    return weights


def _positive(text: str) -> Any:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
