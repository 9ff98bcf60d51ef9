"""How long the rest of a run will take, from what this run and earlier ones have seen.

Owns the observations alone: since when generations run, how long ended ones took, how many rows wait.
What follows from them is up to `finish_simulation`. Knows neither the engine nor the terminal; as an observer
it sees records move, which is all that the driver of a cluster sees too.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from statistics import median
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.events import Topic
from pipeline.model import Record, State, render_duration_s
from pipeline.poll.duration_distribution import fit_distribution
from pipeline.poll.duration_key import record_duration_key
from pipeline.poll.finish_simulation import time_left_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.events import Event
    from pipeline.poll.duration_distribution import DurationDistribution
    from pipeline.poll.learner import DurationLearner

_MAX_SAMPLES: Final = 2000
_CACHED_SAMPLES: Final = 24
"""How many rendering times stand for what earlier runs have left in the cache."""

_MAX_DURATION_KEYS: Final = 8
"""Duration keys kept apart; all others count as one."""

_DEFAULT_RENDER_INTERVALS: Final = 8.0
"""The rendering time to expect before anything is known, in poll intervals: the vendor's sample run."""

_STALE_FACTOR: Final = 2.0
_STALE_GRACE_INTERVALS: Final = 6.0
"""A generation taken over from an earlier run that is older than the slowest seen by this factor has ended
long ago, and will be found so within so many poll intervals."""

_MIN_REFRESH_S: Final = 1.0
_REFRESH_COST_FACTOR: Final = 50.0
"""An estimate holds for a second, or for so many times as long as it took to make."""

_MIN_RENDER_S: Final = 0.01
_NOT_ACCEPTED: Final = frozenset({State.PENDING, State.SUBMITTING})
_RENDER_FINISHED: Final = frozenset({State.READY, State.DONE})


class _RenderTimes:
    """Rendering times under one duration key: those of earlier runs, and the latest of this one."""

    __slots__ = ("_arrival_order", "cached", "observed")

    def __init__(self, cached: list[float]) -> None:
        self.cached = cached
        self.observed: list[float] = []
        self._arrival_order: deque[float] = deque()

    def add(self, duration_s: float) -> None:
        insort(self.observed, duration_s)
        self._arrival_order.append(duration_s)
        if len(self._arrival_order) > _MAX_SAMPLES:
            self.observed.remove(self._arrival_order.popleft())


