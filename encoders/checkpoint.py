"""Folders of saved encoders and judges: `config.json` beside `model.safetensors`."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from encoders.base import EncoderError


def fingerprint(name: str, state: Mapping[str, Tensor]) -> str:
    """First 16 hexadecimal digits of the SHA-256 over name, tensor names, shapes and values."""
    digest = hashlib.sha256(name.encode())
    for key, value in sorted(state.items()):
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_folder(folder: str | Path, config: dict[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors` under temporary names, then rename them."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    weights, text = folder / ".model.safetensors.tmp", folder / ".config.json.tmp"
    save_file(state, weights)
    text.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    os.replace(weights, folder / "model.safetensors")
    os.replace(text, folder / "config.json")


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


def load_weights(module: nn.Module, folder: str | Path) -> None:
    """Fill `module` from `folder`/model.safetensors; raises EncoderError."""
    path = Path(folder) / "model.safetensors"
    load_state(module, read_state(path), path)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, halves as float32; raises EncoderError."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise EncoderError(f"{path} does not exist; give a folder that a training has written")
    try:
        state = load_file(path)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise EncoderError(f"{path} is damaged ({reason}); train anew") from None
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_state(module: nn.Module, state: Mapping[str, Tensor], origin: str | Path) -> None:
    """Fill `module` from `state`, every tensor of it; raises EncoderError as `check_state`."""
    check_state(module.state_dict(), state, origin)
    module.load_state_dict(dict(state))


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str | Path) -> None:
    """Refuse a `state` whose tensors are not those of a network's `own` state.

    Raises:
        EncoderError: names `origin` and the first tensor that is missing, of another shape, or
            not known.
    """
    for key, value in own.items():
        if key not in state:
            raise EncoderError(f"{origin}: has no tensor {key}; it holds another network")
        if state[key].shape != value.shape:
            found, wanted = tuple(state[key].shape), tuple(value.shape)
            raise EncoderError(
                f"{origin}: tensor {key} is {found}, but this network needs {wanted}; "
                "give the geometry that the weights were trained with"
            )
    unknown = sorted(set(state) - set(own))
    if unknown:
        raise EncoderError(f"{origin}: tensor {unknown[0]} belongs to another network")
