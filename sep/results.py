"""What separating returns."""

from typing import NamedTuple

import numpy as np
from torch import Tensor

Waveform = Tensor | np.ndarray


class Separation(NamedTuple):
    """What `Separator.separate` returns; N, C and the kind of array are those of the input.

    Attributes:
        target: (N,) or (C, N), the sound asked for.
        residual: mixture - target, everything else.
        sample_rate: of both, in Hz: the input's.
        mask: (F, T) float16 in [0, 1], what was kept of each bin at the model's rate.
        similarity: cosine of the target and the query, NaN for silence.
        mixture_similarity: cosine of the mixture and the query, NaN for silence.
    """

    target: Waveform
    residual: Waveform
    sample_rate: int
    mask: Tensor
    similarity: float
    mixture_similarity: float


class Split(NamedTuple):
    """What `Separator.split` returns: `Separation` for several sounds, in the order asked for.

    Attributes:
        targets: the sounds; residual: mixture - all of them.
        sample_rate: of all, in Hz: the input's.
        masks: (Q, F, T) float16, nowhere above 1 in sum.
        similarities, mixture_similarities: cosine of each target, and of the mixture, with its
            query.
    """

    targets: list[Waveform]
    residual: Waveform
    sample_rate: int
    masks: Tensor
    similarities: list[float]
    mixture_similarities: list[float]


class FileSeparation(NamedTuple):
    """What `Separator.separate_file` returns.

    Attributes:
        sample_rate, channels, frames: of the recording and its parts.
        similarity: cosine of the target and the query, NaN for silence.
        mixture_similarity: cosine of the mixture and the query, NaN for silence.
        level_db: level of the target under the mixture; -inf where nothing was found.
        weights: of the candidates, in the order of `sep.candidates.VARIANTS`.
    """

    sample_rate: int
    channels: int
    frames: int
    similarity: float
    mixture_similarity: float
    level_db: float
    weights: list[float]


class FileSplit(NamedTuple):
    """What `Separator.split_file` returns: `FileSeparation` for several sounds."""

    sample_rate: int
    channels: int
    frames: int
    similarities: list[float]
    mixture_similarities: list[float]
    levels_db: list[float]
    weights: list[float]
