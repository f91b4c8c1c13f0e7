"""Encoders by name."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from encoders.base import Encoder, EncoderError

KNOWN = {"small": "encoders.small:SmallEncoder"}


def get(
    name: str, weights: str | Path | None = None, device: str = "cpu", **options: Any
) -> Encoder:
    """Build the encoder called `name`.

    Args:
        name: a key of `KNOWN`.
        weights: folder written by `Encoder.save`; None takes the encoder's own starting weights.
        device: where its towers run.
        options: constructor arguments of that encoder, for a start without `weights`.

    Raises:
        EncoderError: unknown name, or a weights folder that cannot be used.
    """
    if name not in KNOWN:
        raise EncoderError(f"unknown encoder '{name}'; known: {', '.join(sorted(KNOWN))}")
    module, _, class_name = KNOWN[name].partition(":")
    cls = getattr(import_module(module), class_name)
    if weights is None:
        return cls(**options).to(device)
    if options:
        raise EncoderError(f"{', '.join(options)}: options are fixed by the weights in {weights}")
    return cls.load(weights).to(device)


def load(folder: str | Path, device: str = "cpu") -> Encoder:
    """Load the encoder saved in `folder`, whichever it is; raises EncoderError."""
    return get(read_config(folder).get("name", "?"), weights=folder, device=device)


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read `config.json` of a saved encoder or judge; raises EncoderError."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EncoderError(
            f"{path} does not exist; give a folder that an alignment has written"
        ) from None
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read as JSON ({error}); write it anew") from None
    if not isinstance(config, dict):
        raise EncoderError(f"{path} must hold a JSON object; write it anew")
    return config
