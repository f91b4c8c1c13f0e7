"""Write a trained model in half precision, small enough to ship.

python local/publish.py exp/final/encoder ../../encoders/weights/small
python local/publish.py exp/final/rl/best ../../sep/weights/small
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from encoders.checkpoint import read_config, save_folder
from encoders.registry import SHIPPED
from encoders.small import SmallEncoder
from sep import hub
from sep.errors import ModelError
from sep.program import guarded

LICENCE = "CC-BY-SA-4.0, see README.md here"
BACKBONES = "it builds on backbones under Apache-2.0"


def halved(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's state with float16 in place of float32; the module gets the rounded values."""
    state = {k: v.half() if v.dtype == torch.float32 else v for k, v in module.state_dict().items()}
    if not all(torch.isfinite(v).all() for v in state.values()):
        raise ModelError("a weight is beyond float16; train with more weight decay")
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return {k: v.contiguous() for k, v in state.items()}


def publish_encoder(source: Path, target: Path) -> str:
    """Write an encoder with the fingerprint of what is read back; returns that."""
    encoder, config = SmallEncoder.load(source), read_config(source)
    state = halved(encoder)
    config |= {"fingerprint": encoder.fingerprint, "licence": f"{LICENCE}; {BACKBONES}"}
    save_folder(target, config, state)
    return encoder.fingerprint


def publish_separator(source: Path, target: Path) -> str:
    """Write a separator that takes the shipped encoder; returns that encoder's fingerprint."""
    model, config = hub.from_pretrained(source), hub.read_config(source)
    shipped = read_config(SHIPPED / "small")["fingerprint"]
    if config["encoder"]["fingerprint"] != shipped:
        raise ModelError(f"{source}: not trained with the shipped encoder ({shipped})")
    state = halved(model)
    target.mkdir(parents=True, exist_ok=True)
    save_file(state, target / "model.safetensors")
    config["licence"] = LICENCE
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for path in target.iterdir():
        path.chmod(0o644)
    return config["encoder"]["fingerprint"]


def publish(source: Path, target: Path) -> None:
    """Publish whichever model `source` holds."""
    described = json.loads((source / "config.json").read_text())
    kind = publish_separator if "model" in described else publish_encoder
    fingerprint = kind(source, target)
    size_mb = (target / "model.safetensors").stat().st_size / 1e6
    print(f"{target}: {size_mb:.1f} MB, encoder {fingerprint}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the trained encoder or separator")
    parser.add_argument("target", type=Path, help="folder to write")
    arguments = parser.parse_args()
    guarded(publish, arguments.source, arguments.target)


if __name__ == "__main__":
    main()
