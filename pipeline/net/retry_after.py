"""The `Retry-After` header, read as RFC 9110 section 10.2.3 writes it. Knows no clock."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RETRY_AFTER_S: Final = 24 * 3600.0
"""Longer waits are cut to this: a day is the longest after which a quota begins anew."""


def retry_after_s(headers: Mapping[str, str], *, server_now: float | None = None) -> float | None:
    """Return how many seconds an answer asks to wait, from its headers; None where it names no time.

    A date counts from the answer's own `Date`, since this machine's clock may be hours off; without one from
    `server_now` (the server's time in epoch seconds, where it is known). A date gone by is 0.0.
    """
    text = headers.get("Retry-After", "").strip()
    if not text or len(text) > 64:
        return None
    if text.replace(".", "", 1).isdigit() and text.isascii():
        return min(float(text), MAX_RETRY_AFTER_S)
    until = parse_http_date(text)
    now = parse_http_date(headers.get("Date", ""))
    now = server_now if now is None else now
    if until is None or now is None:
        return None
    return min(max(0.0, until - now), MAX_RETRY_AFTER_S)


def parse_http_date(text: str) -> float | None:
    """Return an HTTP date as epoch seconds; None for what is none. A date without a zone is UTC."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        return date.timestamp() if date.tzinfo else date.replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def parse_retry_after(value: str | None, *, now_utc: float) -> float | None:
    """Return what `retry_after_s` does for a single header's `value` at `now_utc` (epoch seconds)."""
    return retry_after_s({"Retry-After": value or ""}, server_now=now_utc)


def retry_after_header(headers: Mapping[str, str]) -> str | None:
    """Return the header as it is, a date as seconds from the answer's own `Date`; None without one."""
    value = headers.get("Retry-After")
    seconds = retry_after_s(headers)
    if value is None or seconds is None or value.strip().isdecimal():
        return value
    return f"{seconds:.0f}"
