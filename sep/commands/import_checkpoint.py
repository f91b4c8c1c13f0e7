"""`sep import-checkpoint`: a published checkpoint as a model folder."""

import argparse
from pathlib import Path
from typing import Any

from sep.errors import OptionError

FORMATS = ("omnisep", "clipsep")


def add(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "import-checkpoint",
        help="make a model folder of a published OmniSep or CLIPSep checkpoint",
        description="Make a model folder of a published OmniSep or CLIPSep checkpoint. Only "
        "tensors are read, nothing in the file is executed. OmniSep's queries are made by "
        "ImageBind, whose weights are looked for when the model is used; CLIPSep's by CLIP "
        "ViT-B/32, which the toolkit does not have, so that its network is for use from Python.",
        epilog="example: sep import-checkpoint best_model.pt --format omnisep -o omnisep && "
        "sep separate street.wav --model omnisep --text 'dog barking' --template '{}'",
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="state dict: .pt, .pth or .safetensors")
    parser.add_argument("--format", choices=FORMATS, required=True, help="whose checkpoint it is")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier model folder")


def run(options: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    out = Path(options.out)
    _check(Path(options.file), out, options.overwrite)
    from sep import hub
    from sep.published import ENCODERS

    model, encoder = hub.load_omnisep(options.file), ENCODERS[options.format]
    facts = {"imported": options.format, "file": Path(options.file).name}
    try:
        hub.save_pretrained(model, out, provenance=facts, published_encoder=encoder)
    except OSError as error:
        raise OptionError(f"-o {out}: cannot be written ({error.strerror})") from None
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    dim = model.config["embed_dim"]
    print(f"{out}: {size:.1f} M parameters, queries of {dim} numbers by {encoder}")
    return 0


def _check(file: Path, out: Path, overwrite: bool) -> None:
    """Refuse to replace what is no model folder, or holds the checkpoint itself."""
    if not out.exists():
        return
    if not overwrite:
        raise OptionError(f"-o {out}: exists; use --overwrite or another name")
    if not (out / "config.json").is_file() or not (out / "model.safetensors").is_file():
        raise OptionError(f"-o {out}: is no model folder and is left alone; use another name")
    if out.resolve() in file.resolve().parents:
        raise OptionError(f"-o {out}: holds {file.name}, which would be lost; use another name")
