"""Which container a file's first bytes belong to, and whether they are a page. Pure: bytes in, names out.

Sources: ISO/IEC 14496-12 (MP4, MOV), RFC 8794 (Matroska, WebM), RFC 3533 (Ogg), Microsoft's AVI and ASF
specifications, ISO/IEC 13818-1 (MPEG).
"""

from __future__ import annotations

import re
from typing import Final

MP4_BOXES: Final = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot", b"moof", b"sidx", b"uuid"}
)
"""Boxes that may stand first in an MP4 or QuickTime file."""

_SIGNATURES: Final = (
    (b"FLV\x01", "flv"),
    (b"OggS", "ogv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wmv"),
    (b"\x00\x00\x01\xba", "mpg"),
    (b"\x00\x00\x01\xb3", "mpg"),
)
_TS_PACKET_BYTES: Final = 188
HEAD_BYTES: Final = _TS_PACKET_BYTES + 1
"""How much of a file these functions want to see."""
_PAGE: Final = re.compile(rb"(\xef\xbb\xbf)?\s*(<[a-z!?/]|[{\[]\s*[\"{\[\]}])", re.IGNORECASE)


def container_extension(head: bytes) -> str:
    """Return the file extension of the container that `head` (`HEAD_BYTES`) begins, or ""."""
    if head[4:8] in MP4_BOXES:
        return "mov" if head[4:12] == b"ftypqt  " else "mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in head[:64] else "mkv"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if head[:1] == head[_TS_PACKET_BYTES : _TS_PACKET_BYTES + 1] == b"G":
        return "ts"
    return next((extension for magic, extension in _SIGNATURES if head.startswith(magic)), "")


def starts_like_video(head: bytes) -> bool:
    """Return whether a file that begins with `head` may be a video, whatever its Content-Type says."""
    return bool(container_extension(head))


def looks_like_page(head: bytes) -> bool:
    """Return whether the bytes are HTML, XML or JSON: an error document, never a video."""
    return bool(_PAGE.match(head))
