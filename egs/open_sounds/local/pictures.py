"""Pictures of the recipe's classes, from the packages that stage 0 unpacked.

A picture of the split "test" in `pictures.tsv` is never trained on.
"""

from pathlib import Path

import packages
from containers import ContainerError, read_image


def draw(unpacked: Path, images: Path) -> dict[str, dict[str, list[str]]]:
    """Convert every picture that is there to PNG: {split: {class: paths}}."""
    found: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for k, row in enumerate(packages.read("pictures")):
        folder, path = unpacked / row["package"], images / f"{k:03d}.png"
        try:
            read_image(folder, row["path"]).save(path)
        except (ContainerError, OSError) as error:
            print(f"{row['package']}: {row['path'].split('/')[-1]}: {error}; left out")
            continue
        found[row["split"]].setdefault(row["class"], []).append(str(path))
    for split, of_split in found.items():
        count = sum(map(len, of_split.values()))
        print(f"pictures to {split} on: {count} of {len(of_split)} classes")
    return found
