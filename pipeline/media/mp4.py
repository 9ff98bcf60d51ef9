"""The structure of an MP4: its boxes, and the NAL units inside its packets, read without a decoder.

Sources: ISO/IEC 14496-12 (boxes), 14496-15 (length-prefixed NAL units of H.264 and H.265).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from pipeline.media.containers import MP4_BOXES

if TYPE_CHECKING:
    from collections.abc import Iterator

_ESSENTIAL_BOXES: Final = frozenset({b"moov", b"mdat", b"moof"})
_CONTAINER_BOXES: Final = (b"moov", b"trak", b"mdia")
MAX_INDEX_BYTES: Final = 16 * 1024 * 1024


class UnplayableVideo(Exception):
    """The bytes are not a whole, playable video; the message says what is wrong with them."""


class IncompleteVideo(UnplayableVideo):
    """A video whose end is missing: players may show what there is of it."""


class Structure(NamedTuple):
    """What is odd about a file that plays. `defects` describes what another fetch might mend."""

    warnings: tuple[str, ...] = ()
    defects: str = ""


def check_structure(file: BinaryIO, size_bytes: int) -> Structure:
    """Walk the top-level boxes of an MP4 or QuickTime file (ISO/IEC 14496-12, 4.2).

    Needs no decoder and reads a few bytes a box. What follows the last box is a warning, since players
    ignore it; a box of padding that is cut off is a defect. Raises
    `UnplayableVideo` when the index or the data is missing, `IncompleteVideo` when one is cut off.
    """
    seen: set[bytes] = set()
    for kind, start, size in _iter_boxes(file, 0, size_bytes):
        complete = b"moov" in seen and bool(seen & {b"mdat", b"moof"})
        cut_bytes = start + size - size_bytes
        if cut_bytes > 0 and (kind in _ESSENTIAL_BOXES or not complete):
            raise IncompleteVideo(f"the file is cut off: {cut_bytes} bytes are missing at its end")
        if size < 8 and not complete:
            raise UnplayableVideo(f"the file is damaged at byte {start}")
        if cut_bytes > 0 and kind in MP4_BOXES:
            return Structure(defects=f"{cut_bytes} bytes are missing at its end")
        if size < 8 or cut_bytes > 0 or (complete and not kind.isalnum()):
            return Structure((f"{size_bytes - start} bytes follow the end of the video",))
        seen.add(kind)
    if b"moov" not in seen or not seen & {b"mdat", b"moof"}:
        raise UnplayableVideo("the file holds no video: its index or its data is missing")
    return Structure()


def displayed_size(file: BinaryIO, size_bytes: int) -> tuple[int, int]:
    """Return width and height of the largest track as its header states them (8.3.2), (0, 0) if none does.

    For streams that no decoder here understands.
    """
    sizes = [(0, 0)]
    for kind, start, size in _iter_track_boxes(file, 0, size_bytes):
        if kind == b"tkhd" and size < 256:
            file.seek(start)
            header = file.read(size)
            width, height = header[-8:-4], header[-4:]
            sizes.append((int.from_bytes(width[:2], "big"), int.from_bytes(height[:2], "big")))
    return max(sizes)


def is_encrypted(file: BinaryIO, size_bytes: int) -> bool:
    """Return whether a track's sample description names a protected format (8.12.1)."""
    for kind, start, size in _iter_track_boxes(file, 0, size_bytes):
        if kind == b"minf" and size <= MAX_INDEX_BYTES:
            file.seek(start)
            content = file.read(size)
            if b"sinf" in content and (b"encv" in content or b"enca" in content):
                return True
    return False


def _iter_track_boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for kind, at, size in _iter_boxes(file, start, end):
        yield kind, at, size
        if kind in _CONTAINER_BOXES:
            yield from _iter_track_boxes(file, at + 8, min(at + size, end))


def _iter_boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, offset, size) of the boxes from `start` on; a size under 8 or past the end is the last."""
    first = start
    while start < end:
        file.seek(start)
        header = bytes(file.read(16))
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if start == first == 0 and kind not in MP4_BOXES:
            raise UnplayableVideo(f"this is no MP4: it begins with {header[:12]!r}")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        elif size == 0:
            size = end - start
        yield kind, start, size
        if size < 8:
            return
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
    """Return whether a packet is a run of NAL units that ends where the packet ends.

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
