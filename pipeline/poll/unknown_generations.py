"""When a generation that is answered with 404 is unknown to the vendor, and when it alone is missing. Pure.

A 404 comes from a replica that lags behind, from an outage of the status endpoint, or because the vendor has
no such generation. The first lasts seconds; the second strikes all generations alike.
"""

from __future__ import annotations

from math import inf
from typing import Final

from pipeline.poll.confirmation import MIN_LONG_POLLS, error_interval_s

NOT_FOUND: Final = 404
NOT_FOUND_INTERVALS: Final = 18.0
MIN_NOT_FOUND_POLLS: Final = 3
"""A generation is unknown to the vendor once 404 was all it answered for this long (in poll intervals: three
minutes at 10 s) and this often; a replica that lags behind knows it sooner."""

OUTAGE_INTERVALS: Final = 9.0
"""When no other generation was known for this long, a 404 may be one of an outage of the endpoint."""


class UnknownIds:
    """Since when, and how often, the vendor has answered with 404, and nothing else, about a generation."""

    def __init__(self, interval_s: float, unknown: dict[str, float], missing: set[str]) -> None:
        """`unknown` and `missing` are kept up, by key.

        `unknown` has the time of the first 404, on the run's clock. `missing` are those of them that were
        unknown for as long without a break while the vendor knew others.
        """
        self.unknown = unknown
        self.missing = missing
        interval_s = error_interval_s(interval_s)
        self._limit_s = NOT_FOUND_INTERVALS * interval_s
        self._outage_s = OUTAGE_INTERVALS * interval_s
        self._not_found: dict[str, tuple[float, int]] = {}
        self._missing: dict[str, tuple[float, int]] = {}

    def forget(self, key: str) -> None:
        self._not_found.pop(key, None)
        self.unknown.pop(key, None)
        self._forget_missing(key)

    def on_error(self, key: str, http_status: int, now: float, others_known_at: float = -inf) -> bool:
        """Count a 404; return whether it makes the generation unknown. Anything else begins anew.

        `others_known_at` is when the vendor last told the status of any generation.
        """
        if http_status != NOT_FOUND:
            self.forget(key)
            return False
        self._count_missing(key, now, others_known_at)
        since, polls = self._not_found.get(key, (now, 0))
        self._not_found[key] = since, polls + 1
        if key in self.unknown or polls + 1 < MIN_NOT_FOUND_POLLS or now - since < self._limit_s:
            return False
        self.unknown[key] = since
        return True

    def remaining_s(self, key: str, now: float) -> float:
        """Return for how much longer 404 has to be all that is answered."""
        since, _ = self._not_found.get(key, (now, 0))
        return max(0.0, since + self._limit_s - now)

    def _count_missing(self, key: str, now: float, others_known_at: float) -> None:
        # Once the endpoint is back, a generation may not have been polled yet: its 404s were the outage's.
        if now - others_known_at > self._outage_s:
            self._forget_missing(key)
            return
        since, polls = self._missing.get(key, (now, 0))
        self._missing[key] = since, polls + 1
        if polls + 1 >= MIN_LONG_POLLS and now - since >= self._limit_s:
            self.missing.add(key)

    def _forget_missing(self, key: str) -> None:
        self._missing.pop(key, None)
        self.missing.discard(key)
