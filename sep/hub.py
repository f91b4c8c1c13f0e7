"""Model folders: config.json and model.safetensors, nothing that could execute when loaded.

Beside them is a model card, README.md, for people and for the Hub; loading does not read it.
"""

import importlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sep import card
from sep.errors import ModelError
from sep.model import QueryNet
from sep.published import load_omnisep as load_omnisep

if TYPE_CHECKING:
    from encoders.base import Encoder

FORMAT = 1
KINDS = {  # of networks: what a model folder's config calls them
    "query": "sep.model.QueryNet",
    "confident": "sep.networks.confidence.ConfidentNet",
    "trace": "sep.networks.trace.TraceNet",
    "turns": "sep.networks.turns.TurnNet",
    "prior": "sep.networks.prior.PriorNet",
    "reflect": "sep.networks.reflect.ReflectiveNet",
    "published": "sep.networks.published.PublishedNet",
}


def save_pretrained(
    model: QueryNet,
    folder: str | Path,
    encoder: str | Path | None = None,
    provenance: dict[str, Any] | None = None,
    published_encoder: str | None = None,
) -> None:
    """Write a model folder; an existing one is replaced only when the new one is complete.

    A README.md that somebody else wrote there stays; otherwise one is written (`sep.card`).

    Args:
        model: the separator.
        folder: where to write config.json, model.safetensors and README.md.
        encoder: folder of the query encoder, copied to `encoder/` so that the model folder can be
            moved and used alone.
        provenance: training facts to keep (stage, step, seed, scores), JSON-serialisable.
        published_encoder: name of the query encoder where no folder is copied: one that finds its
            published weights by itself.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "format": FORMAT,
        "kind": model.kind,
        "model": model.config,
        "provenance": provenance or {},
    }
    if published_encoder:
        config["encoder"] = {"name": published_encoder, "published": True}
    licence = ""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        if encoder is not None:
            shutil.copytree(encoder, temporary / "encoder")
            described = json.loads((temporary / "encoder" / "config.json").read_text())
            licence = described.get("licence") or ""
            config["encoder"] = {k: described.get(k) for k in ("name", "fingerprint")}
        weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        save_file(weights, temporary / "model.safetensors")
        (temporary / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        count = sum(parameter.numel() for parameter in model.parameters())
        card.write(temporary, folder, config, count, licence)
        os.chmod(temporary, 0o755)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Put the finished folder `new` in the place of `folder` by renames."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config.json of a model folder.

    Raises:
        ModelError: the folder or its config is missing or of another kind.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: no model here (config.json is missing); name a model folder"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from None
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise ModelError(f"{path}: not the configuration of a separator")
    for part in ("provenance", "encoder"):
        if not isinstance(config.get(part) or {}, dict):
            raise ModelError(f"{path}: damaged ('{part}' is no mapping); copy the model again")
    if config.get("format") != FORMAT:
        raise ModelError(f"{path}: format {config.get('format')} is not {FORMAT}; train it again")
    return config


def labels(folder: str | Path) -> list[str]:
    """The classes that a model was trained on.

    Raises:
        ModelError: no model, or one that does not say.
    """
    found = (read_config(folder).get("provenance") or {}).get("labels")
    if not found:
        raise ModelError(f"{folder}: does not say what it was trained on; train it again")
    return [str(label) for label in found]


def scores(folder: str | Path) -> dict[str, tuple[float, int]]:
    """SI-SDRi in dB by text, and of how many test mixtures, of each class that was tested.

    Raises:
        ModelError: no model, or scores that are none.
    """
    found = (read_config(folder).get("provenance") or {}).get("scores") or {}
    try:
        return {str(label): (float(gain), int(count)) for label, (gain, count) in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise ModelError(f"{folder}: damaged (its 'scores'); copy the model again") from None


def from_pretrained(folder: str | Path, device: str | torch.device = "cpu") -> QueryNet:
    """Load a separator in eval mode from a model folder.

    Raises:
        ModelError: a file is missing or damaged, or the weights do not fit the configuration.
    """
    config, path = read_config(folder), Path(folder) / "model.safetensors"
    try:
        model = network(config.get("kind", "query"))(**config["model"])
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; copy the whole model folder") from None
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: damaged ({error}); copy or train the model again") from None
    except (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: weights and config.json do not fit ({reason})") from None
    return model.to(device).eval()


def network(kind: str) -> type[QueryNet]:
    """The class of networks called `kind`.

    Raises:
        ModelError: an unknown kind.
    """
    if kind not in KINDS:
        raise ModelError(f"network '{kind}' is unknown; use {', '.join(KINDS)}")
    module, name = KINDS[kind].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def extend(model: QueryNet, kind: str = "", **options: Any) -> QueryNet:
    """A network of another kind with the weights of `model` and new parts beside them.

    New parts start so that the masks are those of `model`. One of that kind already gets the
    options where that leaves all its weights in place.

    Args:
        model: what to start from, on its device.
        kind: one of `KINDS`; options: what it takes beside the arguments of `model`.

    Raises:
        ModelError: an unknown kind or option, or no place for weights of `model`.
    """
    try:
        larger = network(kind)(**model.config | options)
        odd = larger.load_state_dict(model.state_dict(), strict=False).unexpected_keys
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"network {kind}: {str(error).splitlines()[-1].strip()}") from None
    if odd:
        raise ModelError(f"a {model.kind} network cannot become a {kind} one: {odd[0]} is left")
    larger.amp = model.amp
    return larger.to(next(model.parameters()).device).train(model.training)


def load_encoder(folder: str | Path, device: str | torch.device = "cpu") -> "Encoder":
    """Load the query encoder of a model.

    It is what the folder carries in `encoder/`, or the shipped one, or, for an imported checkpoint,
    the published one of the name that config.json has.

    Raises:
        ModelError: it is none of these, or another one than the separator was trained with.
    """
    import encoders
    from encoders.checkpoint import read_config as described
    from encoders.registry import KNOWN, SHIPPED

    wanted = read_config(folder).get("encoder") or {}
    path, fingerprint = Path(folder) / "encoder", wanted.get("fingerprint")
    if not path.is_dir() and wanted.get("published"):
        if wanted["name"] not in KNOWN:
            raise ModelError(
                f"{folder}: takes queries by {wanted['name']}, an encoder that the toolkit does "
                "not have; use sep.hub.from_pretrained and give its network your own embeddings"
            )
        return encoders.get(wanted["name"], device=str(device))
    if not path.is_dir():
        shipped = SHIPPED / str(wanted.get("name"))
        if not fingerprint or not shipped.is_dir():
            raise ModelError(f"{path}: missing; copy the whole model folder")
        path = shipped
    found = described(path).get("fingerprint")
    if fingerprint and found != fingerprint:
        raise ModelError(
            f"{path}: this encoder ({found}) is not the one that the separator was trained with "
            f"({fingerprint}); copy the whole model folder again"
        )
    return encoders.load(path, device=str(device))
