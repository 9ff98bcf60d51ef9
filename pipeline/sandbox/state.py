"""What the vendor knows: generations, requests, charges. Tests read it as the truth.

A generation's state is computed from when it was accepted, how long it takes and what time it is. It has no
task, timer or callback, so that thousands of them cost nothing while they render.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Any, Final

from pipeline.sandbox import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.sandbox.faults.injector import Fault

CREDITS_PER_USD: Final = 2_000_000
"""The vendor's rate, by its pricing page."""


class Status(StrEnum):
    """The statuses that the vendor documents."""

    WAITING = "waiting"
    QUEUED = "queued"
    ACTIVE = "active"
    GENERATING = "generating"
    COMPLETED = "completed"
    ERROR = "error"


FINAL_STATUSES: Final = frozenset({Status.COMPLETED, Status.ERROR})
STATUS_SCHEDULE: Final = (
    (0.04, Status.WAITING),
    (0.12, Status.QUEUED),
    (0.2, Status.ACTIVE),
    (1.0, Status.GENERATING),
)
"""Each status, after the share of the rendering at which it ends."""


@dataclass(slots=True)
class Generation:
    """One accepted create. `created_at` is seconds since the epoch, `render_s` real seconds, money USD.

    `correlation_id` is the client's, or "" when it sent no valid one. `faults` are those that stay with it
    for good: how its rendering ends, how its log row shows. `polls` counts status requests, `final_polls`
    those that were answered after it had finished, `downloads` requests for its file. `key_id` says which
    key created it (see `keys.key_id`); "" is unknown, as in old journals.
    """

    id: str
    number: int
    correlation_id: str
    body: Mapping[str, Any]
    model: str
    request_id: str
    created_at: float
    render_s: float
    price_usd: float
    faults: tuple[Fault, ...] = ()
    fails: bool = False
    id_is_integer: bool = False
    key_id: str = ""
    polls: int = 0
    final_polls: int = 0
    downloads: int = 0

    @property
    def finishes_at(self) -> float:
        return self.created_at + self.render_s

    @property
    def prompt(self) -> str:
        return str(self.body.get("prompt", ""))

    @property
    def status(self) -> Status:
        return self.status_at(clock.now())

    @property
    def charged_usd(self) -> float:
        """What has been charged: the price once completed, nothing before, nothing for a failure."""
        return self.price_usd if self.status is Status.COMPLETED else 0.0

    @property
    def credits(self) -> int:
        return round(self.price_usd * CREDITS_PER_USD)

    def find_fault(self, *fault_names: str) -> Fault | None:
        """The first of its faults that has one of the names."""
        return next((fault for fault in self.faults if fault.name in fault_names), None)

    def status_at(self, now: float) -> Status:
        if now >= self.finishes_at:
            return Status.ERROR if self.fails else Status.COMPLETED
        if self.render_s == inf:
            return Status.GENERATING
        share = (now - self.created_at) / self.render_s
        return next(status for until, status in STATUS_SCHEDULE if share < until)


@dataclass(frozen=True, slots=True)
class RefusedCreate:
    """A create that the API refused: a failed row of the log. The status call does not know its `id`."""

    id: str
    correlation_id: str
    model: str
    request_id: str
    created_at: float
    key_id: str


@dataclass(slots=True)
class SandboxState:
    """Everything that happened, for tests and for the log, the account and the index page.

    `requests` counts the API's by (method, path), `cdn_requests` the CDN's. `leaked_keys` holds the CDN
    paths that were requested with an Authorization header. `rejected` counts refused creates by HTTP status,
    `triggered` the faults by name. `active_downloads` are those that run now. `key_problems` is why a fault
    made creates of a key fail, by `key_id`, until one is accepted again: `GET /v1/key` agrees with it.
    """

    generations: list[Generation] = field(default_factory=list)
    refused_creates: list[RefusedCreate] = field(default_factory=list)
    key_problems: dict[str, str] = field(default_factory=dict)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    cdn_requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejected: Counter[int] = field(default_factory=Counter)
    triggered: Counter[str] = field(default_factory=Counter)
    leaked_keys: list[str] = field(default_factory=list)
    peak_in_flight: int = 0
    active_downloads: int = 0
    peak_downloads: int = 0
    _by_id: dict[str, Generation] = field(default_factory=dict)
    _by_number: dict[int, Generation] = field(default_factory=dict)
    _render_ends: list[tuple[float, int]] = field(default_factory=list)
    _charged_usd: float = 0.0
    _reserved_usd: float = 0.0

    @property
    def in_flight(self) -> int:
        """Generations that were accepted and are not finished."""
        self.charge_completed()
        return len(self._render_ends)

    @property
    def charged_usd(self) -> float:
        self.charge_completed()
        return round(self._charged_usd, 6)

    @property
    def reserved_usd(self) -> float:
        """What the generations in flight will cost if they complete."""
        self.charge_completed()
        return self._reserved_usd

    @property
    def create_requests(self) -> int:
        """Create requests that arrived, accepted or not."""
        return self.requests["POST", "/v2/video/generations"]

    @property
    def next_number(self) -> int:
        """The number of the next generation; none is used twice."""
        return self.generations[-1].number + 1 if self.generations else 0

    def find(self, generation_id: str) -> Generation | None:
        return self._by_id.get(generation_id)

    def neighbour(self, generation: Generation) -> Generation:
        """Another generation: the one accepted before it, else after it, else one that does not exist."""
        others = (self.find_by_number(generation.number + step) for step in (-1, 1))
        made_up = replace(generation, id=f"{generation.id}-other")
        return next((one for one in others if one is not None), made_up)

    def find_by_number(self, number: int) -> Generation | None:
        return self._by_number.get(number)

    def find_by_correlation_id(self, correlation_id: str) -> list[Generation]:
        """All generations accepted with that correlation id; more than one is paid twice."""
        return [one for one in self.generations if one.correlation_id == correlation_id]

    def add(self, generation: Generation) -> None:
        self.charge_completed()
        self._insert(generation)
        self.peak_in_flight = max(self.peak_in_flight, len(self._render_ends))

    def restore(self, generations: Iterable[Generation]) -> None:
        """Enter generations that were accepted earlier, except those whose id or number is taken."""
        for generation in sorted(generations, key=lambda one: one.number):
            if generation.number >= self.next_number and generation.id not in self._by_id:
                self._insert(generation)
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def _insert(self, generation: Generation) -> None:
        self.generations.append(generation)
        self._by_id[generation.id] = generation
        self._by_number[generation.number] = generation
        heapq.heappush(self._render_ends, (generation.finishes_at, generation.number))
        self._reserved_usd += generation.price_usd

    def charge_completed(self) -> None:
        now = clock.now()
        while self._render_ends and self._render_ends[0][0] <= now:
            _, number = heapq.heappop(self._render_ends)
            generation = self._by_number[number]
            self._reserved_usd = max(0.0, self._reserved_usd - generation.price_usd)
            if not generation.fails:
                self._charged_usd += generation.price_usd