class EtaEstimator:
    """An observer that returns, when called, the seconds that are left; None while that is unknown.

    `concurrency` is how many generations may be in flight; fewer count when the vendor lets fewer in.
    `interval_s` is the pace of polls before anything is known, `learner` holds what earlier runs have learned
    of durations (it is read now and not again), `wall` is the clock that the records' times are on.
    """

    def __init__(
        self,
        records: Iterable[Record],
        concurrency: int,
        *,
        interval_s: float = 10.0,
        learner: DurationLearner | None = None,
        wall: Callable[[], float] = clocks.wall,
    ) -> None:
        self._wall = wall
        self._concurrency = concurrency
        self._interval_s = interval_s
        self._learner = learner
        self._started_at = wall()
        self._render_times: dict[str, _RenderTimes] = {}
        self._rendering: dict[str, dict[str, float]] = {}
        self._queued: dict[str, str] = {}
        self._queued_counts: Counter[str] = Counter()
        self._ready: set[str] = set()
        self._in_doubt: set[str] = set()
        self._download_s = 0.0
        self._stopped = False
        self._last_estimate: tuple[float, float | None] = (float("-inf"), None)
        self._valid_until = float("-inf")
        self._peak_in_flight = 0
        done: deque[Record] = deque(maxlen=_MAX_SAMPLES * _MAX_DURATION_KEYS)
        for record in records:
            if record.state is State.DONE:
                done.append(record)  # not looked at further: a large batch may have a hundred thousand
            else:
                self._track(record)
        for record in done:
            self._add_sample(record)

    def on_transition(self, before: Record, after: Record) -> None:
        self._track(after)
        if after.state in _RENDER_FINISHED and before.state not in _RENDER_FINISHED:
            self._add_sample(after)
        if after.state is State.DONE and after.downloaded_at is not None and after.finished_at is not None:
            self._download_s += 0.2 * (after.downloaded_at - after.finished_at - self._download_s)

    def on_event(self, event: Event) -> None:
        """Once a run has stopped submitting, only what is paid is still to come."""
        if event.topic is Topic.STOPPING:
            self._stopped = True
            self._valid_until = float("-inf")

    def __call__(self) -> float | None:
        now = self._wall()
        if now >= self._valid_until:
            began = clocks.monotonic()
            self._last_estimate = (now, self._estimate(now))
            self._valid_until = now + max(_MIN_REFRESH_S, _REFRESH_COST_FACTOR * (clocks.monotonic() - began))
        made_at, left = self._last_estimate
        return None if left is None else max(0.0, left - (now - made_at))

    def _track(self, record: Record) -> None:
        key = record.key
        known = next(
            (kind for kind, begun in self._rendering.items() if begun.pop(key, None) is not None), ""
        )
        if key in self._queued:
            known = self._queued.pop(key)
            self._queued_counts[known] -= 1
            if not self._queued:
                self._queued.clear()  # it keeps the room of all that it ever held
        self._ready.discard(key)
        self._in_doubt.discard(key)
        if record.state is State.GENERATING and record.submitted_at is not None:
            self._rendering.setdefault(known or self._duration_key(record), {})[key] = record.submitted_at
            self._peak_in_flight = max(self._peak_in_flight, sum(map(len, self._rendering.values())))
        elif record.state is State.READY:
            self._ready.add(key)
        elif record.state is State.IN_DOUBT:
            self._in_doubt.add(key)
        elif record.state in _NOT_ACCEPTED and record.position >= 0:
            self._queued[key] = kind = known or self._duration_key(record)
            self._queued_counts[kind] += 1

    def _duration_key(self, record: Record) -> str:
        """Return the kind that a record counts for; a new kind begins with its cached durations."""
        kind = record_duration_key(record)
        if kind not in self._render_times:
            if len(self._render_times) >= _MAX_DURATION_KEYS:
                kind = "others"
            known = None if self._learner is None else self._learner.estimate_for(kind)
            shares = ((i + 0.5) / _CACHED_SAMPLES for i in range(_CACHED_SAMPLES))
            cached = sorted(known.residual_s(0.0, share) for share in shares) if known else []
            self._render_times.setdefault(kind, _RenderTimes(cached))
        return kind

    def _add_sample(self, record: Record) -> None:
        """Add a rendering time, unless it ended long before it was noticed, as after a night off."""
        duration_s = render_duration_s(record)
        if duration_s is None or record.finished_at is None:
            return
        last_seen_running = record.submitted_at if record.not_yet_at is None else record.not_yet_at
        started_in_this_run = (record.submitted_at or 0.0) >= self._started_at
        if not started_in_this_run and record.finished_at - (last_seen_running or 0.0) > duration_s / 4:
            return
        self._render_times[self._duration_key(record)].add(max(duration_s, _MIN_RENDER_S))

    def _estimate(self, now: float) -> float | None:
        waiting = 0 if self._stopped else len(self._queued)
        if not any(self._rendering.values()) and not waiting:
            if self._in_doubt:  # the vendor's log decides how long those take
                return None
            return (self._download_s or None) if self._ready else 0.0
        spreads = self._spreads(now)
        if not spreads:
            return None
        slots = max(1, min(self._concurrency, self._peak_in_flight)) if waiting else 1
        pending = [(spreads[kind], count) for kind, count in self._queued_counts.items() if count and waiting]
        started_after = float("-inf")
        if now - self._started_at < _STALE_GRACE_INTERVALS * self._interval_s:
            longest_s = max(spread.longest_s for spread in spreads.values())
            started_after = self._started_at - _STALE_FACTOR * longest_s
        rendering = self._rendering.items()
        ages = [
            (spreads[kind], now - at)
            for kind, begun in rendering
            for at in begun.values()
            if at > started_after
        ]
        return time_left_s(ages, pending, slots) + self._download_s

    def _spreads(self, now: float) -> dict[str, DurationDistribution]:
        """Return the distribution of each kind; empty while nothing is known of any.

        How long a generation taken over from an earlier run really ran is not known.
        """
        if not any(times.observed or times.cached for times in self._render_times.values()):
            return {}
        running: dict[str, list[float]] = {kind: [] for kind in self._render_times}
        for kind, begun in self._rendering.items():
            running[kind] = [now - at for at in begun.values() if at >= self._started_at]
        return {
            kind: fit_distribution(times.observed, running[kind], self._expected_s(kind), times.cached)
            for kind, times in self._render_times.items()
        }

    def _expected_s(self, kind: str) -> float:
        """Return the time to expect of a kind: the median of its cached durations, else of other kinds."""
        own = self._render_times[kind]
        others = [
            time for times in self._render_times.values() if times is not own for time in times.observed
        ]
        known = own.cached or others
        return median(known) if known else _DEFAULT_RENDER_INTERVALS * self._interval_s
