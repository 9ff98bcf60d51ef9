"""The vendor's time, from the `Date` headers of its answers and the monotonic clock. Pure.

This machine's wall clock may be wrong by hours and may be set at any moment; what the proof of absence
measures between two processes must not depend on it.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low
from typing import Final

from pipeline.net.retry_after import parse_http_date

JUMP_S: Final = 5.0
"""How far this machine's two clocks may come apart between two answers."""

SAMPLES: Final = 15
"""Answers that the estimate rests on: their median, so that one wrong `Date` does not move it."""


class VendorClock:
    """Estimates the vendor's time. It is never ahead of it, and behind by a second and an answer's way."""

    def __init__(self) -> None:
        self._offsets: deque[float] = deque(maxlen=SAMPLES)
        self._wall_ahead = 0.0

    def observe(self, date: str | None, clock: float, wall: float) -> None:
        """Record an answer's `Date` header, received at `clock` (monotonic) and `wall` (epoch)."""
        moment = parse_http_date(date or "")
        if moment is not None:
            if self._has_jumped(clock, wall):
                self._offsets.clear()
            self._offsets.append(moment - clock)
            self._wall_ahead = wall - clock

    def now(self, clock: float, wall: float) -> float | None:
        """Return the vendor's time, epoch seconds; None where no answer since this machine slept tells it."""
        if not self._offsets or self._has_jumped(clock, wall):
            return None
        return clock + median_low(self._offsets)

    def _has_jumped(self, clock: float, wall: float) -> bool:
        """Return whether one clock has gone on without the other: the monotonic one stands still in a sleep.

        A clock that was set looks the same, and then the vendor is asked once more for nothing.
        """
        return bool(self._offsets) and abs(wall - clock - self._wall_ahead) > JUMP_S
