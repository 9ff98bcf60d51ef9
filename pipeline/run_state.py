"""What is alive in a run: records, queues and counts, moved by plain calls. No IO, no clock, no loop.

The end of a queue is not the end of the work, since rows come back (a create refused for the moment, a
doubt resolved, a generation retried); `busy` counts what is alive instead.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import StopReason
from pipeline.model import Record, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended. `stop` and `message` say why it submitted no more; `left` why rows stay open."""

    records: tuple[Record, ...]
    stop_reason: StopReason | None
    message: str
    unfinished: Mapping[str, str]

    @property
    def open_rows(self) -> tuple[Record, ...]:
        """Rows that another run has to go on with."""
        final = (State.DONE, State.FAILED)
        return tuple(
            r
            for r in self.records
            if r.state not in final and not (r.position < 0 and r.state is State.PENDING)
        )


@dataclass(slots=True)
class RunState:
    """The run's state. `generating` counts generations accepted and not noticed as finished.

    `doubt_began` has the run's time of each doubt that arose in it, `submission_order` counts the run's
    submissions, both by correlation id. No create starts before `paused_until`, on the run's clock.
    `no_room` says that the budget has room for another row only once a row in doubt is settled.
    While it is `expecting`, rows may still come in, and the run does not end for want of them.
    """

    records: dict[str, Record]
    pending: list[tuple[float, int, str]] = field(default_factory=list)
    in_doubt: set[str] = field(default_factory=set)
    doubt_began: dict[str, float] = field(default_factory=dict)
    submission_order: dict[str, int] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)
    overdue: set[str] = field(default_factory=set)
    poll_counts: Counter[str] = field(default_factory=Counter)
    not_yet_at: dict[str, float] = field(default_factory=dict)
    submitting: int = 0
    generating: int = 0
    tracked: int = 0
    settling: int = 0
    downloading: int = 0
    checking: int = 0
    paused_until: float = 0.0
    stop_requested: bool = False
    budget_exhausted: bool = False
    expects_more: bool = False
    stop_reason: StopReason | None = None
    stop_message: str = ""

    @classmethod
    def of(cls, records: Iterable[Record]) -> RunState:
        """Return a board on which every pending row of the manifest waits for its turn."""
        board = cls({record.key: record for record in records})
        for record in board.records.values():
            if record.state is State.PENDING:
                board.queue(record)
        return board

    def queue(self, record: Record, not_before: float = 0.0) -> None:
        """Let a pending row wait for its turn; rows that left the manifest are not submitted."""
        if record.position >= 0:
            heapq.heappush(self.pending, (not_before, record.position, record.key))

    def next_pending(self, now: float) -> tuple[Record | None, float | None]:
        """Return (the first row whose time has come, None), or (None, when the next one's comes)."""
        while self.pending:
            not_before, _, key = self.pending[0]
            record = self.records[key]
            if record.state is not State.PENDING:
                heapq.heappop(self.pending)
            elif not_before > now:
                return None, not_before
            else:
                return record, None
        return None, None

    def take(self, record: Record) -> None:
        """Take the row that `next_pending` returned."""
        heapq.heappop(self.pending)

    def stop_submitting(self, reason: StopReason, message: str) -> bool:
        """Stop submitting; the first reason is kept. Return whether this was the first."""
        if self.stop_reason is not None:
            return False
        self.stop_reason, self.stop_message = reason, message
        return True

    def busy(self) -> bool:
        """Say whether anything but doubts is alive, or may come."""
        return self.expects_more or self.has_work()

    def has_work(self) -> bool:
        """Say whether anything but doubts is alive."""
        waiting = bool(self.pending) and self.stop_reason is None and not self.budget_exhausted
        return waiting or self._active_count() > 0

    def open_count(self) -> int:
        """Return how many rows are here that are neither done with nor left."""
        return len(self.pending) + self.started_count()

    def started_count(self) -> int:
        """Return how many of the rows held do not wait to be submitted."""
        return self._active_count() + len(self.in_doubt)

    def _active_count(self) -> int:
        return self.submitting + self.tracked + self.settling + self.downloading + self.checking

    def occupied_slots(self) -> int:
        """Return how many of the account's slots are taken, or may be: what is in doubt counts."""
        return self.generating + len(self.in_doubt)

    def submittable_count(self, now: float, limit: int) -> int:
        """Return how many rows could be submitted now, counted no further than `most`."""
        found = 0
        for not_before, _, key in self.pending:
            record = self.records.get(key)
            found += not_before <= now and record is not None and record.state is State.PENDING
            if found >= limit:
                break
        return found

    def take_poll_stats(self, record: Record) -> dict[str, Any]:
        """Return, and forget, what looks have learned of a record and no transition has written yet."""
        changes: dict[str, Any] = {"polls": record.polls + self.poll_counts.pop(record.key, 0)}
        if record.key in self.not_yet_at:
            changes["not_yet_at"] = self.not_yet_at.pop(record.key)
        return changes

    def outcome(self) -> RunOutcome:
        """Return how things stand, in the manifest's order."""
        stop, message = self.stop_reason, self.stop_message
        if stop is None and self.in_doubt:
            stop, message = StopReason.IN_DOUBT, f"{len(self.in_doubt)} row(s) in doubt"
        if stop is None and self.unfinished:
            key, why = next(iter(self.unfinished.items()))
            stop = StopReason.DEADLINE if self.overdue else StopReason.UNFINISHED
            more = f", and {len(self.unfinished) - 1} more" if len(self.unfinished) > 1 else ""
            message = f"{self.records[key].id}: {why}{more}"
        return RunOutcome(tuple(self.records.values()), stop, message, dict(self.unfinished))
