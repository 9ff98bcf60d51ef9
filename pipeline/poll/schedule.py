"""Which generation to poll next, and when: a heap of due times over slotted entries.

It owns the schedule of one run. It knows no clock (`now` is handed in, in monotonic seconds), no HTTP and
no ledger.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Final

from pipeline.poll.poll_times import delay_urgency

if TYPE_CHECKING:
    from random import Random

    from pipeline.poll.learner import DurationLearner
    from pipeline.poll.poll_times import PollTimes

RETRY_INTERVALS: Final = 0.1
"""First wait after a poll that failed, in poll intervals; it doubles up to one interval."""

JITTER: Final = 0.1
"""How far a wait (of one interval at most) is scattered to either side, so that generations of one age do
not poll at the same instant."""

EARLY_PROBE_SHARE: Final = 0.03
"""The share of generations whose first poll comes at a random earlier age: they find out in time when
durations have become shorter than anyone remembers."""

DEFER_TOLERANCE: Final = 0.3
"""A poll is put off when the newest times have it later by this much, in poll intervals."""

RESCHEDULE_THRESHOLD: Final = 0.05
"""A poll is brought forward when the newest times have it earlier by this much, in poll intervals."""

RESCHEDULE_STRIDE: Final = 4
"""How many waiting polls are held against new times at each step; a small heap is done in one go."""

SMALL_HEAP_SIZE: Final = 256


class _Entry:
    """One tracked generation: accepted when, last polled at what age, due when and by which times.

    `last_polled_age_s` is negative until something is known of a generation that was taken over from an
    earlier run.
    """

    __slots__ = ("accepted_at", "due_at", "duration_key", "failures", "last_polled_age_s", "times")

    def __init__(self, duration_key: str, accepted_at: float, last_polled_age_s: float) -> None:
        self.duration_key = duration_key
        self.accepted_at = accepted_at
        self.last_polled_age_s = last_polled_age_s
        self.due_at = inf
        self.failures = 0
        self.times: PollTimes | None = None


class PollSchedule:
    """Tracks generations by key; each is due, or being polled, until it is finished or dropped.

    Whoever takes a key from `pop_due` owes it one of `still_running`, `poll_again`, `finished` or `drop`.
    """

    def __init__(self, learner: DurationLearner, *, interval_s: float, random: Random) -> None:
        self._learner = learner
        self._interval_s = interval_s
        self._random = random
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[float, str]] = []
        self._latest_times: dict[str, PollTimes] = {}
        self._rescheduled_count = 0
        self._most_tracked = 0
        self._urgency = 1.0
        self.waiting: float = inf
        """How many rows wait for a slot, as far as the run knows; it is set from outside."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def add(self, key: str, duration_key: str, *, now: float, age_s: float = 0.0) -> None:
        """Start tracking `key`, accepted `age_s` ago; an `age_s` above 0 spreads its overdue poll.

        Raises `ValueError` when `key` is tracked already.
        """
        if key in self._entries:
            raise ValueError(f"{key} is tracked already")
        entry = self._entries[key] = _Entry(duration_key, now - age_s, -1.0 if age_s > 0.0 else 0.0)
        self._learner.on_started(duration_key)
        self._weigh_delay()
        if age_s > 0.0:
            self._schedule(key, entry, now + self._random.random() * self._interval_s)
            return
        due = self._next_poll_at(entry)
        if self._random.random() < EARLY_PROBE_SHARE:
            due = now + (due - now) * (0.2 + 0.8 * self._random.random())
            entry.times = None
        self._schedule(key, entry, due)

    def next_due(self) -> float | None:
        """Return when the earliest poll is due, or None when none is waiting."""
        heap, entries = self._heap, self._entries
        while heap:
            due, key = heap[0]
            entry = entries.get(key)
            if entry is not None and entry.due_at == due:
                return due
            heappop(heap)
        return None

    def pop_due(self, now: float) -> str | None:
        """Return the next generation to poll by `now`, or None; it is then being polled."""
        while (due := self.next_due()) is not None and due <= now:
            key = heappop(self._heap)[1]
            entry = self._entries[key]
            if not self._defer(key, entry, now):
                entry.due_at = inf
                return key
        return None

    def take(self, key: str) -> bool:
        """Take a key before its poll is due; return whether it is tracked."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.due_at = inf
        return entry is not None

    def still_running(self, key: str, *, now: float) -> None:
        """Record that `key` still ran at `now`, and plan its next poll."""
        entry = self._entries[key]
        age = max(now - entry.accepted_at, 0.0)
        if 0.0 <= entry.last_polled_age_s < age:
            self._learner.on_still_running(entry.duration_key, entry.last_polled_age_s, age)
        entry.last_polled_age_s = age
        entry.failures = 0
        self._schedule(key, entry, self._next_poll_at(entry))
        self._reschedule_all(entry.duration_key, now)

    def poll_again(self, key: str, *, now: float, retry_after_s: float | None = None) -> None:
        """Poll again soon, at the pace of this key's consecutive failures, never before `retry_after_s`."""
        entry = self._entries[key]
        delay_s = (
            min(RETRY_INTERVALS * 2.0**entry.failures, 1.0)
            * self._interval_s
            * (0.5 + self._random.random() / 2.0)
        )
        entry.failures = min(entry.failures + 1, 16)
        entry.times = None
        self._schedule(key, entry, now + max(delay_s, retry_after_s or 0.0))

    def finished(self, key: str, *, now: float) -> None:
        """Stop tracking `key`, which ended between its last poll and `now`."""
        entry = self._entries.pop(key)
        self._learner.on_left(entry.duration_key)
        self._weigh_delay()
        age = now - entry.accepted_at
        if 0.0 <= entry.last_polled_age_s < age:
            self._learner.on_finished(entry.duration_key, entry.last_polled_age_s, age)
        self._reschedule_all(entry.duration_key, now)

    def drop(self, key: str, *, now: float) -> None:
        """Stop tracking `key` without a finish; a key that is not tracked is fine."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._learner.on_left(entry.duration_key)
            self._weigh_delay()
            self._reschedule_all(entry.duration_key, now)

    def _weigh_delay(self) -> None:
        self._most_tracked = max(self._most_tracked, len(self._entries))
        self._urgency = delay_urgency(self.waiting, len(self._entries), self._most_tracked)

    def _times(self, duration_key: str) -> PollTimes:
        return self._learner.poll_times(duration_key, self._urgency)

    def _next_poll_at(self, entry: _Entry) -> float:
        times = entry.times = self._times(entry.duration_key)
        delay_s = times.next_poll_age(entry.last_polled_age_s) - entry.last_polled_age_s
        # Generations accepted together would otherwise be polled together until they end.
        jitter = JITTER * (2.0 * self._random.random() - 1.0)
        return entry.accepted_at + entry.last_polled_age_s + delay_s + jitter * min(delay_s, self._interval_s)

    def _schedule(self, key: str, entry: _Entry, due: float) -> None:
        entry.due_at = due
        heappush(self._heap, (due, key))
        # Rescheduling leaves the old entry in the heap, which is rebuilt once old ones outnumber the rest.
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = [(e.due_at, k) for k, e in self._entries.items() if e.due_at != inf]
            heapify(self._heap)

    def _defer(self, key: str, entry: _Entry, now: float) -> bool:
        """Put off a poll that is due, when the newest poll times have it well later."""
        if entry.times is None or entry.times is self._times(entry.duration_key):
            return False
        due = self._next_poll_at(entry)
        if due <= now + DEFER_TOLERANCE * self._interval_s:
            return False
        self._schedule(key, entry, due)
        return True

    def _reschedule_all(self, duration_key: str, now: float) -> None:
        """Bring waiting polls forward to their newest times, a few at each call."""
        times = self._times(duration_key)
        previous = self._latest_times.get(duration_key)
        if previous is not times:
            self._latest_times[duration_key] = times
            if (
                previous is None
                or len(self._heap) <= SMALL_HEAP_SIZE
                or times.polls_sooner_than(previous, DEFER_TOLERANCE)
            ):
                self._rescheduled_count = 0
        if self._rescheduled_count >= len(self._heap):
            return
        stop = self._rescheduled_count + (
            RESCHEDULE_STRIDE if len(self._heap) > SMALL_HEAP_SIZE else 2 * SMALL_HEAP_SIZE
        )
        # In order of the heap, so that those that are due next are seen to first.
        for due, key in self._heap[self._rescheduled_count : stop]:
            entry = self._entries.get(key)
            if entry is not None and entry.due_at == due and entry.times is not None:
                self._reschedule_sooner(key, entry, now)
        self._rescheduled_count = stop

    def _reschedule_sooner(self, key: str, entry: _Entry, now: float) -> None:
        times = self._times(entry.duration_key)
        if entry.times is times:
            return
        due = entry.accepted_at + times.next_poll_age(entry.last_polled_age_s)
        if due >= entry.due_at - RESCHEDULE_THRESHOLD * self._interval_s:
            return
        # New times may make hundreds due at once; a rate limit would answer such a burst with 429.
        if due <= now:
            age = now - entry.accepted_at
            due = min(entry.due_at, now + self._random.random() * (times.next_poll_age(age) - age))
        entry.times = times
        self._schedule(key, entry, due)
