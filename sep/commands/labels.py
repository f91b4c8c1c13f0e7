"""`sep labels`: the classes that a model was trained on."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "labels",
        help="list the classes that a model was trained on",
        description="List the classes that a model was trained on, one a line. Where it holds its "
        "test scores, best first, with the SI-SDR improvement asked by text and the number of test "
        "mixtures, tab-separated. Queries are free: other words work as far as they are near.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--model", metavar="DIR", help="model folder (default: as in `separate`)")


def run(options: argparse.Namespace) -> int:
    """Print one label a line, those with scores first."""
    from sep import hub
    from sep.separator import default_model

    folder = Path(options.model) if options.model else default_model()
    labels, scores = hub.labels(folder), hub.scores(folder)
    for label in sorted(scores, key=lambda label: -scores[label][0]):
        gain, count = scores[label]
        print(f"{label}\t{gain:+.1f} dB\t{count}")
    for label in labels:
        if label not in scores:
            print(label)
    return 0
