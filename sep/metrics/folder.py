"""Scores of a folder of estimates against a folder of references, matched by file name."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sep import audio
from sep.errors import DataError
from sep.metrics.bss import Windows, median
from sep.metrics.bss_torch import bss_eval
from sep.metrics.sisdr import sdr, si_sdr

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
KINDS = ("reference", "estimate", "mixture")
SHOWN = 20  # faults named one by one before the rest are only counted


def _files(folder: str | Path) -> dict[str, Path]:
    """Audio files below a folder by their relative path without suffix."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; name a folder of sound files")
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in found:
                raise DataError(f"{path}: two files are named {name}; keep one")
            found[name] = path
    if not found:
        raise DataError(f"{root}: holds no sound files ({', '.join(SUFFIXES)})")
    return found


def _faults(files: dict[str, dict[str, Path]]) -> list[str]:
    """One line for each missing, extra or mis-sized file and each different rate."""
    reference, faults = files["reference"], []
    for kind, found in files.items():
        for name in sorted(reference.keys() - found.keys()):
            faults.append(f"{reference[name]}: has no {kind} of the same name; add it")
        for name in sorted(found.keys() - reference.keys()):
            faults.append(f"{found[name]}: has no reference of the same name; remove it")
    for name in sorted(set.intersection(*(set(found) for found in files.values()))):
        wanted = audio.info(reference[name])
        for found in list(files.values())[1:]:
            given = audio.info(found[name])
            if given.sample_rate != wanted.sample_rate:
                faults.append(
                    f"{found[name]}: {given.sample_rate} Hz, its reference has "
                    f"{wanted.sample_rate} Hz; resample one of them"
                )
            elif given.channels != wanted.channels:
                faults.append(
                    f"{found[name]}: {given.channels} channels, its reference has {wanted.channels}"
                )
            elif given.frames != wanted.frames:
                faults.append(
                    f"{found[name]}: {given.frames} samples, its reference has {wanted.frames}; "
                    "cut or pad it to the same length"
                )
    return faults


def _row(
    reference: Tensor, estimate: Tensor, mixture: Tensor | None, windows: Windows | None
) -> dict[str, float]:
    """Scores of one clip, (C, N) each; channels of SI-SDR are averaged, of BSS Eval joined."""
    row = {"si_sdr": float(si_sdr(estimate, reference).mean())}
    plain = float(sdr(estimate.flatten(), reference.flatten()))
    if mixture is None:
        return row | {"sdr_images": plain}
    row["si_sdri"] = row["si_sdr"] - float(si_sdr(mixture, reference).mean())
    row["sdri"] = plain - float(sdr(mixture.flatten(), reference.flatten()))
    rest = mixture - reference
    references = torch.stack([reference, rest] if rest.any() else [reference])
    scores = bss_eval(references[None], estimate[None, None], windows=windows)
    return row | {name: float(median(value.flatten().numpy())) for name, value in scores.items()}


def score_folder(
    reference_dir: str | Path,
    estimate_dir: str | Path,
    mixture_dir: str | Path | None = None,
    *,
    window_s: float | None = None,
    hop_s: float | None = None,
    framewise: bool = False,
) -> list[dict[str, Any]]:
    """Score every estimate against the reference of the same relative name (suffix ignored).

    Args:
        reference_dir: true targets.
        estimate_dir: estimates of them.
        mixture_dir: the recordings they were separated from. With it, improvement over the
            mixture and BSS Eval (SDR in both definitions, ISR, SIR, SAR) are given too: the
            interference is what the mixture holds beside the reference. The longest clip is
            held in memory in whole.
        window_s, hop_s, framewise: BSS Eval in windows (`sep.metrics.bss.Windows`), of which a
            clip gets the median; one window over the clip by default.

    Returns:
        One row a file, by name: `id`, `si_sdr`, and `sdr_images` or all the BSS Eval scores in
        dB; NaN where a silent signal leaves a score undefined, an SIR of +inf where the mixture is
        the reference alone.

    Raises:
        DataError: files are missing, extra, of different rate, length or channel count; the
            message names each on a line of its own.
        OptionError: windows of no length.
    """
    files = {"reference": _files(reference_dir), "estimate": _files(estimate_dir)}
    if mixture_dir is not None:
        files["mixture"] = _files(mixture_dir)
    faults = _faults(files)
    if faults:
        more = [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise DataError("\n".join(faults[:SHOWN] + more))

    rows = []
    for name in sorted(files["reference"]):
        read = {kind: audio.read(found[name]) for kind, found in files.items()}
        waves = [read[kind][0] if kind in read else None for kind in KINDS]
        windows = Windows.of_seconds(window_s, hop_s, read["reference"][1], framewise)
        rows.append({"id": name, **_row(*waves, windows)})
    return rows
