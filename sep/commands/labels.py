"""`sep labels`: the classes that a model was trained on."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "labels",
        help="list the classes that a model was trained on",
        description="List the classes that a model was trained on, which it knows best. Queries "
        "are free: other words work as far as they are near to these.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--model", metavar="DIR", help="model folder (default: as in `separate`)")


def run(options: argparse.Namespace) -> int:
    """Print one label a line."""
    from sep import hub
    from sep.separator import default_model

    print("\n".join(hub.labels(Path(options.model) if options.model else default_model())))
    return 0
