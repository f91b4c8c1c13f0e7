"""How a program of the toolkit speaks and fails: plain lines, one-line errors, exit codes."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

from sep.errors import SepError, notice
from sep.train import distributed


def say(line: str) -> None:
    """Print a line at once; under torchrun only the first process speaks."""
    if distributed.rank() == 0:
        print(line, flush=True)


def guarded(program: Callable[..., Any], *arguments: Any) -> None:
    """Run a program; its known errors become one line and exit code 1.

    Ctrl-C exits with 130; what was written so far is whole and the next run goes on from it.
    """
    from encoders.base import EncoderError

    warnings.formatwarning = notice
    try:
        program(*arguments)
    except (SepError, EncoderError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        print("\nstopped; the next run goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
