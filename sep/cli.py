"""The `sep` command. Exit codes: 0 done, 1 some files failed, 2 wrong usage, 130 interrupted.

A signal to end (SIGTERM, SIGHUP) clears up as Ctrl-C does and exits with 128 + its number.

Everything heavy is imported after the arguments are known, so that `sep --help` answers at once.
"""

import argparse
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from sep.commands import export, import_checkpoint, inspect, labels, score, separate, serve
from sep.errors import SepError, notice

COMMANDS = (separate, serve, inspect, labels, score, export, import_checkpoint)


class Ended(KeyboardInterrupt):
    """A signal to end; handled as Ctrl-C is.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While it lasts, signals to end raise `Ended`, but for those that are ignored (nohup)."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    former = {}
    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
        for number in filter(None, numbers):
            if signal.getsignal(number) is signal.SIG_DFL:
                former[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def build_parser() -> argparse.ArgumentParser:
    """The command line of `sep`."""
    parser = argparse.ArgumentParser(
        prog="sep", description="Take the sound that a query names out of a recording."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `sep` command and return its exit code."""
    options = build_parser().parse_args(arguments)
    warnings.formatwarning = notice
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no text
    try:
        with ended_by_signals():
            code = options.run(options)
        sys.stdout.flush()
        return code
    except SepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        from sep.device import NO_ROOM, out_of_memory

        if not out_of_memory(error):
            raise
        print(f"error: {NO_ROOM}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("\ninterrupted; finished files are complete and kept", file=sys.stderr)
        return 128 + (error.number if isinstance(error, Ended) else signal.SIGINT)


def program() -> None:
    """The `sep` command as a process of its own, which ends here."""
    code = main()
    gc.freeze()  # Python looks through all of torch's objects at its end: a third of a second
    sys.exit(code)


if __name__ == "__main__":
    program()
