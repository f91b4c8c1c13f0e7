"""Which recordings go to train, valid and test.

A class found in several packages is split by package, so that no package is on two sides of it;
a class of one package is split by recording. A recording's clips always stay together.
"""

from dataclasses import dataclass, field

SPLITS = ("train", "valid", "test")
_CREDIT_S = 60.0  # a longer recording counts no more than this


@dataclass
class Clip:
    """A prepared clip. `split` is set at once for rendered clips, else by `assign`."""

    id: str
    path: str
    label: str
    caption: str
    package: str
    recording: str
    duration_s: float
    group: str = "env"
    split: str | None = field(default=None)


def assign(clips: list[Clip], test_packages: dict[str, str]) -> None:
    """Set `split` of every clip that has none.

    Args:
        clips: of all classes.
        test_packages: {class: the package to test on}, where one is better suited.
    """
    for label in sorted({c.label for c in clips}):
        of_class = [c for c in clips if c.label == label]
        rendered = {c.split for c in of_class if c.split}
        free = [c for c in of_class if not c.split]
        by_package = len({c.package for c in free}) > 1
        units: dict[str, list[Clip]] = {}
        for clip in free:
            units.setdefault(clip.package if by_package else clip.recording, []).append(clip)
        order = sorted(units, key=lambda u: (-_seconds(units[u]), u))
        if test_packages.get(label) in order:
            order.remove(test_packages[label])
            order.insert(min(1, len(order)), test_packages[label])
        for unit, split in zip(order, _splits(len(order), rendered), strict=True):
            for clip in units[unit]:
                clip.split = split


def _splits(count: int, rendered: set[str]) -> list[str]:
    """Splits of units in order of size: the largest trains, the next tests, the third validates.

    With rendered clips that already train, the largest real unit tests and the rest train.
    """
    if "train" in rendered:
        return (["test"] + ["train"] * count)[:count]
    return (["train", "test", "valid"] + ["train"] * count)[:count]


def _seconds(clips: list[Clip]) -> float:
    recordings: dict[str, float] = {}
    for clip in clips:
        recordings[clip.recording] = recordings.get(clip.recording, 0.0) + clip.duration_s
    return sum(min(s, _CREDIT_S) for s in recordings.values())
