"""Write an aligned encoder in half precision, small enough to ship.

python local/publish.py exp/final/encoder ../../encoders/weights/small
"""

import argparse
from pathlib import Path

import torch

from encoders.base import EncoderError
from encoders.checkpoint import read_config, save_folder
from encoders.small import SmallEncoder
from sep.program import guarded

LICENCE = "CC-BY-SA-4.0, see README.md here; it builds on backbones under Apache-2.0"


def publish(source: Path, target: Path) -> None:
    """Round the weights to float16, and write them with the fingerprint of what is read back."""
    encoder, config = SmallEncoder.load(source), read_config(source)
    state = {
        k: v.half() if v.dtype == torch.float32 else v for k, v in encoder.state_dict().items()
    }
    encoder.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    )
    if not all(torch.isfinite(v).all() for v in encoder.state_dict().values()):
        raise EncoderError(f"{source}: a weight is beyond float16; train with more weight decay")
    config |= {"fingerprint": encoder.fingerprint, "licence": LICENCE}
    save_folder(target, config, state)
    size_mb = (target / "model.safetensors").stat().st_size / 1e6
    print(f"{target}: {size_mb:.1f} MB, fingerprint {encoder.fingerprint}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the aligned encoder")
    parser.add_argument("target", type=Path, help="folder to write")
    arguments = parser.parse_args()
    guarded(publish, arguments.source, arguments.target)


if __name__ == "__main__":
    main()
