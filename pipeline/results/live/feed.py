"""What changed since when: the memory behind the live page.

Owns the order of changes. An observer of the run on one side; on the other, every listener asks for what
came after the last thing it saw, so that a page that lost its connection misses nothing. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from pipeline.events import Event, Topic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.model import Record


class Feed:
    """An observer that numbers changes; to be used from the loop's own thread.

    Numbers mean nothing to another process, so a mark carries this one's name.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = {record.key: record for record in records}
        self._changed: dict[str, int] = {}
        self._count = 0
        self._name = secrets.token_hex(4)
        self._bell = asyncio.Event()
        self.throttled = 0
        self.over = False

    def moved(self, before: Record, after: Record) -> None:
        self._count += 1
        self._records[after.key] = after
        self._changed.pop(after.key, None)
        self._changed[after.key] = self._count
        self._ring()

    def said(self, event: Event) -> None:
        if event.topic is Topic.THROTTLED:
            self.throttled += 1

    def end(self) -> None:
        """Say that nothing will change any more; listeners get the last changes and are let go."""
        self.over = True
        self._ring()

    @property
    def mark(self) -> str:
        """Where the feed stands now, for `since`."""
        return f"{self._name}-{self._count}"

    def records(self) -> list[Record]:
        """Return every record as it stands now."""
        return list(self._records.values())

    def since(self, mark: str) -> list[Record]:
        """Return what changed after `mark`, the oldest change first; everything for a foreign mark."""
        name, _, number = mark.rpartition("-")
        if name != self._name or not number.isdecimal():
            return self.records()
        newer = []
        for key in reversed(self._changed):
            if self._changed[key] <= int(number):
                break
            newer.append(self._records[key])
        return newer[::-1]

    async def changes(self, within_s: float) -> bool:
        """Wait for the next change or the end; return False when none came in `within_s` seconds."""
        bell = self._bell
        try:
            async with asyncio.timeout(within_s):
                await bell.wait()
        except TimeoutError:
            return False
        return True

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()
