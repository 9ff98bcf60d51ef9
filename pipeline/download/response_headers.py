"""What a CDN's response says about the bytes that follow. Pure: headers in, facts out.

Sources: RFC 9110 (ranges 14, conditional requests 13, validators 8.8).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTENT_RANGE: Final = re.compile(
    r"\s*bytes\s+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\s*", re.IGNORECASE
)
_LENGTH: Final = re.compile(r"\s*([0-9]{1,18})\s*")
_UNSATISFIED_RANGE: Final = re.compile(r"\s*bytes\s+\*/([0-9]{1,18})\s*", re.IGNORECASE)
_PAGE_CONTENT_TYPES: Final = frozenset(
    {"text/html", "application/xhtml+xml", "application/json", "application/xml", "text/xml"}
)


@dataclass(frozen=True, slots=True)
class Validators:
    """Which file a run of bytes belongs to: what must agree before two runs are put together.

    `place` is the URL without query and user. `total_bytes` is None when the server did not say.
    `resumable` is False for bytes that were decoded on the way (their offsets mean nothing to a Range).
    `generation` is whose clip the bytes are; a response does not say it. `plays` is what an examination has
    found of a whole file that is damaged, None before one.
    """

    place: str
    etag: str = ""
    last_modified: str = ""
    total_bytes: int | None = None
    resumable: bool = True
    generation: str = ""
    plays: bool | None = None

    def with_verdict(self, size_bytes: int, *, plays: bool) -> Validators:
        """Return the validators of the whole file, now that it was examined."""
        return replace(self, total_bytes=size_bytes, plays=plays)

    def to_text(self) -> str:
        """One line of JSON, to be kept beside the bytes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Validators | None:
        """Read `to_text` again; None for anything else, so that a torn note only costs a fresh start."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    @property
    def if_range(self) -> str:
        """The validator to send with a Range, or "" when none is strong enough (RFC 9110, 13.1.5)."""
        if self.etag:
            return "" if self.etag.startswith("W/") else self.etag
        return self.last_modified

    def matches(self, other: Validators) -> bool:
        """Whether both may be one file: no validator differs; without a strong one, the place must agree."""
        for mine, theirs in (
            (self.etag, other.etag),
            (self.last_modified, other.last_modified),
            (self.total_bytes, other.total_bytes),
        ):
            if mine and theirs and mine != theirs:
                return False
        strong = bool(self.if_range) and self.if_range == other.if_range
        return self.resumable and other.resumable and (strong or self.place == other.place)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The first byte that is being sent, the length of the part, and of the whole if known."""

    start: int
    length: int | None
    total: int | None


def parse_byte_range(status: int, headers: Mapping[str, str]) -> ByteRange | None:
    """Read what a 200 or 206 carries; None when a 206 does not say so properly, or sends more."""
    length = _parse_length(headers.get("Content-Length"))
    if status != 206:
        return ByteRange(0, length, length)
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if match is None:
        return None
    start, end = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if end < start or (total is not None and end >= total):
        return None
    if length is not None and length > end - start + 1:
        return None
    return ByteRange(start, end - start + 1, total)


def unsatisfied_total(headers: Mapping[str, str]) -> int | None:
    """The whole length as a 416 tells it, if it does."""
    match = _UNSATISFIED_RANGE.fullmatch(headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def is_compressed(headers: Mapping[str, str]) -> bool:
    """Return whether the body is compressed although it was asked for as it is."""
    return headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def declares_page(headers: Mapping[str, str]) -> bool:
    """Return whether the server itself calls the body a page or an error document rather than a video."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in _PAGE_CONTENT_TYPES


def _parse_length(text: str | None) -> int | None:
    match = _LENGTH.fullmatch(text or "")
    return int(match[1]) if match else None
