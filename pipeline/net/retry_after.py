"""The `Retry-After` header, read as RFC 9110 section 10.2.3 writes it. Knows no clock."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None, *, now_utc: float) -> float | None:
    """Return how many seconds to wait from `now_utc` (seconds since the epoch), or None.

    Seconds (a fraction is tolerated) or an HTTP date; a date gone by is 0.0; anything else is None.
    """
    text = (value or "").strip()
    if not text or len(text) > 64:
        return None
    if text.replace(".", "", 1).isdigit() and text.isascii():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
        return max(0.0, date.timestamp() - now_utc)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
