"""Imported first by a program, so that Ctrl-C ends it without a traceback from its first second on.

Importing torch and its company takes seconds; what `sep.program.guarded` catches comes after that.
"""

import sys
from types import TracebackType


def quiet(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    """Say nothing of Ctrl-C, everything of any other exception."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, value, trace)


sys.excepthook = quiet
