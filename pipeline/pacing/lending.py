"""One account for many workers: its gate stays in one place and lends permits to create, one by one.

`Lender` is the account's side, `LentGate` a worker's. Pure and synchronous: no clock, no messages; what a
worker has seen since its last report comes as `Verdict`s. A slot is taken from the moment its permit is
granted until its worker reports it free, or, when the worker is gone, until whoever has its row then does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.pacing.creates import CreateGate


class Outcome(StrEnum):
    """What became of a permit."""

    ACCEPTED = "accepted"
    THROTTLED = "throttled"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One permit that was used, or given back unused; `retry_after_s` as the vendor said."""

    outcome: Outcome
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """Permits for creates that may start at once, and how long to wait before asking for more (or inf)."""

    permits: int
    wait_s: float


class Lender:
    """The account: who has how many slots. `orphans` are rows in flight that no worker has."""

    def __init__(self, gate: CreateGate, orphans: Iterable[str] = ()) -> None:
        self._gate = gate
        self._orphans = set(orphans)
        self._in_flight: dict[str, int] = {}
        self._permits: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        """How many slots are taken by generations, and by what is in doubt; permits come on top."""
        return sum(self._in_flight.values()) + len(self._orphans)

    @property
    def permits(self) -> int:
        """How many permits are out."""
        return self._permits.total()

    def report(self, worker: str, now: float, in_flight: int, verdicts: Iterable[Verdict]) -> None:
        """Take note of what a worker has in flight, and of what its permits came to."""
        self._in_flight[worker] = in_flight
        for verdict in verdicts:
            self._permits[worker] -= 1
            match verdict.outcome:
                case Outcome.ACCEPTED:
                    self._gate.accepted(now, self.in_flight)
                case Outcome.THROTTLED:
                    self._gate.throttled(now, self.in_flight, verdict.retry_after_s)
                case Outcome.ENDED:
                    self._gate.ended(now)

    def grant(self, worker: str, now: float, wanted: int) -> Granted:
        """Lend up to `wanted` permits, as many as the account has room for."""
        for granted in range(wanted):
            wait_s = self._gate.may_start(now, self.in_flight)
            if wait_s > 0:
                return Granted(granted, wait_s)
            self._gate.started(now)
            self._permits[worker] += 1
        return Granted(wanted, 0.0)

    def took(self, worker: str, keys: Iterable[str]) -> None:
        """A worker has been lent rows that are in flight: they are its own from now on."""
        taken = set(keys)
        self._orphans -= taken
        self._in_flight[worker] = self._in_flight.get(worker, 0) + len(taken)

    def gone(self, worker: str, now: float, keys: Iterable[str]) -> None:
        """A worker is no more and can write no more; `keys` are its rows in flight, by the ledger."""
        self._orphans.update(keys)
        self._in_flight.pop(worker, None)
        for _ in range(self._permits.pop(worker, 0)):
            self._gate.ended(now)


class LentGate:
    """A worker's gate: it opens for permits that were granted, and keeps what to report of them."""

    def __init__(self) -> None:
        self._permits = 0
        self._verdicts: list[Verdict] = []
        self.outstanding = 0

    @property
    def permits(self) -> int:
        """How many creates may start."""
        return self._permits

    def granted(self, permits: int) -> None:
        """So many more creates may start."""
        self._permits += permits

    def give_back(self, permits: int) -> None:
        """So many permits are not needed after all."""
        self._permits -= permits
        self._verdicts += [Verdict(Outcome.ENDED)] * permits

    def verdicts(self) -> list[Verdict]:
        """Return what is to be reported, and forget it."""
        told, self._verdicts = self._verdicts, []
        return told

    def may_start(self, now: float, in_flight: int) -> float:
        """Return 0.0 to go, or inf: ask when anything has changed."""
        return 0.0 if self._permits else inf

    def started(self, now: float) -> None:
        self._permits -= 1
        self.outstanding += 1

    def accepted(self, now: float, in_flight: int) -> None:
        self._told(Verdict(Outcome.ACCEPTED))

    def throttled(self, now: float, in_flight: int, retry_after_s: float | None = None) -> None:
        self._told(Verdict(Outcome.THROTTLED, retry_after_s))

    def ended(self, now: float) -> None:
        self._told(Verdict(Outcome.ENDED))

    def _told(self, verdict: Verdict) -> None:
        self.outstanding -= 1
        self._verdicts.append(verdict)
