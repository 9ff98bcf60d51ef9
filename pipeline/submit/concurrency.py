"""When the next create may start: what the account allows, found from its refusals by one probe at a time.

It owns two beliefs: how many generations may be in flight, and how far apart creates must be. A 429 does not
say which of the two it means. It knows no clock (`now` is handed in, in monotonic seconds) and no HTTP.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Final, Protocol

WINDOW: Final = 4
"""Creates on their way at once before anything was answered; two acceptances add one (slow start)."""

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 6.0
"""Waits between refused probes, in poll intervals: the first, doubled up to the longest."""

FEW: Final = 4
"""Below so many in flight the longest wait grows, so that refused probes stay few a generation."""

SLOWER: Final = 1.5
FASTER: Final = 0.9
"""What a refusal and an acceptance do to the gap between creates where the account seems to limit a rate."""

MEMORY: Final = 0.1
"""Weight of the latest acceptance in the mean gap between acceptances, which a rate's gap cannot exceed."""

ROUNDS: Final = 2
"""A refused probe may also be repeated after so many times the limit was refilled, doubled with each refusal:
where generations are short, this comes before the wait ends."""


class Gate(Protocol):
    """What submitters ask before a create leaves, and tell afterwards; see `CreateGate`."""

    def may_start(self, now: float, in_flight: int) -> float: ...
    def started(self, now: float) -> None: ...
    def accepted(self, now: float, in_flight: int) -> None: ...
    def throttled(self, now: float, in_flight: int, retry_after_s: float | None = None) -> None: ...
    def ended(self, now: float) -> None: ...


class CreateGate:
    """One gate for all submitters.

    Ask `may_start`; on 0.0 call `started` at once, then exactly one of `accepted`, `throttled` or `ended`.
    `in_flight` is always the number of generations accepted and not known to be finished; creates on their
    way are counted here. `interval_s` (the poll interval) sets the scale of all waits.
    """

    def __init__(self, ceiling: int, *, interval_s: float = 10.0, random: Random | None = None) -> None:
        self._ceiling = ceiling
        self._interval_s = interval_s
        self._random = random or Random()
        self._limit = ceiling
        self._window = float(min(WINDOW, ceiling))
        self._outstanding = 0
        self._echoes = 0
        self._strikes = 0
        self._closed_until = -inf
        self._probe_at = -inf
        self._refills = 0
        self._gap_s = 0.0
        self._last_start = -inf
        self._accepted_at = -inf
        self._mean_gap_s = 0.0
        self._climbs = 0
        self._refused_level = -1
        self._misses = 0

    @property
    def limit(self) -> int:
        """How many generations in flight the account is believed to allow; at most the ceiling."""
        return self._limit

    @property
    def outstanding(self) -> int:
        """How many creates are on their way."""
        return self._outstanding

    def may_start(self, now: float, in_flight: int) -> float:
        """Return 0.0 to go, the seconds after which to ask again, or inf: ask when anything has ended."""
        total = in_flight + self._outstanding
        if total >= self._ceiling or self._outstanding >= self._window:
            return inf
        if total < self._limit:
            opens = max(self._closed_until, self._last_start + self._gap_s)
        elif self._outstanding:
            return inf
        else:
            opens = max(self._closed_until, self._last_start + self._gap_s, self._probe_opens())
        return max(0.0, opens - now)

    def started(self, now: float) -> None:
        """A create leaves."""
        self._outstanding += 1
        self._last_start = now

    def accepted(self, now: float, in_flight: int) -> None:
        """A create was accepted; `in_flight` counts it."""
        self._resolve()
        self._misses = 0
        self._window = min(float(self._ceiling), self._window + 0.5)
        self._gap_s = self._gap_s * FASTER if self._gap_s > 1e-3 * self._interval_s else 0.0
        self._refills += 1
        if in_flight > self._limit:
            self._limit = min(in_flight, self._ceiling)
            self._outgrown(now)
        else:
            self._climbs = 0
        if self._accepted_at > -inf:
            self._mean_gap_s += MEMORY * (now - self._accepted_at - self._mean_gap_s)
        self._accepted_at = now

    def throttled(self, now: float, in_flight: int, retry_after_s: float | None = None) -> None:
        """A create was refused with 429; `in_flight` does not count it.

        Nothing starts before `retry_after_s` (seconds from now) is over, if the vendor named a time.
        """
        echo = self._resolve()
        if retry_after_s is not None:
            self._closed_until = max(self._closed_until, now + retry_after_s)
        if echo:
            return
        self._echoes = self._outstanding
        self._misses += in_flight < self._limit < self._ceiling
        settled = in_flight == self._refused_level and self._refills > 0
        self._gap_s *= 0.5 if settled else SLOWER
        self._limit = max(1, min(self._limit, in_flight))
        wait = self._wait_s()
        if self._misses > 1 or in_flight == 0:
            self._closed_until = max(self._closed_until, now + wait)
        self._probe_at = now + wait
        self._refills = 0
        self._strikes = min(self._strikes + 1, 16)
        self._refused_level = in_flight

    def ended(self, now: float) -> None:
        """A create ended in any other way: refused for its content, in doubt, or it never left."""
        self._resolve()

    def _outgrown(self, now: float) -> None:
        """The account took more than the belief: it has grown, or it limits a rate, or an end went unnoticed.

        Twice in a row after refusals, with nothing refilled between, speaks for a rate: its gap is known now.
        Otherwise the next probe comes sooner, but at once only when the growth goes on.
        """
        if not self._strikes:
            return
        self._climbs += 1
        if self._climbs > 1:
            gap = min(now - self._accepted_at, self._mean_gap_s, LONGEST_WAIT * self._interval_s)
            self._gap_s = max(self._gap_s, gap)
            self._strikes = 0
        self._strikes = max(0, self._strikes - 2)
        self._probe_at = now + self._wait_s() if self._strikes else now

    def _probe_opens(self) -> float:
        if self._strikes and self._refills >= ROUNDS * max(self._limit, 4) * 2 ** min(self._strikes, 4):
            return -inf
        return self._probe_at

    def _wait_s(self) -> float:
        longest = LONGEST_WAIT * max(1.0, FEW / self._limit)
        wait = min(FIRST_WAIT * 2.0**self._strikes, longest) * self._interval_s
        return wait * (0.75 + 0.25 * self._random.random())

    def _resolve(self) -> bool:
        """Count one create less on its way; return whether it left before the last refusal came."""
        self._outstanding -= 1
        if self._echoes:
            self._echoes -= 1
            return True
        return False
