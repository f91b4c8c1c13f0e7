"""Query-based sound separation.

Shape letters used throughout: B batch, G masks sampled for one mixture (group), S sources,
C audio channel, N samples, F linear frequency bin, H log-frequency bin, T STFT frame,
K mask channel, D embedding, Q query. Sample rates in Hz, times in seconds, levels in dB.
"""

__version__ = "0.1.0"
_ERRORS = ("SepError", "AudioFileError", "QueryError", "ModelError", "OptionError")
__all__ = ["FileSeparation", "FileSplit", "Separation", "Separator", "Split", *_ERRORS]


def __getattr__(name: str):
    """Import the public classes when they are first asked for, so that `sep --help` is fast."""
    if name in __all__:
        from sep import errors, separator

        return getattr(errors if name in _ERRORS else separator, name)
    raise AttributeError(f"module 'sep' has no attribute '{name}'")
