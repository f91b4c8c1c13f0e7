"""`sep export`: a model's network for other runtimes."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "export",
        help="write a model's network as ONNX or TorchScript",
        description="Write the network of a model, magnitudes (B, F, T) and queries (B, D) to mask "
        "logits (B, H, T), for any number of frames, and check it against the model.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model folder (default: as in `separate`)"
    )
    parser.add_argument("--format", choices=("onnx", "torchscript"), default="onnx")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="file to write")


def run(options: argparse.Namespace) -> int:
    """Write the file and say how closely it agrees."""
    from sep import hub
    from sep.export import export
    from sep.separator import default_model

    model = hub.from_pretrained(options.model or default_model())
    difference = export(model, options.out, options.format)
    size = Path(options.out).stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB, logits within {difference:.1e} of the model's")
    return 0
