"""Encoders by name."""

from importlib import import_module
from pathlib import Path
from typing import Any

from encoders.base import Encoder, EncoderError
from encoders.checkpoint import read_config

SHIPPED = Path(__file__).resolve().parent / "weights"  # one folder an encoder
KNOWN = {
    "small": "encoders.small:SmallEncoder",
    "imagebind": "encoders.imagebind:ImageBindEncoder",
    "clap": "encoders.clap:ClapEncoder",
    "yamnet": "encoders.yamnet:YamnetEncoder",
}


def get(
    name: str, weights: str | Path | None = None, device: str = "cpu", **options: Any
) -> Encoder:
    """Build the encoder called `name`.

    Args:
        name: a key of `KNOWN`.
        weights: folder written by `Encoder.save`, or yamnet's file; "shipped" takes those that
            come with the toolkit; None those, where there are any and no `options` are given, else
            the encoder's own starting weights.
        device: where its towers run.
        options: constructor arguments of that encoder, for a start without `weights`.

    Raises:
        EncoderError: unknown name, or a weights folder that cannot be used.
    """
    if name not in KNOWN:
        raise EncoderError(f"unknown encoder '{name}'; known: {', '.join(sorted(KNOWN))}")
    module, _, class_name = KNOWN[name].partition(":")
    cls = getattr(import_module(module), class_name)
    shipped = SHIPPED / name if (SHIPPED / name / "config.json").is_file() else None
    if weights == "shipped":
        if shipped is None:
            raise EncoderError(f"no weights of encoder '{name}' come with the toolkit")
        weights = shipped
    elif weights is None and not options:
        weights = shipped
    if weights is None:
        return cls(**options).to(device)
    if options:
        raise EncoderError(f"{', '.join(options)}: options are fixed by the weights in {weights}")
    return cls.load(weights).to(device)


def load(folder: str | Path, device: str = "cpu") -> Encoder:
    """Load the encoder saved in `folder`, whichever it is; raises EncoderError."""
    config = read_config(folder)
    return get(config.get("name", config.get("model_type", "?")), weights=folder, device=device)
