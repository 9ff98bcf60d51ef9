"""Limits of one account shared by many workers: permits to create, and shares of the poll rate.

`PermitPool` and `RemoteConcurrencyLimit` are the coordinator's and the worker's side of the slots;
`RateLimitPool` and `RemoteRateLimit` those of the polls. Pure and synchronous: no clock, no messages. What a
worker has seen since its last heartbeat arrives as `PermitResult`s and `PollStats`. A slot is taken from the
moment its permit is granted until its worker reports it free or, when that worker is gone, until the next
holder of its row does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.poll.poll_rate import AdaptiveRateLimit
    from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

LOCAL_PAUSE_INTERVALS: Final = 0.1
"""How long a worker makes no poll after a 429, in poll intervals, until the coordinator says more."""


class PermitOutcome(StrEnum):
    """What became of a permit."""

    ACCEPTED = "accepted"
    RATE_LIMITED = "throttled"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class PermitResult:
    """One permit that was used, or given back unused; `retry_after_s` as the vendor said."""

    outcome: PermitOutcome
    retry_after_s: float | None = None


class PermitPool:
    """Who has how many slots. `orphans` are rows in flight that no worker holds."""

    def __init__(self, concurrency_limit: AdaptiveConcurrencyLimit, orphans: Iterable[str] = ()) -> None:
        self._concurrency_limit = concurrency_limit
        self._orphans = set(orphans)
        self._in_flight: dict[str, int] = {}
        self._permits: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        """How many slots are taken by generations and rows in doubt; permits come on top."""
        return sum(self._in_flight.values()) + len(self._orphans)

    @property
    def permits(self) -> int:
        """How many permits are out."""
        return self._permits.total()

    def update_worker(self, worker: str, now: float, in_flight: int, results: Iterable[PermitResult]) -> None:
        """Record what a worker has in flight, and the results of its permits."""
        self._in_flight[worker] = in_flight
        for result in results:
            self._permits[worker] -= 1
            match result.outcome:
                case PermitOutcome.ACCEPTED:
                    self._concurrency_limit.on_accepted(now, self.in_flight)
                case PermitOutcome.RATE_LIMITED:
                    self._concurrency_limit.on_rate_limited(now, self.in_flight, result.retry_after_s)
                case PermitOutcome.ENDED:
                    self._concurrency_limit.on_create_ended(now)

    def grant(self, worker: str, now: float, wanted: int) -> int:
        """Grant up to `wanted` permits for creates that may start at once; return how many."""
        for granted in range(wanted):
            if self._concurrency_limit.start_delay_s(now, self.in_flight) > 0:
                return granted
            self._concurrency_limit.on_started(now)
            self._permits[worker] += 1
        return wanted

    def assign(self, worker: str, keys: Iterable[str]) -> None:
        """Count rows in flight that were leased to a worker as its own."""
        assigned = set(keys)
        self._orphans -= assigned
        self._in_flight[worker] = self._in_flight.get(worker, 0) + len(assigned)

    def remove_worker(self, worker: str, now: float, in_flight_keys: Iterable[str]) -> None:
        """Remove a worker that can write no more; `in_flight_keys` are its rows in flight, by the ledger."""
        self._orphans.update(in_flight_keys)
        self._in_flight.pop(worker, None)
        for _ in range(self._permits.pop(worker, 0)):
            self._concurrency_limit.on_create_ended(now)


class RemoteConcurrencyLimit:
    """A worker's concurrency limit: spends granted permits, and keeps their results for the heartbeat."""

    def __init__(self) -> None:
        self._permits = 0
        self._results: list[PermitResult] = []

    @property
    def permits(self) -> int:
        """How many creates may start."""
        return self._permits

    def add_permits(self, permits: int) -> None:
        """Allow so many more creates."""
        self._permits += permits

    def return_permits(self, permits: int) -> None:
        """Give back permits that are not needed."""
        self._permits -= permits
        self._results += [PermitResult(PermitOutcome.ENDED)] * permits

    def permits_wanted(self, useful: int) -> int:
        """Return how many more permits are useful; give surplus ones back."""
        if self._permits > useful:
            self.return_permits(self._permits - useful)
        return useful - self._permits

    def take_results(self) -> list[PermitResult]:
        """Return the results since the last heartbeat, and clear them."""
        results, self._results = self._results, []
        return results

    def start_delay_s(self, now: float, in_flight: int) -> float:
        """Return 0.0 to start, or inf: ask again when something has changed."""
        return 0.0 if self._permits else inf

    def on_started(self, now: float) -> None:
        self._permits -= 1

    def on_accepted(self, now: float, in_flight: int) -> None:
        self._record(PermitResult(PermitOutcome.ACCEPTED))

    def on_rate_limited(self, now: float, in_flight: int, retry_after_s: float | None = None) -> None:
        self._record(PermitResult(PermitOutcome.RATE_LIMITED, retry_after_s))

    def on_create_ended(self, now: float) -> None:
        self._record(PermitResult(PermitOutcome.ENDED))

    def _record(self, result: PermitResult) -> None:
        self._results.append(result)


