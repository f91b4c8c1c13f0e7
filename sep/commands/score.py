"""`sep score`: a folder of estimates against references."""

import argparse
from pathlib import Path
from typing import Any

from sep.errors import OptionError, SepError


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
    parser.add_argument(
        "--against",
        metavar="DIR",
        help="folder of another system's estimates: compares file by file",
    )
    parser.add_argument(
        "--window", metavar="S", type=float, help="BSS Eval in windows, of which the median counts"
    )
    parser.add_argument("--hop", metavar="S", type=float, help="from window to window (--window)")
    parser.add_argument(
        "--framewise", action="store_true", help="filters of each window, as in BSS Eval v3"
    )
    parser.add_argument("--out", metavar="FILE", help="write the scores of each file as CSV")


def run(options: argparse.Namespace) -> int:
    """Print the mean of every score and write those of each file."""
    from sep.metrics import report

    if options.window is None and (options.hop is not None or options.framewise):
        raise OptionError("--hop and --framewise say how windows are cut; give --window too")
    if options.window is not None and options.mixture is None:
        raise OptionError("--window is for BSS Eval, which needs the recordings; give --mixture")
    given = {"window_s": options.window, "hop_s": options.hop, "framewise": options.framewise}
    rows = report.score_folder(options.reference, options.estimate, options.mixture, **given)
    show(rows)
    if options.against:
        other = report.score_folder(options.reference, options.against, options.mixture, **given)
        print()
        show(other)
        systems = {"estimates": rows, "others": other}
        both = [{"system": s, "query": "", **row} for s, own in systems.items() for row in own]
        print()
        print(report.paired_table(report.compare(both, *systems, query=""), *systems))
    if options.out:
        try:
            report.write_csv(Path(options.out), rows)
        except OSError as error:
            raise SepError(f"--out {options.out}: cannot be written ({error.strerror})") from None
        print(f"scores of each file: {options.out}")
    return 0


def show(rows: list[dict[str, Any]]) -> None:
    """Print mean, standard error, interval and median of every score."""
    from sep.metrics import report
    from sep.metrics.statistics import summarise

    print(f"{len(rows)} files, mean ± standard error, [95 % interval], median")
    for name, (title, digits) in report.METRICS.items():
        values = [row[name] for row in rows if name in row]
        if not values:
            continue
        entry = summarise(values)
        line = f"{title:<18} {entry['mean']:8.{digits}f} ± {entry['sem']:.{digits}f}"
        line += f"  [{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"
        line += f"  {entry['median']:.{digits}f}"
        print(line + (f"  undefined for {entry['undefined']}" if entry["undefined"] else ""))
