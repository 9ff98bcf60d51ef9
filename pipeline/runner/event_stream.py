"""A run's events as an async iterator; a slow consumer holds nothing up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.results.csv_rows import status
from pipeline.results.rows import Row, row_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pipeline.events import Event
    from pipeline.model import Record

MAX_WAITING_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class RowChanged:
    """A row has another status, durably; `before` is the one it had."""

    row: Row
    before: str


class RunFeed:
    """An observer whose events are read by iterating.

    Bounded: a row's unread change is replaced by its next one, and of other events the oldest are dropped
    beyond `MAX_WAITING_EVENTS`.
    """

    def __init__(self, make_row: Callable[[Record], Row] = row_of) -> None:
        self._make_row = make_row
        self._changes: dict[str, tuple[Record, str]] = {}
        self._events: dict[int, Event] = {}
        self._numbers = count()
        self._wake = anyio.Event()
        self._closed = False

    def on_transition(self, before: Record, after: Record) -> None:
        was, now = status(before), status(after)
        if was is not now:
            _, first = self._changes.pop(after.key, (after, was.value))
            self._changes[after.key] = (after, first)
            self._wake.set()

    def on_event(self, event: Event) -> None:
        self._events[next(self._numbers)] = event
        if len(self._events) > MAX_WAITING_EVENTS:
            del self._events[next(iter(self._events))]
        self._wake.set()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[RowChanged | Event]:
        while True:
            while self._events:
                yield self._events.pop(next(iter(self._events)))
            while self._changes:
                record, before = self._changes.pop(next(iter(self._changes)))
                yield RowChanged(self._make_row(record), before)
            if self._closed and not self._events:
                return
            await self._wake.wait()
            self._wake = anyio.Event()
