"""Query-based sound separation.

Shape letters used throughout: B batch, G masks sampled for one mixture (group), S sources,
C audio channel, N samples, F linear frequency bin, H log-frequency bin, T STFT frame,
K mask channel, D embedding, Q query. Sample rates in Hz, times in seconds, levels in dB.

Imported before torch it has OpenMP's waiting threads sleep rather than spin, unless OMP_WAIT_POLICY
says otherwise: beside another program on two cores a separation took 0.6 s in place of 13 to 23.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported

__version__ = "0.1.0"
_ERRORS = ("SepError", "AudioFileError", "QueryError", "ModelError", "OptionError")
__all__ = ["FileSeparation", "FileSplit", "Separation", "Separator", "Split", *_ERRORS]


def __getattr__(name: str):
    """Import the public classes when they are first asked for, so that `sep --help` is fast."""
    if name in __all__:
        from sep import errors, separator

        return getattr(errors if name in _ERRORS else separator, name)
    raise AttributeError(f"module 'sep' has no attribute '{name}'")