@dataclass(frozen=True, slots=True)
class PollStats:
    """A worker's polls since its last heartbeat; `tracked` is how many generations it polls."""

    tracked: int = 0
    calls: int = 0
    answered: int = 0
    refused: int = 0
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class RateShare:
    """A worker's share of the poll rate: seconds between two polls, and how long it makes none at all."""

    gap_s: float = 0.0
    pause_s: float = 0.0


class RateLimitPool:
    """The poll rate of the whole account, divided by how many generations each worker polls."""

    def __init__(self, rate_limit: AdaptiveRateLimit) -> None:
        self._rate_limit = rate_limit
        self._tracked: dict[str, int] = {}

    def update_worker(self, worker: str, now: float, stats: PollStats) -> RateShare:
        """Record a worker's polls; return its share."""
        self._tracked[worker] = stats.tracked
        self._rate_limit.record_calls(now, stats.calls)
        for _ in range(stats.answered):
            self._rate_limit.on_success(now)
        if stats.refused:
            self._rate_limit.on_rate_limited(now, stats.retry_after_s)
        share_divisor = sum(self._tracked.values()) / max(1, stats.tracked)
        return RateShare(self._rate_limit.gap_s * max(1.0, share_divisor), self._rate_limit.pause_s(now))

    def remove_worker(self, worker: str) -> None:
        """Remove a worker; its share goes to the others."""
        self._tracked.pop(worker, None)


class RemoteRateLimit:
    """A worker's poll rate: its share, and what to report of its polls."""

    def __init__(self, *, interval_s: float) -> None:
        self._interval_s = interval_s
        self._gap_s = 0.0
        self._last_at = -inf
        self._paused_until = -inf
        self._stats = PollStats()

    @property
    def limited(self) -> bool:
        """Return whether the account is known to limit polls, so that a new share matters."""
        return self._gap_s > 0 or self._stats.refused > 0

    def acquire_delay_s(self, now: float) -> float:
        """Return 0.0 and count a call, or the seconds after which to ask again."""
        allowed_at = max(self._paused_until, self._last_at + self._gap_s)
        if allowed_at > now:
            return allowed_at - now
        self._last_at = now
        self._stats = replace(self._stats, calls=self._stats.calls + 1)
        return 0.0

    def on_success(self, now: float) -> None:
        self._stats = replace(self._stats, answered=self._stats.answered + 1)

    def on_rate_limited(self, now: float, retry_after_s: float | None = None) -> None:
        """After a 429: make no poll until the coordinator answers, or for a while."""
        retry_after_max_s = max(retry_after_s or 0.0, self._stats.retry_after_s or 0.0)
        self._stats = replace(
            self._stats, refused=self._stats.refused + 1, retry_after_s=retry_after_max_s or None
        )
        self._paused_until = max(
            self._paused_until, now + max(retry_after_max_s, LOCAL_PAUSE_INTERVALS * self._interval_s)
        )

    def take_poll_stats(self, tracked: int) -> PollStats:
        """Return the results since the last heartbeat, and clear them."""
        stats, self._stats = replace(self._stats, tracked=tracked), PollStats()
        return stats

    def set_share(self, now: float, share: RateShare) -> None:
        self._gap_s = share.gap_s
        self._paused_until = max(self._paused_until, now + share.pause_s)
