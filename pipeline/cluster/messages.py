"""The messages between driver, coordinator and workers: frozen data, nothing of Ray."""

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
    from pipeline.images.delivery import PictureDelivery
    from pipeline.ledger.leases import LeasedRow
    from pipeline.model import Record
    from pipeline.settings import Settings

DurationObservation = tuple[str, float, float, bool]
"""(duration key, age at the last poll before, age at this poll, whether it had ended)."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Everything that a worker needs to know; it holds secrets and must not be printed.

    `lease_s` is how long a worker may be silent before its rows go to others; `api_name` is what the ledger
    calls the API (see `Api`). `pictures` says where rows' files are, for workers that see the same paths;
    None when rows name none. `submittable` are the keys of the rows that this run may submit, None for all.
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
    pictures: PictureDelivery | None = field(repr=False, default=None)
    submittable: frozenset[str] | None = field(repr=False, default=None)

    def for_worker(self) -> ClusterConfig:
        """Return what a worker needs of this: prices and the selection come to it with its rows."""
        return replace(self, prices={}, cached_durations={}, submittable=None)

    def may_submit(self, key: str) -> bool:
        """Return whether a row is selected."""
        return self.submittable is None or key in self.submittable

    def price_of(self, record: Record) -> float | None:
        """Return the price of a row in USD, or None when nobody knows it."""
        return self.price_of_key(record.key)

    def price_of_key(self, key: str) -> float | None:
        """Return the price of a job by its key; jobs that have left the manifest have the assumed one."""
        return self.prices.get(key, self.assumed_price)


class CoordinatorLost(Exception):
    """The coordinator is gone: its workers must stop at once."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker's report, with what it asks for. Counts are as of now.

    `changed_records` has the current record of each row that changed since the last heartbeat. `has_work`
    says that some of the worker's rows are under way or will be; rows in doubt do not count. `in_flight`
    counts rows in doubt, too; `in_doubt_ages_s` says for how many seconds each has been. `rows_wanted` counts
    rows of any kind, `takeover_capacity` those already in flight that it could take over.
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
    """What the coordinator answers. A worker that is not `registered` any more must end at once.

    `more_rows_expected` says that rows may still come: they are not leased yet, the budget may have room for
    them again, or their worker may die. Until then no worker ends for having only rows in doubt.
    `submittable` are the keys of those of `rows` that may be submitted, also again; the others are finished
    if they are paid for.
    """

    registered: bool = True
    permits: int = 0
    rate_share: RateShare = field(default_factory=RateShare)
    rows: tuple[tuple[LeasedRow, float | None], ...] = ()
    submittable: frozenset[str] = frozenset()
    more_rows_expected: bool = False
    observations: tuple[DurationObservation, ...] = ()
    stop: tuple[StopReason, str] | None = None
    stop_requested: bool = False
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class StatusSnapshot:
    """What the coordinator reports to the driver.

    `changed_records`, `events`, `unfinished` (rows left to the next run, each with the reason) and `overdue`
    are those since the last snapshot. `rows_available` says that another worker might get rows,
    `budget_exhausted` that there are some and no budget for them.
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
    """A worker's last report: its last heartbeat, and the rows that it leaves to the next run, with reasons.

    What it has in flight is read from the ledger: an answer that came too late may have leased it more rows.
    """

    last_heartbeat: Heartbeat
    unfinished: Mapping[str, str]
    overdue: frozenset[str] = frozenset()
