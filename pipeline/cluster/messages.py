"""What driver, account and workers tell each other. Plain frozen data; nothing of Ray, nothing that acts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipeline.cluster.limits import RateShare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.client import ApiKey
    from pipeline.cluster.limits import PermitResult, PollStats
    from pipeline.errors import StopReason
    from pipeline.events import Event
    from pipeline.ledger.leases import LeasedRow
    from pipeline.model import Record
    from pipeline.settings import Settings

DurationObservation = tuple[str, float, float, bool]
"""A kind of generation, the ages between which it was looked at, and whether it had ended by the second."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Everything that a worker needs to know; it holds secrets and must not be shown.

    `lease_s` is how long a worker may be silent before its rows are given to others.
    """

    ledger: str = field(repr=False)
    batch: str
    output: str
    base_url: str
    api_key: ApiKey
    settings: Settings
    workers: int
    lease_s: float
    prices: Mapping[str, float] = field(repr=False, default_factory=dict)
    assumed_price: float | None = None
    cached_durations: Mapping[str, Any] = field(repr=False, default_factory=dict)
    api_name: str = ""

    def for_worker(self) -> ClusterConfig:
        """Return what a worker needs of this: each row comes to it with its price."""
        return replace(self, prices={}, cached_durations={})

    def price_of(self, record: Record) -> float | None:
        """Return the price of a row in USD, or None when nobody knows it."""
        return self.price_of_key(record.key)

    def price_of_key(self, key: str) -> float | None:
        """Return the price of a job by its key; jobs that have left the manifest have the assumed one."""
        return self.prices.get(key, self.assumed_price)


class CoordinatorLost(Exception):
    """The account is no more: whoever has borrowed from it must stop at once."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a worker says of itself each time it asks for something. Counts are as of now.

    `moved` holds, for each row that has made steps since the last report, how it stands; `busy` says that
    some of the worker's rows are under way, or will be; being in doubt is neither. `in_flight` counts what is
    in doubt, too; `doubts` says for how many seconds each has been. `rows_wanted` counts rows of any kind;
    `room` those that it could take over if they are under way already, so that nobody waits for their slots.
    """

    worker: str
    in_flight: int
    poll_stats: PollStats
    in_doubt_ages_s: tuple[float, ...] = ()
    permit_results: tuple[PermitResult, ...] = ()
    permits_wanted: int = 0
    rows_wanted: int = 0
    takeover_capacity: int = 0
    changed_records: tuple[Record, ...] = ()
    observations: tuple[DurationObservation, ...] = ()
    events: tuple[Event, ...] = ()
    stop: tuple[StopReason, str] | None = None
    has_work: bool = False


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """What the account gives. A worker that is not `known` any more must end at once.

    `more` says that rows may still come: nobody has them yet, money may come back for them, or whoever has
    them may die. Until then no worker takes itself to have nothing left but doubts.
    """

    registered: bool = True
    permits: int = 0
    rate_share: RateShare = field(default_factory=RateShare)
    rows: tuple[tuple[LeasedRow, float | None], ...] = ()
    more_rows_expected: bool = False
    observations: tuple[DurationObservation, ...] = ()
    stop: tuple[StopReason, str] | None = None
    stop_requested: bool = False
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """What the account tells the driver: who works, who fell silent, what moved and was said, why all stop.

    `moved`, `events`, `left` (rows that workers leave to the next run, each with the reason) and `overdue`
    among them are news since the last time. `waiting` says that there may be rows for another worker;
    `short` that there are some, and no money.
    """

    live_workers: frozenset[str]
    expired_workers: frozenset[str]
    changed_records: tuple[Record, ...]
    events: tuple[Event, ...]
    stop: tuple[StopReason, str] | None
    rows_available: bool
    unfinished: Mapping[str, str]
    overdue: frozenset[str]
    budget_exhausted: tuple[StopReason, str] | None


@dataclass(frozen=True, slots=True)
class FinalReport:
    """A worker's last words: its last report, the rows that it leaves to the next run, and why.

    What it has in flight is not taken from the report: it may have been lent rows by an answer that came too
    late for it, of which the ledger knows.
    """

    last_heartbeat: Heartbeat
    unfinished: Mapping[str, str]
    overdue: frozenset[str] = frozenset()
