"""BSS Eval by museval in both of its definitions, each under its own name.

`sdr_images` and `isr_images` are museval v4's default. For a mono signal that SDR is the plain
ratio |s|^2 / |s - e|^2. `sdr_sources` allows the reference a 512-tap filter first
(`bsseval_sources_version=True`). The two can move in opposite directions. SIR and SAR are the same
numbers in both. One window covers the clip unless `Windows` are given: with the filters of the
whole clip, as BSS Eval v4 has them, or with those of each window, as v3 does.

This is the reference implementation, one clip at a time; `sep.metrics.bss_torch` gives the same
numbers in batches.
"""

import functools
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Self

import numpy as np

from sep.errors import OptionError

NAMES = ("sdr_images", "isr_images", "sdr_sources", "sir", "sar")
TAPS = 512  # length of the allowed distortion filter, in samples


@dataclass(frozen=True)
class Windows:
    """Stretches of time that are scored apart, cut as museval cuts them.

    Attributes:
        size: in samples; a clip that is not longer is one window.
        hop: from one window to the next, in samples; what is left at the end is not scored.
        framewise: distortion filters of each window (BSS Eval v3), not of the whole clip (v4).

    Raises:
        OptionError: a size or a hop below one sample.
    """

    size: int
    hop: int
    framewise: bool = False

    def __post_init__(self):
        if self.size < 1 or self.hop < 1:
            raise OptionError(
                f"a window of {self.size} samples every {self.hop}: both must be 1 or more"
            )

    @classmethod
    def of_seconds(
        cls, window_s: float | None, hop_s: float | None, rate: int, framewise: bool = False
    ) -> Self | None:
        """Windows of `window_s` every `hop_s`, the same by default; None for no `window_s`."""
        if window_s is None:
            return None
        hop_s = window_s if hop_s is None else hop_s
        return cls(round(window_s * rate), round(hop_s * rate), framewise)

    def slices(self, length: int) -> list[slice]:
        """The W windows of a clip of `length` samples."""
        if self.size >= length:
            return [slice(0, length)]
        count = (length - self.size) // self.hop + 1
        return [slice(k * self.hop, k * self.hop + self.size) for k in range(count)]


def median(values: np.ndarray) -> np.ndarray:
    """Median over the last axis, the windows that have a score; NaN where none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that none has
        return np.nanmedian(values, axis=-1)


@functools.cache
def museval_metrics() -> ModuleType:
    """museval's `metrics` module, loaded from its file.

    `import museval` also imports its data set reader, which refuses to load without ffmpeg.
    """
    package = importlib.util.find_spec("museval")
    path = Path(package.submodule_search_locations[0]) / "metrics.py"
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bss_eval(
    target: np.ndarray,
    interferer: np.ndarray | None,
    estimate: np.ndarray,
    windows: Windows | None = None,
) -> dict[str, float | np.ndarray]:
    """Scores of one target estimate by museval.

    Args:
        target: (N,) or (C, N) true target.
        interferer: same shape, everything else in the mixture; None where there is nothing else,
            which makes the SIR +inf.
        estimate: same shape, estimate of the target.
        windows: W stretches of time to score apart.

    Returns:
        The five `NAMES` in dB, (W,) each where there are `windows`; NaN where museval defines none
        (a silent source or estimate).
    """
    sources = [target] if interferer is None else [target, interferer]
    # museval's layout is (source, sample, channel); it wants an estimate of every source, and the
    # target's scores do not depend on the others
    references = np.stack([np.atleast_2d(x).T for x in sources]).astype(np.float64)
    estimates = np.stack([np.atleast_2d(estimate).T] * len(sources)).astype(np.float64)
    length = references.shape[1]
    size, hop = (windows.size, windows.hop) if windows else (length, length)
    if not all(x.any() for x in (*references, *estimates)):
        count = len(Windows(size, hop).slices(length))
        scores = {name: np.full(count, np.nan) for name in NAMES}
    else:
        cut = {"window": size, "hop": hop, "filters_len": TAPS}
        cut["framewise_filters"] = bool(windows and windows.framewise)
        evaluate = museval_metrics().bss_eval
        images = evaluate(references, estimates, bsseval_sources_version=False, **cut)
        filtered = evaluate(references, estimates, bsseval_sources_version=True, **cut)
        sdr_images, isr_images, sir, sar = (x[0] for x in images[:4])
        scores = dict(zip(NAMES, (sdr_images, isr_images, filtered[0][0], sir, sar), strict=True))
    return scores if windows else {name: float(values[0]) for name, values in scores.items()}
