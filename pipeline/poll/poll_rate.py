"""How fast status calls may go: unlimited until the account refuses one, then by what it lets pass.

It owns one gap between calls for all pollers. It knows no clock (`now` is handed in, in monotonic seconds)
and no HTTP.
"""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

from pipeline.net.retry_after import parse_retry_after

GAP_GROWTH: Final = 1.25
GAP_DECAY: Final = 0.98
"""What a burst of refusals and one answered call do to the gap: at the limit, one call in 12 is refused."""

FIRST_WAIT_INTERVALS: Final = 0.1
MAX_WAIT_INTERVALS: Final = 6.0
"""How long no call is made after a refusal that names no time, in poll intervals; doubled each time."""

MEAN_GAP_WEIGHT: Final = 0.05
"""Weight of the latest call in the mean gap between calls."""

MAX_PAUSE_INTERVALS: Final = 60.0
"""The longest that a `Retry-After` keeps polls back: ten minutes at 10 s. A poll costs nothing, and an answer
that asks for hours should not cost a night."""


def retry_pause_s(retry_after: str | None, now_utc: float, interval_s: float) -> float | None:
    """Return for how long a `Retry-After` keeps polls back; None where none can be read."""
    asked_s = parse_retry_after(retry_after, now_utc=now_utc)
    return None if asked_s is None else min(asked_s, MAX_PAUSE_INTERVALS * interval_s)


class RateLimit(Protocol):
    """What pollers ask before a status call leaves, and tell afterwards; see `AdaptiveRateLimit`."""

    def acquire_delay_s(self, now: float) -> float: ...
    def on_success(self, now: float) -> None: ...
    def on_rate_limited(self, now: float, retry_after_s: float | None = None) -> None: ...


class AdaptiveRateLimit:
    """A refusal stretches the gap between calls, an answer shrinks it.

    Ask `acquire_delay_s`, and call at once when the answer is 0.0: that call is counted.
    """

    def __init__(self, *, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._gap_s = 0.0
        self._mean_gap_s = 0.0
        self._last_at = -inf
        self._paused_until = -inf
        self._backoff_level = 0

    @property
    def gap_s(self) -> float:
        """The present gap between two calls; 0.0 while no limit is known."""
        return self._gap_s

    def acquire_delay_s(self, now: float) -> float:
        """Return 0.0 and count a call, or the seconds after which to ask again."""
        allowed_at = max(self._paused_until, self._last_at + self._gap_s)
        if allowed_at > now:
            return allowed_at - now
        self.record_calls(now)
        return 0.0

    def record_calls(self, now: float, calls: int = 1) -> None:
        """Count calls that others have made since the last one counted, at an even pace."""
        if self._last_at > -inf and calls:
            gap_s = min((now - self._last_at) / calls, self._interval_s)
            self._mean_gap_s += (1 - (1 - MEAN_GAP_WEIGHT) ** calls) * (gap_s - self._mean_gap_s)
        self._last_at = now if calls else self._last_at

    def pause_s(self, now: float) -> float:
        """Return for how many seconds from now no call is made at all."""
        return max(0.0, self._paused_until - now)

    def on_success(self, now: float) -> None:
        """A call was answered: go a little faster."""
        if now >= self._paused_until:
            self._backoff_level = 0
        if self._gap_s:
            self._gap_s *= GAP_DECAY
            if self._gap_s < 1e-5 * self._interval_s:
                self._gap_s = 0.0

    def on_rate_limited(self, now: float, retry_after_s: float | None = None) -> None:
        """A call was refused for its rate: close for a while, then go slower.

        Calls that left before the last refusal was known do not slow the pace again.
        """
        if now >= self._paused_until:
            self._gap_s = max(self._gap_s, self._mean_gap_s, 1e-4 * self._interval_s) * GAP_GROWTH
            self._gap_s = min(self._gap_s, self._interval_s)
            wait = min(FIRST_WAIT_INTERVALS * 2.0**self._backoff_level, MAX_WAIT_INTERVALS) * self._interval_s
            self._backoff_level = min(self._backoff_level + 1, 16)
            self._paused_until = now + (wait if retry_after_s is None else 0.0)
        self._paused_until = max(self._paused_until, now + (retry_after_s or 0.0))
