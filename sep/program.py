"""How a program of the toolkit speaks and fails: plain lines, one-line errors, exit codes."""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from sep.errors import SepError, notice
from sep.train import distributed


def say(line: str) -> None:
    """Print a line at once; under torchrun only the first process speaks."""
    if distributed.rank() == 0:
        print(line, flush=True)


class Pace:
    """What a run of some steps tells of its course: a line every five seconds.

    Args:
        steps: of the whole run, which begins now.
    """

    def __init__(self, steps: int):
        self.steps, self._began = steps, time.monotonic()
        self._spoke = self._began

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    def tell(self, step: int, words: str, now: bool = False) -> None:
        """After a `step`, from 1: say `words`, the pace and what is to go, if it is time."""
        if now or step == self.steps or time.monotonic() - self._spoke > 5:
            pace = self.seconds / step
            say(f"{words}  {pace:.2f} s/step  {pace * (self.steps - step):.0f} s to go")
            self._spoke = time.monotonic()


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
