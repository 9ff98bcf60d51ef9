"""What is collected for the next report, and whom a worker's reports go to."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from pipeline import clocks
from pipeline.events import Event, Level, Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from pipeline.cluster.messages import FinalReport, Heartbeat, HeartbeatReply
    from pipeline.model import Record


class CoordinatorClient(Protocol):
    """Calls to the coordinator; each is answered in turn, or raises `CoordinatorLost`."""

    async def join(self, worker: str) -> Mapping[str, Any]: ...
    async def heartbeat(self, report: Heartbeat) -> HeartbeatReply: ...
    async def leave(self, final_report: FinalReport) -> None: ...
    async def report_event(self, event: Event) -> None: ...


EVENT_DEDUP_S: Final = 10.0


class DoubtAges:
    """How old doubts are at least, by clocks that nobody sets: a slot is free once it cannot be rendering."""

    def __init__(self, vendor_now: Callable[[], float | None]) -> None:
        self._vendor_now = vendor_now
        self._met: dict[str, float] = {}

    def ages_s(self, in_doubt: Iterable[Record], began: Mapping[str, float]) -> tuple[float, ...]:
        """Return the age of each: of those that `began` here, at a monotonic time by correlation id, by that.

        Another worker dated the others, by a wall clock of its own. They are as old as the vendor's clock
        says, and at least as old as this worker has known of them.
        """
        now, vendor_now, doubts = clocks.monotonic(), self._vendor_now(), tuple(in_doubt)
        self._met = {r.correlation_id: self._met.get(r.correlation_id, now) for r in doubts}
        return tuple(
            now - began[record.correlation_id]
            if record.correlation_id in began
            else max(now - self._met[record.correlation_id], _since_s(record.vendor_sent_at, vendor_now))
            for record in doubts
        )


def _since_s(at: float | None, now: float | None) -> float:
    return 0.0 if at is None or now is None else now - at


class ChangeBuffer:
    """Changed rows and events since they were last taken; what all wait for is kept once in ten seconds."""

    def __init__(self) -> None:
        self._changed_records: dict[str, Record] = {}
        self._events: list[Event] = []
        self._last_waiting_at: dict[str, float] = {}

    def add_records(self, records: Iterable[Record]) -> None:
        self._changed_records.update((record.key, record) for record in records)

    def add_event(self, event: Event) -> None:
        if event.topic is Topic.WAITING:
            now = clocks.monotonic()
            if now - self._last_waiting_at.get(event.message, -inf) < EVENT_DEDUP_S:
                return
            self._last_waiting_at[event.message] = now
        self._events.append(event)

    def on_ledger_pause(self, message: str) -> None:
        """The database is waited for, or is back."""
        self.add_event(Event(Topic.WAITING, message, Level.WARNING))

    def take_changes(self) -> tuple[tuple[Record, ...], tuple[Event, ...]]:
        """Return the changed records and the events since the last call, and clear both."""
        changed_records, self._changed_records = tuple(self._changed_records.values()), {}
        events, self._events = tuple(self._events), []
        return changed_records, events


class HeartbeatObserver(ChangeBuffer):
    """The worker's observer: collects changed rows and events for the next heartbeat."""

    def on_transition(self, before: Record, after: Record) -> None:
        self.add_records([after])

    def on_event(self, event: Event) -> None:
        if event.level is not Level.DEBUG and event.topic is not Topic.STOPPING:
            self.add_event(event)
