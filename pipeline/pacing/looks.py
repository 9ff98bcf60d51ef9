"""How fast status calls may go: unlimited until the account refuses one, then by what it lets pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

SLOWER: Final = 1.5
FASTER: Final = 0.98


class LookPace:
    """One pace for all pollers: a refusal stretches the gap between calls, each success shrinks it.

    The caller asks `may_look`, and makes its call at once when the answer is 0.0: that call is counted.
    """

    def __init__(self, *, interval_s: float = 10.0, random: Random | None = None) -> None:
        self._interval_s = interval_s
        self._random = random
        self._gap_s = 0.0
        self._next_at = 0.0
        self._closed_until = 0.0
        self._strikes = 0
        self._struck_at = float("-inf")

    @property
    def gap_s(self) -> float:
        """The present gap between two calls; 0.0 while there is no limit known."""
        return self._gap_s

    def may_look(self, now: float) -> float:
        """Return 0.0 and count a call, or the seconds after which to ask again."""
        opens = max(self._next_at, self._closed_until)
        if opens > now:
            return opens - now
        self._next_at = max(self._next_at + self._gap_s, now) if self._gap_s else now
        return 0.0

    def ok(self, now: float) -> None:
        """A call was answered: go a little faster."""
        self._strikes = 0
        self._gap_s *= FASTER
        if self._gap_s < self._interval_s * 1e-5:
            self._gap_s = 0.0

    def throttled(self, now: float, retry_after_s: float | None = None) -> None:
        """A call was refused for its rate: wait, then go slower."""
        wait = retry_after_s if retry_after_s is not None else self._interval_s * 0.1
        self._gap_s = max(self._gap_s * SLOWER, self._interval_s * 1e-3)
        self._closed_until = max(self._closed_until, now + wait)
