"""What changed since when: the memory behind the live page.

Owns the order of changes. An observer of the run on one side; on the other, every listener asks for what
came after the last thing it saw, so that a page that lost its connection misses nothing. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline import clocks
from pipeline.events import Event, Topic
from pipeline.results.live.running_sums import RunningSums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.model import Pick, Record


class ChangeFeed:
    """An observer that numbers changes; to be used from the loop's own thread.

    Numbers mean nothing to another process, so a mark carries this one's name.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = {record.key: record for record in records}
        self.sums = RunningSums(self._records)
        self._last_change_no: dict[str, int] = {}
        self._change_count = 0
        self._instance_id = clocks.token_hex(4)
        self._change_event = asyncio.Event()
        self.rate_limited_count = 0
        self.closed = False

    def on_transition(self, before: Record, after: Record) -> None:
        known = self._records.get(after.key)
        if known is not None and (known.pick, known.pick_note) != (after.pick, after.pick_note):
            after = replace(
                after, pick=known.pick, pick_note=known.pick_note
            )  # the run does not follow picks
        self._record_change(after)
        self._notify()

    def set_picks(self, picks: Mapping[str, Pick]) -> None:
        """Take over what reviewers say, by key."""
        for key, (pick, note) in picks.items():
            self._record_change(replace(self._records[key], pick=pick, pick_note=note))
        if picks:
            self._notify()

    def _record_change(self, after: Record) -> None:
        self._change_count += 1
        before, self._records[after.key] = self._records.get(after.key), after
        self.sums.replace(before, after)
        self._last_change_no.pop(after.key, None)
        self._last_change_no[after.key] = self._change_count

    def on_event(self, event: Event) -> None:
        if event.topic is Topic.THROTTLED:
            self.rate_limited_count += 1

    def close(self) -> None:
        """Say that nothing will change any more; listeners get the last changes and are let go."""
        self.closed = True
        self._notify()

    @property
    def cursor(self) -> str:
        """Where the feed stands now, for `since`."""
        return f"{self._instance_id}-{self._change_count}"

    def records(self) -> list[Record]:
        """Return every record as it stands now."""
        return list(self._records.values())

    def since(self, cursor: str) -> list[Record]:
        """Return what changed after `mark`, the oldest change first; everything for a foreign mark."""
        name, _, number = cursor.rpartition("-")
        if name != self._instance_id or not number.isdecimal():
            return self.records()
        newer = []
        for key in reversed(self._last_change_no):
            if self._last_change_no[key] <= int(number):
                break
            newer.append(self._records[key])
        return newer[::-1]

    async def wait_changed(self, timeout_s: float) -> bool:
        """Wait for the next change or the end; return False when none came in `within_s` seconds."""
        change_event = self._change_event
        try:
            async with asyncio.timeout(timeout_s):
                await change_event.wait()
        except TimeoutError:
            return False
        return True

    def _notify(self) -> None:
        self._change_event.set()
        self._change_event = asyncio.Event()
