"""What a run reports to its observers: the log, the bars, the live page, the CI annotations.

An observer must be quick: it is called from the loop that also polls. One that raises is reported to the
others once and never costs a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from traceback import format_exception
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.model import Record


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Topic(StrEnum):
    """What an event is about; stable, for the log's readers."""

    PLANNED = "planned"
    CREATE_NOT_ACCEPTED = "create_not_accepted"
    THROTTLED = "throttled"
    IN_DOUBT = "in_doubt"
    RECONCILED = "reconciled"
    POLL_FAILED = "poll_failed"
    UNKNOWN_STATUS = "unknown_status"
    DOWNLOAD_RETRIED = "download_retried"
    STOPPING = "stopping"
    WAITING = "waiting"
    NOTE = "note"
    CRASH = "crash"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, besides a record's transition. `key` names the job, when it is about one.

    `facts` is for the log alone, such as a traceback; the log takes keys and URLs' signatures out.
    """

    topic: Topic
    message: str
    level: Level = Level.INFO
    key: str = ""
    facts: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


class Observer(Protocol):
    """Somebody who watches a run."""

    def on_transition(self, before: Record, after: Record) -> None:
        """A record's transition has become durable."""

    def on_event(self, event: Event) -> None:
        """Something else happened."""


class ObserverGroup:
    """Several observers as one. One that raises is reported to all of them the first time."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._broken: set[int] = set()

    def on_transition(self, before: Record, after: Record) -> None:
        self._call_each(lambda observer: observer.on_transition(before, after))

    def on_event(self, event: Event) -> None:
        self._call_each(lambda observer: observer.on_event(event))

    def _call_each(self, call: Callable[[Observer], None]) -> None:
        for number, observer in enumerate(self._observers):
            try:
                call(observer)
            except Exception as error:  # what watches a run must not cost it anything
                self._report_broken(number, observer, error)

    def _report_broken(self, number: int, observer: Observer, error: Exception) -> None:
        if number in self._broken:
            return
        self._broken.add(number)
        message = f"{type(observer).__name__} met an unexpected error (the traceback is in run.log)"
        facts = {"traceback": "".join(format_exception(error))}
        self.on_event(Event(Topic.CRASH, message, Level.WARNING, facts=facts))
