"""Whether a recording is there to its end: what a download that stopped half way leaves behind."""

from pathlib import Path
from typing import BinaryIO

UNKNOWN_BYTES = 0xFFFF_FFFF  # the size that a WAV file has in its header when it was streamed
SLACK_BYTES = 4096  # that an MP3 may lack of what its header says, as encoders count differently
PAGE_BYTES = 65_307  # of Ogg, at most


def cut_off(path: Path) -> bool:
    """Whether a WAV, MP4, Ogg or MP3 file ends before it should by its own headers.

    Others, and those whose headers do not say, count as whole. An Ogg stream that its writer never
    ended counts as cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF":
            announced = int.from_bytes(start[4:8], "little")
            return announced != UNKNOWN_BYTES and size < 8 + announced
        if start[:4] == b"OggS":
            file.seek(max(0, size - PAGE_BYTES - 1))
            return not _ends_a_stream(file.read())
        if start[4:8] == b"ftyp":
            return _boxes(file, size) > size
        if start[:3] == b"ID3" or (start[:1] == b"\xff" and start[1:2] >= b"\xe0"):
            return _mp3_bytes(file) > size + SLACK_BYTES
    return False


def _ends_a_stream(tail: bytes) -> bool:
    """Whether the last page of an Ogg file is complete and says that it is the last."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27:
        return False
    length = 27 + page[26] + sum(page[27 : 27 + page[26]])  # header, table, what the table lists
    return len(page) >= length and bool(page[5] & 4)


def _boxes(file: BinaryIO, size: int) -> int:
    """Where the boxes of an MP4 file end; what is of no known length ends within it."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: to the end of the file; others are ffmpeg's to judge
            return 0
        place += length
    return place


def _mp3_bytes(file: BinaryIO) -> int:
    """Where an MP3 file ends by the Xing or Info header in its first frame, 0 for none."""
    file.seek(0)
    head, begin = file.read(10), 0
    if head[:3] == b"ID3":
        for byte in head[6:]:  # a tag's length, 7 bits each
            begin = begin << 7 | byte & 0x7F
        begin += 10
    file.seek(begin)
    frame = file.read(256)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or len(frame) < place + 16 or not frame[place + 7] & 2:
        return 0
    place += 12 if frame[place + 7] & 1 else 8  # behind the number of frames
    return begin + int.from_bytes(frame[place : place + 4], "big")
