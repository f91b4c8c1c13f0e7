"""Errors whose message is one clear line that names the file or option and the fix."""

from typing import Any


class SepError(Exception):
    """Base of every error that an entry point prints as one line instead of a traceback."""


class AudioFileError(SepError):
    """A recording that cannot be read or written."""


class QueryError(SepError):
    """A text, audio or image query that cannot be used."""


class ModelError(SepError):
    """A checkpoint folder that is missing, damaged or of another kind."""


class DataError(SepError):
    """A data directory, mixture list or embedding file with a fault."""


class TrainingError(SepError):
    """Training that cannot go on, such as a loss that is not finite."""


class OptionError(SepError, ValueError):
    """A setting that is unknown, or that does not go with another one."""


def notice(message: Any, *_: Any) -> str:
    """A warning as one line, in the place of `warnings.formatwarning`."""
    return f"notice: {message}\n"
