"""A worker's side of its reports: whom they go to, and what is collected for the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pipeline.events import Event, Level, Topic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pipeline.cluster.messages import FinalReport, Heartbeat, HeartbeatReply
    from pipeline.model import Record


class CoordinatorClient(Protocol):
    """Calls to the coordinator; each is answered in turn, or raises `CoordinatorLost`."""

    async def join(self, worker: str) -> Mapping[str, Any]: ...
    async def heartbeat(self, report: Heartbeat) -> HeartbeatReply: ...
    async def leave(self, final_report: FinalReport) -> None: ...
    async def report_event(self, event: Event) -> None: ...


class HeartbeatObserver:
    """The worker's observer: collects changed rows and events for the next heartbeat."""

    def __init__(self) -> None:
        self._changed_records: dict[str, Record] = {}
        self._events: list[Event] = []

    def on_transition(self, before: Record, after: Record) -> None:
        self._changed_records[after.key] = after

    def on_event(self, event: Event) -> None:
        if event.level is not Level.DEBUG and event.topic is not Topic.STOPPING:
            self._events.append(event)

    def on_ledger_pause(self, message: str) -> None:
        """The database is waited for, or is back."""
        self.on_event(Event(Topic.WAITING, message, Level.WARNING))

    def take_changes(self) -> tuple[tuple[Record, ...], tuple[Event, ...]]:
        """Return the changed records and the events since the last call, and clear both."""
        changed_records, self._changed_records = tuple(self._changed_records.values()), {}
        events, self._events = tuple(self._events), []
        return changed_records, events
