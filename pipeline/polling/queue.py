"""Which generation to look at next, and when: a heap of due times over slotted entries.

It owns the schedule of one run. It knows no clock (`now` is handed in, monotonic seconds), no HTTP and
no ledger.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

    from pipeline.polling.learner import DurationLearner

RETRY: Final = 0.1
"""First wait after a look that failed, in poll intervals; it doubles up to one interval."""

JITTER: Final = 0.15
"""How far a step is scattered to either side, so that equal ages do not look at the same instant."""


class _Entry:
    """One tracked generation: when it was born, the age of its last look, when the next one is due."""

    __slots__ = ("born", "due", "failures", "kind", "looked")

    def __init__(self, kind: str, born: float, looked: float) -> None:
        self.kind = kind
        self.born = born
        self.looked = looked
        self.due = inf
        self.failures = 0


class PollQueue:
    """Tracks generations by key; each is due, or being looked at, until it is finished or dropped.

    Whoever takes a key from `pop_due` owes it one of `not_yet`, `look_failed`, `finished` or `drop`.
    """

    def __init__(self, learner: DurationLearner, *, interval_s: float, random: Random) -> None:
        self._learner = learner
        self._interval_s = interval_s
        self._random = random
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def age_s(self, key: str, now: float) -> float:
        """Return how long ago `key` was accepted. Raises `KeyError` for a key that is not tracked."""
        return now - self._entries[key].born

    def add(self, key: str, kind: str, *, now: float, age_s: float = 0.0) -> None:
        """Start tracking `key`, accepted `age_s` ago; an `age_s` above 0 spreads its overdue look."""
        entry = self._entries[key] = _Entry(kind, now - age_s, age_s)
        if age_s > 0:
            self._schedule(key, entry, now + self._random.random() * self._interval_s)
        else:
            self._schedule(key, entry, now + self._next_wait_s(entry, 0.0))

    def next_due(self) -> float | None:
        """Return when the earliest look is due, or None when none is waiting."""
        heap, entries = self._heap, self._entries
        while heap:
            due, key = heap[0]
            entry = entries.get(key)
            if entry is not None and entry.due == due:
                return due
            heappop(heap)
        return None

    def pop_due(self, now: float) -> str | None:
        """Return the next generation to look at by `now`, or None; it is then being looked at."""
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heappop(self._heap)[1]
        self._entries[key].due = inf
        return key

    def not_yet(self, key: str, *, now: float) -> None:
        """Take note that `key` still ran at `now`, and plan its next look."""
        entry = self._entries[key]
        age = now - entry.born
        self._learner.survived(entry.kind, entry.looked, age)
        entry.looked = age
        entry.failures = 0
        self._schedule(key, entry, now + self._next_wait_s(entry, age))

    def look_failed(self, key: str, *, now: float, retry_after_s: float | None = None) -> None:
        """Look again soon, at the pace of this key's consecutive failures, never before `retry_after_s`."""
        entry = self._entries[key]
        wait = min(RETRY * 2.0**entry.failures, 1.0) * self._interval_s * (0.5 + self._random.random())
        entry.failures = min(entry.failures + 1, 16)
        self._schedule(key, entry, now + max(wait, retry_after_s or 0.0))

    def finished(self, key: str, *, now: float) -> None:
        """Stop tracking `key`, which ended between its last look and `now`."""
        entry = self._entries.pop(key)
        self._learner.ended(entry.kind, entry.looked, now - entry.born)

    def drop(self, key: str, *, now: float) -> None:
        """Stop tracking `key` without a finish; unknown keys are fine."""
        self._entries.pop(key, None)

    def _next_wait_s(self, entry: _Entry, age: float) -> float:
        share = 1.0 + JITTER * (2.0 * self._random.random() - 1.0)
        return self._learner.plan(entry.kind).next_age(age, share) - age

    def _schedule(self, key: str, entry: _Entry, due: float) -> None:
        entry.due = due
        heappush(self._heap, (due, key))
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = [(e.due, k) for k, e in self._entries.items() if e.due != inf]
            heapify(self._heap)
