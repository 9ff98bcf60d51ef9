"""When the next create may start: the account's limit, found by its refusals and one probe at a time."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Final

WINDOW: Final = 4
"""Creates on their way at once before anything was answered; each acceptance adds one."""


class CreateGate:
    """One gate for all submitters. Ask `may_start`; on 0.0 call `started`, then exactly one of `accepted`,
    `throttled` or `ended`. `in_flight` is always the number of generations accepted and not finished.
    """

    def __init__(self, ceiling: int, *, interval_s: float = 10.0, random: Random | None = None) -> None:
        self._ceiling = ceiling
        self._limit = ceiling
        self._base_s = interval_s / 10
        self._cap_s = interval_s * 6
        self._random = random or Random()
        self._window = min(WINDOW, ceiling)
        self._outstanding = 0
        self._echoes = 0
        self._strikes = 0
        self._closed_until = 0.0
        self._probe_at = 0.0

    @property
    def limit(self) -> int:
        """How many generations in flight the account is believed to allow; at most the ceiling."""
        return self._limit

    @property
    def outstanding(self) -> int:
        """How many creates are on their way."""
        return self._outstanding

    def may_start(self, now: float, in_flight: int) -> float:
        """Return 0.0 to go, seconds after which to ask again, or inf: ask when something ends."""
        total = in_flight + self._outstanding
        if total >= self._ceiling or self._outstanding >= self._window:
            return inf
        if now < self._closed_until:
            return self._closed_until - now
        if total < self._limit:
            return 0.0
        if self._outstanding:
            return inf
        return max(0.0, self._probe_at - now)

    def started(self, now: float) -> None:
        """A create leaves."""
        self._outstanding += 1

    def accepted(self, now: float, in_flight: int) -> None:
        """A create was accepted; `in_flight` counts it."""
        self._resolve()
        self._window = min(self._ceiling, self._window + 1)
        if in_flight > self._limit:
            self._limit = min(in_flight, self._ceiling)
            self._strikes = 0
            self._probe_at = now

    def throttled(self, now: float, in_flight: int, retry_after_s: float | None = None) -> None:
        """A create was refused with 429; `in_flight` does not count it."""
        echo = self._resolve()
        if retry_after_s is not None:
            self._closed_until = max(self._closed_until, now + retry_after_s)
        if echo:
            return
        self._echoes = self._outstanding
        self._limit = max(1, min(self._limit, in_flight))
        wait = min(self._cap_s, self._base_s * 2.0**self._strikes) * (0.75 + 0.5 * self._random.random())
        self._strikes = min(self._strikes + 1, 30)
        self._probe_at = now + wait
        if in_flight == 0:
            self._closed_until = max(self._closed_until, now + wait)

    def ended(self, now: float) -> None:
        """A create ended in any other way: refused, in doubt, never left."""
        self._resolve()

    def _resolve(self) -> bool:
        """Count one create less on its way; return whether it left before the last refusal came."""
        self._outstanding -= 1
        if self._echoes:
            self._echoes -= 1
            return True
        return False
