"""`sep score`: a folder of estimates against references."""

import argparse
from pathlib import Path
from typing import Any

from sep.errors import SepError


def add(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "score",
        help="score a folder of estimates against references",
        description="Score estimates against references of the same name.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("reference", metavar="REF_DIR", help="folder of the true targets")
    parser.add_argument("estimate", metavar="EST_DIR", help="folder of the estimates")
    parser.add_argument(
        "--mixture", metavar="MIX_DIR", help="folder of the recordings: adds improvement, SIR, SAR"
    )
    parser.add_argument("--out", metavar="FILE", help="write the scores of each file as CSV")


def run(options: argparse.Namespace) -> int:
    """Print the mean of every score and write those of each file."""
    from sep.metrics import report
    from sep.metrics.statistics import summarise

    rows = report.score_folder(options.reference, options.estimate, options.mixture)
    print(f"{len(rows)} files, mean ± standard error, [95 % interval]")
    for name, (title, digits) in report.METRICS.items():
        values = [row[name] for row in rows if name in row]
        if not values:
            continue
        entry = summarise(values)
        line = f"{title:<18} {entry['mean']:8.{digits}f} ± {entry['sem']:.{digits}f}"
        line += f"  [{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"
        print(line + (f"  undefined for {entry['undefined']}" if entry["undefined"] else ""))
    if options.out:
        try:
            report.write_csv(Path(options.out), rows)
        except OSError as error:
            raise SepError(f"--out {options.out}: cannot be written ({error.strerror})") from None
        print(f"scores of each file: {options.out}")
    return 0
