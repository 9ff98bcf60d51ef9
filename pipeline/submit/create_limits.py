"""When the next create may start: what the account allows, found from its refusals by one probe at a time.

It estimates two limits: how many generations may be in flight, and how far apart creates must be. A 429 does
not say which of the two it means. It knows no clock (`now` is handed in, in monotonic seconds) and no HTTP.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Final, Protocol

INITIAL_WINDOW: Final = 4
"""Creates on their way at once before anything was answered; two acceptances add one (slow start)."""

FIRST_WAIT_INTERVALS: Final = 0.1
MAX_WAIT_INTERVALS: Final = 6.0
"""Waits between refused probes, in poll intervals: the first, doubled up to the longest."""

LOW_LIMIT: Final = 4
"""Below so many in flight the longest wait grows, so that refused probes stay few a generation."""

GAP_GROWTH: Final = 1.5
GAP_DECAY: Final = 0.9
"""What a refusal and an acceptance do to the gap between creates where the account seems to limit a rate."""

MEAN_GAP_WEIGHT: Final = 0.1
"""Weight of the latest acceptance in the mean gap between acceptances, which a rate's gap cannot exceed."""

REFILLS_PER_PROBE: Final = 2
"""A refused probe may also be repeated after so many times the limit was refilled, doubled with each refusal:
where generations are short, this comes before the wait ends."""


class ConcurrencyLimit(Protocol):
    """What submitters ask before a create leaves, and tell afterwards; see `AdaptiveConcurrencyLimit`."""

    def start_delay_s(self, now: float, in_flight: int) -> float: ...
    def on_started(self, now: float) -> None: ...
    def on_accepted(self, now: float, in_flight: int) -> None: ...
    def on_rate_limited(self, now: float, in_flight: int, retry_after_s: float | None = None) -> None: ...
    def on_create_ended(self, now: float) -> None: ...


