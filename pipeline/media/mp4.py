"""The outside of an MP4: its boxes and the units inside its packets, read without a decoder.

Sources: ISO/IEC 14496-12 (boxes), 14496-15 (length-prefixed NAL units of H.264 and H.265).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.media.containers import MP4_BOXES

if TYPE_CHECKING:
    from collections.abc import Iterator


class UnplayableVideo(Exception):
    """The bytes are not a whole, playable video; the message says what is wrong with them."""


def check_structure(source: Path | BinaryIO, size_bytes: int) -> None:
    """Walk the top-level boxes of an MP4 and see that they add up to the file (ISO/IEC 14496-12, 4.2).

    Needs no decoder and reads a few bytes a box. Raises `NotPlayable` for anything but an MP4 or
    QuickTime file whose index and data are there to the last byte.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return check_structure(file, size_bytes)
    seen = set()
    for kind, start, size in _iter_boxes(source, size_bytes):
        if start + size > size_bytes:
            raise UnplayableVideo(
                f"the file is cut off: {start + size - size_bytes} bytes are missing at its end"
            )
        seen.add(kind)
    missing = {b"moov", b"mdat", b"moof"} - seen
    if b"moov" in missing or {b"mdat", b"moof"} <= missing:
        raise UnplayableVideo("the file holds no video: its index or its data is missing")
    return None


def _iter_boxes(file: BinaryIO, size_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    start = 0
    while start < size_bytes:
        file.seek(start)
        header = bytes(file.read(16))
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if start == 0 and kind not in MP4_BOXES:
            raise UnplayableVideo(f"this is no MP4: it begins with {header[:12]!r}")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        elif size == 0:
            size = size_bytes - start
        if size < 8:
            raise UnplayableVideo(f"the file is damaged at byte {start}")
        yield kind, start, size
        start += size


def nal_length_bytes(codec: str, extradata: bytes | None) -> int:
    """How many bytes hold a NAL unit's length in this stream's packets; 0 when they have no such prefix."""
    if not extradata or extradata[0] != 1:
        return 0
    if codec == "h264" and len(extradata) > 4:
        return (extradata[4] & 3) + 1
    if codec == "hevc" and len(extradata) > 21:
        return (extradata[21] & 3) + 1
    return 0


def nal_units_fit(packet: memoryview, prefix: int) -> bool:
    """Whether a packet is a run of NAL units that ends where the packet ends.

    A few bytes a frame are read, yet a block of zeros, of another file or of noise breaks the chain.
    """
    start, end = 0, len(packet)
    while start + prefix < end:
        size = int.from_bytes(packet[start : start + prefix], "big")
        start += prefix
        if not size or packet[start] & 0x80:  # the first bit of a unit is always 0
            return False
        start += size
    return start == end
