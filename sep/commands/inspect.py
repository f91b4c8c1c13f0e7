"""`sep inspect`: what a recording is, how loud, and what is heard in it."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from sep.errors import ModelError, SepError


def add(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "inspect",
        help="say what a recording is, how loud, and what is heard in it",
        description="Say what recordings are, how loud, and which classes are most similar to "
        "each stretch of them, by the model's encoder.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="recordings")
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="classes to listen for, one a line (default: those that the model was trained on)",
    )
    parser.add_argument("--model", metavar="DIR", help="model folder (default: as in `separate`)")


def run(options: argparse.Namespace) -> int:
    """Describe every recording; 1 if some cannot be read."""
    from sep import audio

    encoder, labels, why = _listener(options)
    failed = 0
    for name in options.inputs:
        try:
            print(_described(name), flush=True)
            if encoder is not None:
                from sep.classes import heard

                print("  most similar classes (cosine of -1 to 1):")
                head = audio.info(name)
                blocks = audio.blocks(name)
                for stretch in heard(blocks, head.sample_rate, head.frames, encoder, labels):
                    words = ", ".join(f"{label} {value:.2f}" for label, value in stretch.classes)
                    print(f"  {stretch.start_s:7.1f} to {stretch.stop_s:.1f} s: {words}")
        except SepError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr, flush=True)
    if why:
        print(why)
    return 1 if failed else 0


def _described(name: str) -> str:
    """Two lines: the form, and the levels."""
    from sep import audio
    from sep.level import Level

    head = audio.info(name)
    bits = audio.INTEGER_BITS.get(head.subtype)
    level = Level(head.channels, head.sample_rate, 1 - 2.0 ** (1 - bits) if bits else 1.0)
    for block in audio.blocks(name):
        level.push(block)
    channels = "1 channel" if head.channels == 1 else f"{head.channels} channels"
    measured = not math.isnan(level.loudness)
    loudness = f"loudness {level.loudness:.1f} LUFS" if measured else "too short for a loudness"
    return (
        f"{name}: {head.format} {head.subtype}, {head.sample_rate} Hz, {channels}, "
        f"{head.duration_s:.2f} s\n"
        f"  peak {level.peak_db:.1f} dBFS, RMS {level.rms_db:.1f} dBFS, "
        f"{loudness}, {level.clipped} samples at full scale"
    )


def _listener(options: argparse.Namespace) -> tuple[Any, list[str], str]:
    """The encoder and the labels to listen for; None and the reason where there are none."""
    from encoders.base import EncoderError
    from sep import hub
    from sep.separator import default_model

    try:
        folder = Path(options.model) if options.model else default_model()
        labels = _lines(options.classes) if options.classes else hub.labels(folder)
    except ModelError as error:
        if options.model or options.classes:
            raise
        return None, [], f"classes not looked for: {error}"
    try:
        return hub.load_encoder(folder), labels, ""
    except EncoderError as error:
        raise ModelError(f"{folder}: its query encoder cannot be loaded: {error}") from None


def _lines(name: str) -> list[str]:
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise SepError(f"--classes {name}: cannot be read ({reason}); give one a line") from None
    if not (lines := [line.strip() for line in text.splitlines() if line.strip()]):
        raise SepError(f"--classes {name}: is empty; give one class a line")
    return lines
