"""The `sep` command. Exit codes: 0 done, 1 some files failed, 2 wrong usage, 130 interrupted.

Everything heavy is imported after the arguments are known, so that `sep --help` answers at once.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from sep.commands import export, import_checkpoint, inspect, labels, score, separate, serve
from sep.errors import SepError, notice

COMMANDS = (separate, serve, inspect, labels, score, export, import_checkpoint)


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
    # Waiting threads sleep rather than spin: on a busy machine this is several times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    try:
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
    except KeyboardInterrupt:
        print("\ninterrupted; finished files are complete and kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
