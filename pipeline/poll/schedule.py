"""Which generation to poll next, and when: a heap of due times over slotted entries.

It owns the schedule of one run. It knows no clock (`now` is handed in, in monotonic seconds), no HTTP and
no ledger.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

    from pipeline.poll.intervals import PollPlan
    from pipeline.poll.learner import DurationLearner

RETRY_INTERVALS: Final = 0.1
"""First wait after a poll that failed, in poll intervals; it doubles up to one interval."""

JITTER: Final = 0.1
"""How far a wait (of one interval at most) is scattered to either side, so that generations of one age do
not poll at the same instant."""

EARLY_PROBE_SHARE: Final = 0.05
"""The share of generations whose first poll comes at a random earlier age: they find out in time when
durations have become shorter than anyone remembers."""

DEFER_TOLERANCE: Final = 0.3
"""A poll is put off when a newer plan has it later by this much, in poll intervals."""

RESCHEDULE_THRESHOLD: Final = 0.05
"""A poll is brought forward when a newer plan has it earlier by this much, in poll intervals."""

RESCHEDULE_STRIDE: Final = 4
"""How many waiting polls are held against a new plan at each step; a small heap is done in one go."""

SMALL_BATCH: Final = 256


class _Entry:
    """One tracked generation: born when, last seen running at what age, due when and by which plan.

    `looked` is negative until something is known of a generation that was taken over from an earlier run.
    """

    __slots__ = ("born", "due", "failures", "kind", "looked", "plan")

    def __init__(self, kind: str, born: float, looked: float) -> None:
        self.kind = kind
        self.born = born
        self.looked = looked
        self.due = inf
        self.failures = 0
        self.plan: PollPlan | None = None


class PollSchedule:
    """Tracks generations by key; each is due, or being polled, until it is finished or dropped.

    Whoever takes a key from `pop_due` owes it one of `not_yet`, `poll_failed`, `finished` or `drop`.
    """

    def __init__(self, learner: DurationLearner, *, interval_s: float, random: Random) -> None:
        self._learner = learner
        self._interval_s = interval_s
        self._random = random
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[float, str]] = []
        self._latest: dict[str, PollPlan] = {}
        self._swept = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def add(self, key: str, kind: str, *, now: float, age_s: float = 0.0) -> None:
        """Start tracking `key`, accepted `age_s` ago; an `age_s` above 0 spreads its overdue poll.

        Raises `ValueError` when `key` is tracked already.
        """
        if key in self._entries:
            raise ValueError(f"{key} is tracked already")
        entry = self._entries[key] = _Entry(kind, now - age_s, -1.0 if age_s > 0.0 else 0.0)
        self._learner.on_started(kind)
        if age_s > 0.0:
            self._schedule(key, entry, now + self._random.random() * self._interval_s)
            return
        due = self._next_poll_at(entry)
        if self._random.random() < EARLY_PROBE_SHARE:
            due = now + (due - now) * (0.2 + 0.8 * self._random.random())
            entry.plan = None
        self._schedule(key, entry, due)

    def next_due(self) -> float | None:
        """Return when the earliest poll is due, or None when none is waiting."""
        heap, entries = self._heap, self._entries
        while heap:
            due, key = heap[0]
            entry = entries.get(key)
            if entry is not None and entry.due == due:
                return due
            heappop(heap)
        return None

    def pop_due(self, now: float) -> str | None:
        """Return the next generation to poll by `now`, or None; it is then being polled."""
        while (due := self.next_due()) is not None and due <= now:
            key = heappop(self._heap)[1]
            entry = self._entries[key]
            if not self._defer(key, entry, now):
                entry.due = inf
                return key
        return None

    def take(self, key: str) -> bool:
        """Take a key before its poll is due; return whether it is tracked."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.due = inf
        return entry is not None

    def not_yet(self, key: str, *, now: float) -> None:
        """Record that `key` still ran at `now`, and plan its next poll."""
        entry = self._entries[key]
        age = max(now - entry.born, 0.0)
        if 0.0 <= entry.looked < age:
            self._learner.on_still_running(entry.kind, entry.looked, age)
        entry.looked = age
        entry.failures = 0
        self._schedule(key, entry, self._next_poll_at(entry))
        self._reschedule_all(entry.kind, now)

    def poll_failed(self, key: str, *, now: float, retry_after_s: float | None = None) -> None:
        """Poll again soon, at the pace of this key's consecutive failures, never before `retry_after_s`."""
        entry = self._entries[key]
        wait = (
            min(RETRY_INTERVALS * 2.0**entry.failures, 1.0)
            * self._interval_s
            * (0.5 + self._random.random() / 2.0)
        )
        entry.failures = min(entry.failures + 1, 16)
        entry.plan = None
        self._schedule(key, entry, now + max(wait, retry_after_s or 0.0))

    def finished(self, key: str, *, now: float) -> None:
        """Stop tracking `key`, which ended between its last poll and `now`."""
        entry = self._entries.pop(key)
        self._learner.on_left(entry.kind)
        age = now - entry.born
        if 0.0 <= entry.looked < age:
            self._learner.on_finished(entry.kind, entry.looked, age)
        self._reschedule_all(entry.kind, now)

    def drop(self, key: str, *, now: float) -> None:
        """Stop tracking `key` without a finish; a key that is not tracked is fine."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._learner.on_left(entry.kind)

    def _next_poll_at(self, entry: _Entry) -> float:
        plan = entry.plan = self._learner.plan(entry.kind)
        wait = plan.next_age(entry.looked) - entry.looked
        scatter = JITTER * (2.0 * self._random.random() - 1.0)
        return entry.born + entry.looked + wait + scatter * min(wait, self._interval_s)

    def _schedule(self, key: str, entry: _Entry, due: float) -> None:
        entry.due = due
        heappush(self._heap, (due, key))
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = [(e.due, k) for k, e in self._entries.items() if e.due != inf]
            heapify(self._heap)

    def _defer(self, key: str, entry: _Entry, now: float) -> bool:
        """Move a poll that is due to where the plan of today has it, if that is well later."""
        if entry.plan is None or entry.plan is self._learner.plan(entry.kind):
            return False
        due = self._next_poll_at(entry)
        if due <= now + DEFER_TOLERANCE * self._interval_s:
            return False
        self._schedule(key, entry, due)
        return True

    def _reschedule_all(self, kind: str, now: float) -> None:
        """Bring waiting polls forward to where a newer plan has them, a few at a time."""
        plan = self._learner.plan(kind)
        latest = self._latest.get(kind)
        if latest is not plan:
            self._latest[kind] = plan
            if (
                latest is None
                or len(self._heap) <= SMALL_BATCH
                or plan.polls_sooner_than(latest, DEFER_TOLERANCE)
            ):
                self._swept = 0
        if self._swept >= len(self._heap):
            return
        stop = self._swept + (RESCHEDULE_STRIDE if len(self._heap) > SMALL_BATCH else 2 * SMALL_BATCH)
        for due, key in self._heap[self._swept : stop]:
            entry = self._entries.get(key)
            if entry is not None and entry.due == due and entry.plan is not None:
                self._reschedule_sooner(key, entry, now)
        self._swept = stop

    def _reschedule_sooner(self, key: str, entry: _Entry, now: float) -> None:
        plan = self._learner.plan(entry.kind)
        if entry.plan is plan:
            return
        due = entry.born + plan.next_age(entry.looked)
        if due >= entry.due - RESCHEDULE_THRESHOLD * self._interval_s:
            return
        if due <= now:
            age = now - entry.born
            due = min(entry.due, now + self._random.random() * (plan.next_age(age) - age))
        entry.plan = plan
        self._schedule(key, entry, due)
