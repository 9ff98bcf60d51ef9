"""How fast status calls may go: unlimited until the account refuses one, then by what it lets pass.

It owns one gap between calls for all pollers. It knows no clock (`now` is handed in, in monotonic seconds)
and no HTTP.
"""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

SLOWER: Final = 1.25
FASTER: Final = 0.98
"""What a burst of refusals and one answered call do to the gap: at the limit, one call in 12 is refused."""

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 6.0
"""How long no call is made after a refusal that names no time, in poll intervals; doubled each time."""

MEMORY: Final = 0.05
"""Weight of the latest call in the mean gap between calls."""


class Pace(Protocol):
    """What pollers ask before a status call leaves, and tell afterwards; see `LookPace`."""

    def may_look(self, now: float) -> float: ...
    def ok(self, now: float) -> None: ...
    def throttled(self, now: float, retry_after_s: float | None = None) -> None: ...


class LookPace:
    """A refusal stretches the gap between calls, an answer shrinks it.

    Ask `may_look`, and call at once when the answer is 0.0: that call is counted.
    """

    def __init__(self, *, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._gap_s = 0.0
        self._seen_gap_s = 0.0
        self._last_at = -inf
        self._closed_until = -inf
        self._strikes = 0

    @property
    def gap_s(self) -> float:
        """The present gap between two calls; 0.0 while no limit is known."""
        return self._gap_s

    def may_look(self, now: float) -> float:
        """Return 0.0 and count a call, or the seconds after which to ask again."""
        opens = max(self._closed_until, self._last_at + self._gap_s)
        if opens > now:
            return opens - now
        self.left(now)
        return 0.0

    def left(self, now: float, calls: int = 1) -> None:
        """Count calls that others have made since the last one counted, at an even pace."""
        if self._last_at > -inf and calls:
            gap_s = min((now - self._last_at) / calls, self._interval_s)
            self._seen_gap_s += (1 - (1 - MEMORY) ** calls) * (gap_s - self._seen_gap_s)
        self._last_at = now if calls else self._last_at

    def closed_s(self, now: float) -> float:
        """Return for how many seconds from now no call is made at all."""
        return max(0.0, self._closed_until - now)

    def ok(self, now: float) -> None:
        """A call was answered: go a little faster."""
        if now >= self._closed_until:
            self._strikes = 0
        if self._gap_s:
            self._gap_s *= FASTER
            if self._gap_s < 1e-5 * self._interval_s:
                self._gap_s = 0.0

    def throttled(self, now: float, retry_after_s: float | None = None) -> None:
        """A call was refused for its rate: close for a while, then go slower.

        Calls that left before the last refusal was known do not slow the pace again.
        """
        if now >= self._closed_until:
            self._gap_s = max(self._gap_s, self._seen_gap_s, 1e-4 * self._interval_s) * SLOWER
            self._gap_s = min(self._gap_s, self._interval_s)
            wait = min(FIRST_WAIT * 2.0**self._strikes, LONGEST_WAIT) * self._interval_s
            self._strikes = min(self._strikes + 1, 16)
            self._closed_until = now + (wait if retry_after_s is None else 0.0)
        self._closed_until = max(self._closed_until, now + (retry_after_s or 0.0))
