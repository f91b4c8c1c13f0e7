"""Values of options, checked while the command line is read."""

import argparse
import math
from typing import Any

KINDS = ("text", "audio", "image", "negative")
LARGEST = 1000.0  # weight or sharpness
MOST = 9  # candidates, `sep.candidates.VARIANTS`


def weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        kind, _, value = part.partition("=")
        try:
            weights[kind.strip()] = float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{part}' is not KIND=NUMBER") from None
        if kind.strip() not in KINDS or not 0 <= weights[kind.strip()] <= LARGEST:
            raise argparse.ArgumentTypeError(
                f"'{part}': kinds are {', '.join(KINDS)}, numbers from 0 to {LARGEST:g}"
            )
    return weights


def _number(text: str, kind: type, what: str) -> Any:
    """The number that a text is, of `int` or `float`."""
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}") from None


def positive(text: str) -> int:
    number = _number(text, int, "a whole number")
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def few(text: str) -> int:
    number = positive(text)
    if number > MOST:
        raise argparse.ArgumentTypeError(f"{text} is more than {MOST}")
    return number


def seconds(text: str) -> float:
    number = _number(text, float, "a number of seconds")
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more seconds")
    return number


def factor(text: str) -> float:
    number = _number(text, float, "a number")
    if not 1 / LARGEST <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is not from {1 / LARGEST:g} to {LARGEST:g}")
    return number
