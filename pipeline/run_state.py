"""What is alive in a run: records, queues and counts, changed by plain calls. No IO, no clock, no loop.

The end of a queue is not the end of the work, since rows come back (a create refused for the moment, a row
in doubt settled, a generation retried); `busy` counts what is alive instead.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any

from pipeline.errors import StopReason
from pipeline.model import Record, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    `stop_reason` and `message` say why it stopped submitting, `unfinished` why rows stay open. `unselected`
    are rows, pending or failed before, that it was not to submit.
    """

    records: tuple[Record, ...]
    stop_reason: StopReason | None
    message: str
    unfinished: Mapping[str, str]
    unselected: frozenset[str] = frozenset()

    @property
    def open_rows(self) -> tuple[Record, ...]:
        """Rows that another run has to go on with; those that this one was not asked for do not count."""
        final = (State.DONE, State.FAILED)
        return tuple(
            r
            for r in self.records
            if r.state not in final
            and not (r.state is State.PENDING and (r.position < 0 or r.key in self.unselected))
        )


@dataclass(slots=True)
class RunState:
    """The run's state.

    `submittable` holds the keys of the rows that may be submitted, however often; None is all. It may grow.
    `in_flight` holds the keys of rows that may be rendering, whether or not anybody still watches them: a
    slot is free again only once its generation is known to have ended. `tracked` counts those the run
    waits for. `overdue` are past their deadline: the run does not wait for them, and `unfinished` says so.
    `unknown` are polled on although the vendor has not known them for minutes, each with the time of its
    first 404: its log is asked about them; `missing` are those it does not know while it knows others.
    `status_known_at` is when any status was last answered.
    `slots` is how many may be in flight at most. `doubt_began` has the run's time of each doubt that arose
    in it, by correlation id. `submissions` are the correlation ids of the run's submissions in their order,
    "" where the result is not known.
    `pending` and `refused` hold, in heaps, when a row that waits may be submitted, its place and its key;
    `refused` has those that were refused for the moment.
    `may_come_back` failed by a create's 404, which may turn out to be no fault of theirs.
    No create starts before `paused_until`, on the run's clock.
    `budget_exhausted`: the budget has room for another row only once a row in doubt is settled.
    While `expects_more` is set, rows may still come in, and the run does not end for want of them.
    """

    records: dict[str, Record]
    submittable: AbstractSet[str] | None = None
    pending: list[tuple[float, int, str]] = field(default_factory=list)
    refused: list[tuple[float, int, str]] = field(default_factory=list)
    in_doubt: set[str] = field(default_factory=set)
    doubt_began: dict[str, float] = field(default_factory=dict)
    submissions: list[str] = field(default_factory=list)
    unfinished: dict[str, str] = field(default_factory=dict)
    overdue: set[str] = field(default_factory=set)
    unknown: dict[str, float] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    status_known_at: float = -inf
    poll_counts: Counter[str] = field(default_factory=Counter)
    not_yet_at: dict[str, float] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)
    may_come_back: set[str] = field(default_factory=set)
    slots: float = inf
    submitting: int = 0
    tracked: int = 0
    finishing: int = 0
    downloading: int = 0
    checking_artifacts: int = 0
    paused_until: float = 0.0
    stop_requested: bool = False
    budget_exhausted: bool = False
    expects_more: bool = False
    stop_reason: StopReason | None = None
    stop_message: str = ""

    @classmethod
    def from_records(cls, records: Iterable[Record], submittable: frozenset[str] | None = None) -> RunState:
        """Return a state in which every pending row of the manifest that is `submittable` is queued."""
        state = cls({record.key: record for record in records}, submittable)
        for record in state.records.values():
            if record.state is State.PENDING:
                state.queue(record)
        return state

    def queue(self, record: Record, not_before: float = 0.0, *, refused: bool = False) -> None:
        """Queue a pending row, unless this run is not to submit it."""
        if self.may_submit(record):
            queue = self.refused if refused else self.pending
            heapq.heappush(queue, (not_before, record.position, record.key))

    def may_submit(self, record: Record) -> bool:
        """Return whether a row is of the manifest, and selected."""
        return record.position >= 0 and (self.submittable is None or record.key in self.submittable)

    def next_pending(self, now: float, *, refused_first: bool = False) -> tuple[Record | None, float | None]:
        """Return (the first row whose time has come, None), or (None, when the next one's comes).

        With `refused_first`, rows that were refused for the moment come before others once theirs has come.
        """
        queue = self._next_queue(now, refused_first=refused_first)
        if not queue:
            return None, None
        not_before, _, key = queue[0]
        return (None, not_before) if not_before > now else (self.records[key], None)

    def _next_queue(self, now: float, *, refused_first: bool) -> list[tuple[float, int, str]]:
        for queue in (self.pending, self.refused):
            while queue and self.records[queue[0][2]].state is not State.PENDING:
                heapq.heappop(queue)
        if not self.pending or not self.refused:
            return self.pending or self.refused
        is_first = refused_first and self.refused[0][0] <= now
        return self.refused if is_first else min(self.pending, self.refused)

    def pop_pending(self, record: Record) -> None:
        """Remove the row that `next_pending` returned from the queue."""
        is_refused = self.refused and self.refused[0][2] == record.key
        heapq.heappop(self.refused if is_refused else self.pending)

    def begin_submission(self) -> int:
        """Return the place in `submissions` of one that begins now."""
        self.submissions.append("")
        return len(self.submissions) - 1

    def submission_order(self) -> dict[str, int]:
        """Return the places of the run's submissions by correlation id."""
        # Without "": else a row that has no correlation id would help to prove another one's absence.
        return {known: place for place, known in enumerate(self.submissions) if known}

    def stop_submitting(self, reason: StopReason, message: str) -> bool:
        """Stop submitting; the first reason is kept. Return whether this was the first."""
        if self.stop_reason is not None:
            return False
        self.stop_reason, self.stop_message = reason, message
        return True

    def busy(self) -> bool:
        """Return whether anything but rows in doubt is alive, or may come."""
        return self.expects_more or self.has_work()

    def has_work(self) -> bool:
        """Whether anything but rows in doubt is alive: work under way, or a row that can be submitted."""
        can_submit = self.stop_reason is None and not self.budget_exhausted and not self.slots_held()
        return (self._queued_count() > 0 and can_submit) or self._active_count() > 0

    def slots_held(self) -> bool:
        """Whether every slot belongs to a row that this run no longer waits for, so that none comes back."""
        return len(self.in_flight) - self.tracked + len(self.in_doubt) >= self.slots

    def open_count(self) -> int:
        """Return how many rows are queued or under way."""
        return self._queued_count() + self.started_count()

    def _queued_count(self) -> int:
        return len(self.pending) + len(self.refused)

    def started_count(self) -> int:
        """Return how many rows are under way or in doubt."""
        return self._active_count() + len(self.in_doubt)

    def _active_count(self) -> int:
        return self.submitting + self.tracked + self.finishing + self.downloading + self.checking_artifacts

    def occupied_slots(self) -> int:
        """Return how many of the account's slots are taken, or may be: rows in doubt count."""
        # Not the union: each create asks, and a hundred thousand may be in flight.
        return len(self.in_flight) + len(self.in_doubt - self.in_flight)

    def waiting_count(self) -> float:
        """Return how many rows wait for a slot; inf while others may still come in."""
        if self.expects_more:
            return inf
        return self._queued_count() if self.stop_reason is None and not self.budget_exhausted else 0

    def submittable_count(self, now: float, limit: int) -> int:
        """Return how many rows could be submitted now, counted no further than `limit`."""
        count = 0
        for not_before, _, key in chain(self.pending, self.refused):
            record = self.records.get(key)
            count += not_before <= now and record is not None and record.state is State.PENDING
            if count >= limit:
                break
        return count

    def take_poll_stats(self, record: Record) -> dict[str, Any]:
        """Return, and forget, what polls have shown of a record and no transition has written yet."""
        # Polls change no state, so that they cost no write of their own: they go along with the next one.
        changes: dict[str, Any] = {"polls": record.polls + self.poll_counts.pop(record.key, 0)}
        if record.key in self.not_yet_at:
            changes["not_yet_at"] = self.not_yet_at.pop(record.key)
        return changes

    def outcome(self) -> RunOutcome:
        """Return how the run ended, with its records in the manifest's order."""
        reason, message = self.stop_reason, self.stop_message
        if reason is None and self.in_doubt:
            reason, message = StopReason.IN_DOUBT, f"{len(self.in_doubt)} row(s) in doubt"
        if reason is None and self.unfinished:
            key, detail = next(iter(self.unfinished.items()))
            reason = StopReason.DEADLINE if self.overdue else StopReason.UNFINISHED
            suffix = f", and {len(self.unfinished) - 1} more" if len(self.unfinished) > 1 else ""
            message = f"{self.records[key].id}: {detail}{suffix}"
        records = tuple(self.records.values())
        return RunOutcome(
            records, reason, message, dict(self.unfinished), unselected(records, self.submittable)
        )


def unselected(records: Iterable[Record], submittable: AbstractSet[str] | None) -> frozenset[str]:
    """Return the keys of the pending rows that a run is not to submit; `submittable` None is all."""
    if submittable is None:
        return frozenset()
    pending = (record.key for record in records if record.state is State.PENDING)
    return frozenset(key for key in pending if key not in submittable)
