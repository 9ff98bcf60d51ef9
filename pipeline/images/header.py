"""The type and size of an image from its first bytes. Pure; reads headers, decodes nothing.

Layouts: PNG (RFC 2083), JPEG (ITU T.81 annex B), GIF89a, WebP (RFC 9649), BMP, ISO base media for AVIF
and HEIC (`ispe` in ISO/IEC 23008-12).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_FRAME_MARKERS: Final = frozenset(
    {*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
)
_STANDALONE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers that no length follows."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image's type (`jpeg`, `png`, `webp`, `gif`, `bmp`, `avif`, `heic`) and size in pixels.

    `upright`: its pixels lie as it is shown; False when only EXIF turns it.
    """

    kind: str
    width: int
    height: int
    upright: bool = True


class NotAnImageError(ValueError):
    """These bytes begin no image that is known here."""


def read_image_info(data: bytes) -> ImageInfo | None:
    """Return what `data`, the beginning of a file, says, None when more of it is needed.

    Raises `NotAnImageError` as soon as it can be none.
    """
    if len(data) < 12:
        return None
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _fixed_layout("png", data, 16, ">II", 24)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _fixed_layout("gif", data, 6, "<HH", 10)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"BM"):
        return _fixed_layout("bmp", data, 18, "<ii", 26)
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    raise NotAnImageError(_describe_content(data))


def _fixed_layout(kind: str, data: bytes, offset: int, layout: str, needed: int) -> ImageInfo | None:
    if len(data) < needed:
        return None
    width, height = struct.unpack_from(layout, data, offset)
    return ImageInfo(kind, abs(width), abs(height))


def _jpeg(data: bytes) -> ImageInfo | None:
    """Walk the segments up to the frame header; EXIF and colour profiles may put it far behind."""
    offset = 2
    while offset + 4 <= len(data):
        if data[offset] != 0xFF:
            raise NotAnImageError("a damaged JPEG")
        marker = data[offset + 1]
        if marker == 0xFF:
            offset += 1
        elif marker in _STANDALONE_MARKERS:
            offset += 2
        elif marker in _FRAME_MARKERS:
            if offset + 9 > len(data):
                return None
            height, width = struct.unpack_from(">HH", data, offset + 5)
            return ImageInfo("jpeg", width, height)
        elif marker == 0xDA:
            raise NotAnImageError("a JPEG without a frame")
        else:
            offset += 2 + max(2, struct.unpack_from(">H", data, offset + 2)[0])
    return None


def _webp(data: bytes) -> ImageInfo | None:
    if len(data) < 30:
        return None
    chunk = data[12:16]
    if chunk == b"VP8X":
        return ImageInfo(
            "webp", 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        )
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return ImageInfo("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageInfo("webp", width & 0x3FFF, height & 0x3FFF)
    raise NotAnImageError("a damaged WebP")


def _iso_media(data: bytes) -> ImageInfo | None:
    brand = data[8:12]
    kind = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic"}.get(brand)
    if kind is None:
        raise NotAnImageError(
            "a video" if brand in {b"isom", b"mp42", b"iso5", b"qt  "} else "another format"
        )
    sizes = []
    offset = data.find(b"ispe")
    while offset >= 0 and offset + 16 <= len(data):
        sizes.append(struct.unpack_from(">II", data, offset + 8))
        offset = data.find(b"ispe", offset + 4)
    if not sizes or data.find(b"mdat") < 0:
        return None
    width, height = max(sizes)
    return ImageInfo(kind, width, height)


def _describe_content(data: bytes) -> str:
    start = data.lstrip()[:64].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page"
    if start.startswith((b"<?xml", b"<svg")):
        return "an SVG or XML file"
    if start.startswith((b"{", b"[")):
        return "JSON"
    if start.startswith(b"%pdf"):
        return "a PDF"
    return "no image that is known here"
