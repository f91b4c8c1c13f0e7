"""Values of options, checked while the command line is read."""

import argparse
import math

KINDS = ("text", "audio", "image", "negative")
MOST = 9  # candidates, `sep.candidates.VARIANTS`


def weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        kind, _, value = part.partition("=")
        try:
            weights[kind.strip()] = float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{part}' is not KIND=NUMBER") from None
        if kind.strip() not in KINDS or not 0 <= weights[kind.strip()] < math.inf:
            raise argparse.ArgumentTypeError(
                f"'{part}': kinds are {', '.join(KINDS)}, numbers 0 or more"
            )
    return weights


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def few(text: str) -> int:
    number = positive(text)
    if number > MOST:
        raise argparse.ArgumentTypeError(f"{text} is more than {MOST}")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more seconds")
    return number


def factor(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number