class AdaptiveConcurrencyLimit:
    """One limit for all submitters.

    Ask `start_delay_s`; on 0.0 call `on_started` at once, then exactly
    one of `on_accepted`, `on_rate_limited` or `on_create_ended`.
    `in_flight` is always the number of generations accepted and not known to be finished; creates on their
    way are counted here. `interval_s` (the poll interval) sets the scale of all waits.
    """

    def __init__(self, ceiling: int, *, interval_s: float = 10.0, random: Random | None = None) -> None:
        self._ceiling = ceiling
        self._interval_s = interval_s
        self._random = random or Random(0)
        self._limit = ceiling
        self._window = float(min(INITIAL_WINDOW, ceiling))
        self._outstanding = 0
        self._outstanding_at_rejection = 0
        self._backoff_level = 0
        self._paused_until = -inf
        self._probe_at = -inf
        self._accepted_since_rejection = 0
        self._gap_s = 0.0
        self._last_start = -inf
        self._last_accepted_at = -inf
        self._mean_gap_s = 0.0
        self._consecutive_raises = 0
        self._rejected_in_flight = -1
        self._rejections_below_limit = 0

    @property
    def limit(self) -> int:
        """How many generations in flight the account is estimated to allow; at most the ceiling."""
        return self._limit

    @property
    def outstanding(self) -> int:
        """How many creates are on their way."""
        return self._outstanding

    def start_delay_s(self, now: float, in_flight: int) -> float:
        """Return 0.0 to go, or the seconds after which to ask again.

        inf: ask again when a create or a generation is over.
        """
        total = in_flight + self._outstanding
        if total >= self._ceiling or self._outstanding >= self._window:
            return inf
        if total < self._limit:
            allowed_at = max(self._paused_until, self._last_start + self._gap_s)
        # Beyond the limit one probe at a time: its answer says whether the limit has grown.
        elif self._outstanding:
            return inf
        else:
            allowed_at = max(self._paused_until, self._last_start + self._gap_s, self._next_probe_at())
        return max(0.0, allowed_at - now)

    def on_started(self, now: float) -> None:
        self._outstanding += 1
        self._last_start = now

    def on_accepted(self, now: float, in_flight: int) -> None:
        """A create was accepted; `in_flight` counts it."""
        self._remove_outstanding()
        self._rejections_below_limit = 0
        self._window = min(float(self._ceiling), self._window + 0.5)
        self._gap_s = self._gap_s * GAP_DECAY if self._gap_s > 1e-3 * self._interval_s else 0.0
        self._accepted_since_rejection += 1
        if in_flight > self._limit:
            self._limit = min(in_flight, self._ceiling)
            self._raise_limit(now)
        else:
            self._consecutive_raises = 0
        if self._last_accepted_at > -inf:
            self._mean_gap_s += MEAN_GAP_WEIGHT * (now - self._last_accepted_at - self._mean_gap_s)
        self._last_accepted_at = now

    def on_rate_limited(self, now: float, in_flight: int, retry_after_s: float | None = None) -> None:
        """A create was refused with 429; `in_flight` does not count it.

        Nothing starts before `retry_after_s` (seconds from now) is over, if the vendor named a time.
        """
        stale = self._remove_outstanding()
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + retry_after_s)
        # It left before the refusal that is already counted, so it says nothing new.
        if stale:
            return
        self._outstanding_at_rejection = self._outstanding
        self._rejections_below_limit += in_flight < self._limit < self._ceiling
        at_known_limit = in_flight == self._rejected_in_flight and self._accepted_since_rejection > 0
        # A 429 at the known limit is due to that limit, one below it to a rate. A gap of 0.0 stays 0.0:
        # `_raise_limit` sets the first one.
        grown_s = self._gap_s * (0.5 if at_known_limit else GAP_GROWTH)
        # Unbounded, refusals of any other cause would add up to hours between two creates.
        self._gap_s = min(grown_s, MAX_WAIT_INTERVALS * self._interval_s)
        self._limit = max(1, min(self._limit, in_flight))
        wait = self._wait_s()
        if self._rejections_below_limit > 1 or in_flight == 0:
            self._paused_until = max(self._paused_until, now + wait)
        self._probe_at = now + wait
        self._accepted_since_rejection = 0
        self._backoff_level = min(self._backoff_level + 1, 16)
        self._rejected_in_flight = in_flight

    def on_create_ended(self, now: float) -> None:
        """A create ended in any other way: refused for its content, in doubt, or it never left."""
        self._remove_outstanding()

    def _raise_limit(self, now: float) -> None:
        """The account took more than the estimate: it has grown, or limits a rate, or an end went unnoticed.

        Twice in a row after refusals, with no slot refilled in between, means a rate limit: its gap is known
        now. Otherwise the next probe comes sooner, and at once only while the growth goes on.
        """
        if not self._backoff_level:
            return
        self._consecutive_raises += 1
        if self._consecutive_raises > 1:
            gap = min(now - self._last_accepted_at, self._mean_gap_s, MAX_WAIT_INTERVALS * self._interval_s)
            self._gap_s = max(self._gap_s, gap)
            self._backoff_level = 0
        self._backoff_level = max(0, self._backoff_level - 2)
        self._probe_at = now + self._wait_s() if self._backoff_level else now

    def _next_probe_at(self) -> float:
        if self._backoff_level and self._accepted_since_rejection >= REFILLS_PER_PROBE * max(
            self._limit, 4
        ) * 2 ** min(self._backoff_level, 4):
            return -inf
        return self._probe_at

    def _wait_s(self) -> float:
        longest = MAX_WAIT_INTERVALS * max(1.0, LOW_LIMIT / self._limit)
        wait = min(FIRST_WAIT_INTERVALS * 2.0**self._backoff_level, longest) * self._interval_s
        return wait * (0.75 + 0.25 * self._random.random())

    def _remove_outstanding(self) -> bool:
        """Count one create less on its way; return whether it left before the last refusal came."""
        self._outstanding -= 1
        if self._outstanding_at_rejection:
            self._outstanding_at_rejection -= 1
            return True
        return False
