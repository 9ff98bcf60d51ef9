"""Unusual MP4s, made from a plain one by changing its bytes. Pure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_IDENTITY: Final = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_QUARTER_TURN: Final = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)


def add_trailing_bytes(data: bytes) -> bytes:
    """A few bytes after the last box, as some encoders and proxies leave them."""
    return data + b"\x00\x00\x00\n\r\n"


def break_metadata_encoding(data: bytes) -> bytes:
    """Metadata that is not UTF-8."""
    return data.replace(b"generation_id=", b"g\xe9n\xe9ration_id=")


def turn(data: bytes) -> bytes:
    """A display matrix of 90 degrees: players turn the frames by it."""
    head, mark, rest = data.partition(b"tkhd")
    return head + mark + rest.replace(_IDENTITY, _QUARTER_TURN, 1)


def encrypt(data: bytes) -> bytes:
    """A video track whose sample entry says that it is encrypted: there is no decoder for it."""
    return data.replace(b"avc1", b"encv")


def remove_index(data: bytes) -> bytes:
    """No index: no player can show it."""
    return data.replace(b"moov", b"none", 1)


FILE_FAULTS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "cdn-trailing-bytes": add_trailing_bytes,
    "cdn-bad-metadata": break_metadata_encoding,
    "cdn-turned": turn,
    "cdn-encrypted": encrypt,
    "cdn-no-index": remove_index,
}
