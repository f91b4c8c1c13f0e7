"""`sep export`: a model's network for other runtimes."""

import argparse
from pathlib import Path
from typing import Any

from sep.errors import OptionError

ENDS = {".onnx": "onnx", ".pt": "torchscript"}


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
    parser.add_argument(
        "--format", choices=tuple(ENDS.values()), help="default: as FILE ends, .onnx or .pt"
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier file")


def run(options: argparse.Namespace) -> int:
    """Write the file and say how closely it agrees."""
    from sep import hub
    from sep.export import export
    from sep.separator import default_model

    folder, out = Path(options.model or default_model()), Path(options.out)
    kind = options.format or ENDS.get(out.suffix.lower())
    if kind is None:
        raise OptionError(f"-o {out}: end the name in {' or '.join(ENDS)}, or give --format")
    if folder.resolve() in out.resolve().parents:
        raise OptionError(f"-o {out}: is in the folder of the model; choose another place")
    if out.is_file() and not options.overwrite:
        raise OptionError(f"{out}: exists; use --overwrite")
    difference = export(hub.from_pretrained(folder), out, kind)
    size = Path(options.out).stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB, logits within {difference:.1e} of the model's")
    return 0
