"""What a run tells those who watch it: the log, the bars, the live page, the CI annotations.

The engine speaks, observers listen; an observer must be quick and must not raise, since it is called
from the loop that also polls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.model import Record


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Topic(StrEnum):
    """What an event is about; stable, for the log's readers."""

    STARTED = "started"
    PLANNED = "planned"
    CREATE_SENT = "create_sent"
    CREATE_NOT_ACCEPTED = "create_not_accepted"
    THROTTLED = "throttled"
    IN_DOUBT = "in_doubt"
    RECONCILED = "reconciled"
    LOOKED = "looked"
    LOOK_FAILED = "look_failed"
    UNKNOWN_STATUS = "unknown_status"
    DOWNLOAD_RETRIED = "download_retried"
    MEDIA_WARNING = "media_warning"
    STOPPING = "stopping"
    WAITING = "waiting"
    NOTE = "note"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, besides a record's move. `key` names the job, when it is about one.

    `facts` holds only what may be written to a log: never the key, never a signed URL's signature.
    """

    topic: Topic
    message: str
    level: Level = Level.INFO
    key: str = ""
    facts: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


class Observer(Protocol):
    """Somebody who watches a run."""

    def on_transition(self, before: Record, after: Record) -> None:
        """A record's step has become durable."""

    def on_event(self, event: Event) -> None:
        """Something else happened."""


class ObserverGroup:
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_transition(self, before: Record, after: Record) -> None:
        for observer in self._observers:
            observer.on_transition(before, after)

    def on_event(self, event: Event) -> None:
        for observer in self._observers:
            observer.on_event(event)
