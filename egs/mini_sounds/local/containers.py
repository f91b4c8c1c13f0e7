"""Readers of the container formats that the packages use: zip, OpenTTD .cat and Qt .rcc.

A source is named as in `sounds.tsv`:
    dir/file.wav             a plain file
    dir/0snd.pk3!/a/b.ogg    a member of a zip archive
    dir/name.rcc!/a/b.ogg    a member of a Qt resource bundle
    dir/opensfx.cat#12       entry 12 of an OpenTTD sound set
    dir/font.ttf#U+1F415     a colour glyph of a bitmap emoji font (pictures only)
"""

import functools
import io
import struct
import zipfile
import zlib
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

EMOJI_PX = 109  # the one bitmap size inside NotoColorEmoji.ttf
_RCC_COMPRESSED, _RCC_DIRECTORY, _RCC_ZSTD = 0x01, 0x02, 0x04


class ContainerError(Exception):
    """A container that is missing, damaged or lacks the member asked for."""


def read_bytes(root: Path, source: str) -> bytes:
    """Return the bytes of one sound or picture file.

    Args:
        root: folder into which the packages were unpacked.
        source: place inside it, in one of the forms above (not `#U+...`).

    Raises:
        ContainerError: with a line that names the file.
    """
    if "!" in source:
        name, member = source.split("!", 1)
        path = root / name
        _require(path)
        table = _rcc(path) if path.suffix == ".rcc" else _zip(path)
        if member.strip("/") not in table:
            raise ContainerError(f"{path}: has no member {member}")
        return table[member.strip("/")]()
    if ".cat#" in source:
        name, index = source.rsplit("#", 1)
        path = root / name
        _require(path)
        entries = _cat(path)
        if int(index) >= len(entries):
            raise ContainerError(f"{path}: has no entry {index}")
        return entries[int(index)]
    _require(root / source)
    return (root / source).read_bytes()


def read_image(root: Path, source: str, side_px: int = 224) -> Image.Image:
    """Return a picture on white, its longer side `side_px`, centred on a square."""
    if "#U+" in source:
        name, code = source.rsplit("#U+", 1)
        _require(root / name)
        image = _glyph(root / name, chr(int(code, 16)))
    else:
        image = Image.open(io.BytesIO(read_bytes(root, source))).convert("RGBA")
    box = image.getchannel("A").getbbox()
    if box is None:
        raise ContainerError(f"{root / source}: the picture is empty")
    image = image.crop(box)
    scale = 0.92 * side_px / max(image.size)
    size = [max(1, round(scale * s)) for s in image.size]
    image = image.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (side_px, side_px), "white")
    square.alpha_composite(image, tuple((side_px - s) // 2 for s in size))
    return square.convert("RGB")


def _require(path: Path) -> None:
    if not path.is_file():
        raise ContainerError(f"{path}: not there; run stage 0 again")


@functools.cache
def _zip(path: Path) -> dict:
    archive = zipfile.ZipFile(path)
    return {name: functools.partial(archive.read, name) for name in archive.namelist()}


@functools.cache
def _cat(path: Path) -> list[bytes]:
    """Entries of an OpenTTD sound set: (offset, size) pairs, then name and WAV of each."""
    data = path.read_bytes()
    count = (struct.unpack_from("<I", data)[0] & 0x7FFFFFFF) // 8
    entries = []
    for i in range(count):
        offset, size = struct.unpack_from("<II", data, 8 * i)
        offset &= 0x7FFFFFFF
        start = offset + 1 + data[offset]
        entries.append(data[start : start + size])
    return entries


@functools.cache
def _rcc(path: Path) -> dict:
    """Members of a Qt resource bundle (format versions 1 to 3)."""
    data = path.read_bytes()
    if data[:4] != b"qres":
        raise ContainerError(f"{path}: not a Qt resource bundle")
    version, tree, payload, names = struct.unpack_from(">IIII", data, 4)
    node_size = 14 if version == 1 else 22
    members = {}

    def name_of(node: int) -> str:
        at = names + struct.unpack_from(">I", data, node)[0]
        length = struct.unpack_from(">H", data, at)[0]
        return data[at + 6 : at + 6 + 2 * length].decode("utf-16-be")

    def visit(index: int, prefix: str) -> None:
        node = tree + index * node_size
        flags = struct.unpack_from(">H", data, node + 4)[0]
        here = f"{prefix}/{name_of(node)}".strip("/") if index else ""
        if flags & _RCC_DIRECTORY:
            count, first = struct.unpack_from(">II", data, node + 6)
            for child in range(first, first + count):
                visit(child, here)
        else:
            offset = struct.unpack_from(">I", data, node + 10)[0]
            members[here] = functools.partial(_rcc_member, path, data, payload + offset, flags)

    visit(0, "")
    return members


def _rcc_member(path: Path, data: bytes, at: int, flags: int) -> bytes:
    size = struct.unpack_from(">I", data, at)[0]
    body = data[at + 4 : at + 4 + size]
    if flags & _RCC_ZSTD:
        raise ContainerError(f"{path}: a member is packed with zstd, which is not supported")
    return zlib.decompress(body[4:]) if flags & _RCC_COMPRESSED else body


def _glyph(path: Path, text: str) -> Image.Image:
    font = ImageFont.truetype(str(path), EMOJI_PX)
    image = Image.new("RGBA", (136, 136))
    ImageDraw.Draw(image).text((0, 0), text, font=font, embedded_color=True)
    return image
