"""Write a trained model in half precision, small enough to ship.

python local/publish.py exp/final/encoder ../../encoders/weights/small
python local/publish.py exp/final/rl/best ../../sep/weights/small \\
    --scores exp/final/scores/per_clip.csv
"""

import argparse
import csv
import json
import math
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


def by_label(per_clip: Path, system: str) -> dict[str, tuple[float, int]]:
    """Mean SI-SDRi by text of each class, and of how many mixtures, from stage 7's scores."""
    gains: dict[str, list[float]] = {}
    with per_clip.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["system"], row["query"]) == (system, "text"):
                gains.setdefault(row["label"], []).append(float(row["si_sdri"] or "nan"))
    known = {k: [g for g in v if math.isfinite(g)] for k, v in sorted(gains.items())}
    return {k: (round(sum(v) / len(v), 2), len(v)) for k, v in known.items() if v}


def publish_separator(source: Path, target: Path, per_clip: Path | None) -> str:
    """Write a separator that takes the shipped encoder; returns that encoder's fingerprint.

    `per_clip` are its scores, as the run's folder in `source` is called there.
    """
    model, config = hub.from_pretrained(source), hub.read_config(source)
    shipped = read_config(SHIPPED / "small")["fingerprint"]
    if config["encoder"]["fingerprint"] != shipped:
        raise ModelError(f"{source}: not trained with the shipped encoder ({shipped})")
    state = halved(model)
    target.mkdir(parents=True, exist_ok=True)
    save_file(state, target / "model.safetensors")
    config["licence"] = LICENCE
    if per_clip:
        config["provenance"]["scores"] = by_label(per_clip, source.resolve().parent.name)
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for path in target.iterdir():
        path.chmod(0o644)
    return config["encoder"]["fingerprint"]


def publish(source: Path, target: Path, per_clip: Path | None) -> None:
    """Publish whichever model `source` holds."""
    described = json.loads((source / "config.json").read_text())
    if "model" in described:
        fingerprint = publish_separator(source, target, per_clip)
    else:
        fingerprint = publish_encoder(source, target)
    size_mb = (target / "model.safetensors").stat().st_size / 1e6
    print(f"{target}: {size_mb:.1f} MB, encoder {fingerprint}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the trained encoder or separator")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--scores", type=Path, help="per_clip.csv of stage 7, for `sep labels`")
    arguments = parser.parse_args()
    guarded(publish, arguments.source, arguments.target, arguments.scores)


if __name__ == "__main__":
    main()
