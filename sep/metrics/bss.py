"""BSS Eval by museval in both of its definitions, each under its own name.

`sdr_images` and `isr_images` are museval v4's default. For a mono signal that SDR is the plain
ratio |s|^2 / |s - e|^2. `sdr_sources` allows the reference a 512-tap filter first
(`bsseval_sources_version=True`). The two can move in opposite directions. SIR and SAR are the same
numbers in both. Everything is computed over one window that covers the clip.

This is the reference implementation, one clip at a time; `sep.metrics.bss_torch` gives the same
numbers in batches.
"""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

NAMES = ("sdr_images", "isr_images", "sdr_sources", "sir", "sar")


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
    target: np.ndarray, interferer: np.ndarray, estimate: np.ndarray, residual: np.ndarray
) -> dict[str, float]:
    """Scores of one target estimate by museval.

    Args:
        target: (N,) or (C, N) true target.
        interferer: same shape, everything else in the mixture.
        estimate: same shape, estimate of the target.
        residual: same shape, the second estimate: mixture - estimate. The target's scores do not
            depend on it, but museval refuses a silent one (the mixture itself as the estimate
            leaves none); the estimate then stands in.

    Returns:
        The five `NAMES` in dB; all NaN where museval defines none (a silent source or estimate).
    """
    # museval's layout is (source, sample, channel)
    references = np.stack([np.atleast_2d(x).T for x in (target, interferer)]).astype(np.float64)
    estimates = np.stack([np.atleast_2d(x).T for x in (estimate, residual)]).astype(np.float64)
    if not estimates[1].any():
        estimates[1] = estimates[0]
    if not all(x.any() for x in (*references, *estimates)):
        return dict.fromkeys(NAMES, float("nan"))

    whole = {"window": np.inf, "hop": np.inf, "filters_len": 512}
    evaluate = museval_metrics().bss_eval
    images = evaluate(references, estimates, bsseval_sources_version=False, **whole)
    sources = evaluate(references, estimates, bsseval_sources_version=True, **whole)
    sdr_images, isr_images, sir, sar = (float(x[0, 0]) for x in images[:4])
    return {
        "sdr_images": sdr_images,
        "isr_images": isr_images,
        "sdr_sources": float(sources[0][0, 0]),
        "sir": sir,
        "sar": sar,
    }
