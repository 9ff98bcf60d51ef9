"""The vendor's time, from the `Date` headers of its answers and the monotonic clock. Pure.

This machine's wall clock may be wrong by hours and may be set at any moment; what the proof of absence
measures between two processes must not depend on it.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low
from typing import Final

from pipeline.net.retry_after import parse_http_date

SAMPLES: Final = 15
"""Answers that the estimate rests on: their median, so that one wrong `Date` does not move it."""


class VendorClock:
    """Estimates the vendor's time. It is never ahead of it, and behind by a second and an answer's way."""

    def __init__(self) -> None:
        self._offsets: deque[float] = deque(maxlen=SAMPLES)

    def observe(self, date: str | None, clock: float) -> None:
        """Take note of an answer's `Date` header, received at `clock` (monotonic seconds)."""
        moment = parse_http_date(date or "")
        if moment is not None:
            self._offsets.append(moment - clock)

    def now(self, clock: float) -> float | None:
        """Return the vendor's time, epoch seconds; None before the first answer."""
        return clock + median_low(self._offsets) if self._offsets else None
