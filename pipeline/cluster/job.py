"""What driver, account and workers tell each other. Plain frozen data; nothing of Ray, nothing that acts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.api import ApiKey
    from pipeline.errors import StopReason
    from pipeline.events import Event
    from pipeline.ledger.leases import Leased
    from pipeline.model import Record
    from pipeline.pacing import Verdict
    from pipeline.settings import Settings

Lesson = tuple[str, float, float, bool]
"""A kind of generation, the ages between which it was looked at, and whether it had ended by the second."""


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """Everything that a worker needs to know; it holds secrets and must not be shown.

    `lease_s` is how long a worker may be silent before its rows are given to others.
    """

    ledger: str
    batch: str
    output: str
    base_url: str
    key: ApiKey
    settings: Settings
    workers: int
    lease_s: float
    prices: Mapping[str, float] = field(repr=False, default_factory=dict)
    assumed_price: float | None = None
    memory: Mapping[str, Any] = field(repr=False, default_factory=dict)

    def price_of(self, record: Record) -> float | None:
        """Return the price of a row in USD, or None when nobody knows it."""
        return self.prices.get(record.key, self.assumed_price)


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of itself each time it asks for something. Counts are as of now."""

    worker: str
    in_flight: int
    verdicts: tuple[Verdict, ...] = ()
    permits_wanted: int = 0
    rows_wanted: int = 0
    finished: tuple[Record, ...] = ()
    lessons: tuple[Lesson, ...] = ()
    events: tuple[Event, ...] = ()
    stop: tuple[StopReason, str] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the account gives. A worker that is not `known` any more must end at once."""

    known: bool = True
    permits: int = 0
    wait_s: float = 0.0
    rows: tuple[tuple[Leased, float | None], ...] = ()
    more: bool = False
    lessons: tuple[Lesson, ...] = ()
    stop: tuple[StopReason, str] | None = None
    impatient: bool = False
    abandon: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What the account tells the driver: who is lost, what was said, why all stop, whether rows wait.

    `short` says that rows were put aside for want of money.
    """

    lapsed: frozenset[str]
    events: tuple[Event, ...]
    stop: tuple[StopReason, str] | None
    waiting: bool
    in_flight: int
    permits: int
    left: Mapping[str, str]
    overdue: frozenset[str]
    short: tuple[StopReason, str] | None


@dataclass(frozen=True, slots=True)
class Leaving:
    """A worker's last words: rows that it leaves to the next run, and why."""

    worker: str
    left: Mapping[str, str]
    overdue: frozenset[str] = frozenset()
