"""How long the rest of a run will take, from what this run and earlier ones have seen.

Owns the evidence alone: which generations run since when, which have ended after how long, how many wait.
What follows from it is `polling`'s to say. Knows neither the engine nor the terminal; as an observer it sees
records move, which is all that the driver of a cluster sees too.
"""

from __future__ import annotations

import json
import time
from bisect import insort
from collections import Counter, deque
from statistics import median
from typing import TYPE_CHECKING, Final

from pipeline.events import Topic
from pipeline.model import Record, State, rendering_s
from pipeline.poll.duration_key import kind_of
from pipeline.poll.forecast import rest_s
from pipeline.poll.spread import spread_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.events import Event
    from pipeline.poll.learner import DurationLearner
    from pipeline.poll.spread import Spread

_KEPT: Final = 2000
_REMEMBERED: Final = 24
"""How many rendering times stand for what earlier runs have left in memory."""

_KINDS: Final = 8
"""Kinds of generations told apart; all others count as one."""

_FIRST_GUESS: Final = 8.0
"""The rendering time to expect before anything is known, in poll intervals: the vendor's sample run."""

_OVERNIGHT: Final = 2.0
_CATCH_UP: Final = 6.0
"""A generation taken over from an earlier run that is older than the slowest seen by this factor has ended
long ago, and will be found so within so many poll intervals."""

_AGAIN_S: Final = 1.0
_SHARE: Final = 50.0
"""An estimate holds for a second, or for so many times as long as it took to make."""

_SHORTEST_S: Final = 0.01
_OPEN: Final = frozenset({State.PENDING, State.SUBMITTING})
_OVER: Final = frozenset({State.READY, State.DONE})


class _Times:
    """Rendering times of one kind: those of `earlier` runs, and the last `_KEPT` that this one has `seen`."""

    __slots__ = ("_order", "earlier", "seen")

    def __init__(self, earlier: list[float]) -> None:
        self.earlier = earlier
        self.seen: list[float] = []
        self._order: deque[float] = deque()

    def learn(self, taken_s: float) -> None:
        insort(self.seen, taken_s)
        self._order.append(taken_s)
        if len(self._order) > _KEPT:
            self.seen.remove(self._order.popleft())


class Eta:
    """An observer that returns, when called, the seconds that are left; None while nobody can know.

    `concurrency` is how many generations may be in flight; fewer count when the vendor lets fewer in.
    `interval_s` is the pace of looks before anything is known, `learner` holds what earlier runs have learned
    of durations (it is read now and not again), `wall` is the clock that the records' times are on.
    """

    def __init__(
        self,
        records: Iterable[Record],
        concurrency: int,
        *,
        interval_s: float = 10.0,
        learner: DurationLearner | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._concurrency = concurrency
        self._interval_s = interval_s
        self._learner = learner
        self._began = wall()
        self._times: dict[str, _Times] = {}
        self._rendering: dict[str, tuple[str, float]] = {}
        self._open: dict[str, str] = {}
        self._waiting: Counter[str] = Counter()
        self._ready: set[str] = set()
        self._doubts: set[str] = set()
        self._saving = 0.0
        self._stopped = False
        self._told: tuple[float, float | None] = (float("-inf"), None)
        self._until = float("-inf")
        self._let_in = 0
        for record in records:
            self._place(record)
            if record.state is State.DONE:
                self._learn(record)

    def moved(self, before: Record, after: Record) -> None:
        self._place(after)
        if after.state in _OVER and before.state not in _OVER:
            self._learn(after)
        if after.state is State.DONE and after.downloaded_at is not None and after.finished_at is not None:
            self._saving += 0.2 * (after.downloaded_at - after.finished_at - self._saving)

    def said(self, event: Event) -> None:
        """Once a run has stopped submitting, only what is paid is still to come."""
        if event.topic is Topic.STOPPING:
            self._stopped = True
            self._until = float("-inf")

    def __call__(self) -> float | None:
        now = self._wall()
        if now >= self._until:
            began = time.perf_counter()
            self._told = (now, self._estimate(now))
            self._until = now + max(_AGAIN_S, _SHARE * (time.perf_counter() - began))
        made_at, left = self._told
        return None if left is None else max(0.0, left - (now - made_at))

    def _place(self, record: Record) -> None:
        key = record.key
        known = self._rendering.pop(key, ("", 0.0))[0]
        if key in self._open:
            known = self._open.pop(key)
            self._waiting[known] -= 1
        self._ready.discard(key)
        self._doubts.discard(key)
        if record.state is State.GENERATING and record.submitted_at is not None:
            self._rendering[key] = (known or self._kind(record), record.submitted_at)
            self._let_in = max(self._let_in, len(self._rendering))
        elif record.state is State.READY:
            self._ready.add(key)
        elif record.state is State.IN_DOUBT:
            self._doubts.add(key)
        elif record.state in _OPEN and record.position >= 0:
            self._open[key] = kind = known or self._kind(record)
            self._waiting[kind] += 1

    def _kind(self, record: Record) -> str:
        """Return the kind that a record counts for, and begin with what is remembered of a new one."""
        kind = kind_of(record.model, _body(record))
        if kind not in self._times:
            if len(self._times) >= _KINDS:
                kind = "others"
            known = None if self._learner is None else self._learner.known(kind)
            shares = ((i + 0.5) / _REMEMBERED for i in range(_REMEMBERED))
            earlier = sorted(known.residual_s(0.0, share) for share in shares) if known else []
            self._times.setdefault(kind, _Times(earlier))
        return kind

    def _learn(self, record: Record) -> None:
        """Take note of a rendering, unless it was over long before it was noticed, as after a night off."""
        taken = rendering_s(record)
        if taken is None or record.finished_at is None:
            return
        seen_running = record.submitted_at if record.not_yet_at is None else record.not_yet_at
        fresh = (record.submitted_at or 0.0) >= self._began
        if not fresh and record.finished_at - (seen_running or 0.0) > taken / 4:
            return
        self._times[self._kind(record)].learn(max(taken, _SHORTEST_S))

    def _estimate(self, now: float) -> float | None:
        waiting = 0 if self._stopped else len(self._open)
        if not self._rendering and not waiting:
            if self._doubts:  # the vendor's log decides how long those take
                return None
            return (self._saving or None) if self._ready else 0.0
        spreads = self._spreads(now)
        if not spreads:
            return None
        slots = max(1, min(self._concurrency, self._let_in)) if waiting else 1
        pending = [(spreads[kind], count) for kind, count in self._waiting.items() if count and waiting]
        ages = [(spreads[kind], now - at) for kind, at in self._rendering.values()]
        if now - self._began < _CATCH_UP * self._interval_s:
            night = self._began - _OVERNIGHT * max(spread.oldest_s for spread in spreads.values())
            ages = [(spreads[kind], now - at) for kind, at in self._rendering.values() if at > night]
        return rest_s(ages, pending, slots) + self._saving

    def _spreads(self, now: float) -> dict[str, Spread]:
        """Return how the times of each kind are spread; empty while nothing is known of any.

        Of a generation taken over from an earlier run nobody knows for how long it really ran.
        """
        if not any(times.seen or times.earlier for times in self._times.values()):
            return {}
        running: dict[str, list[float]] = {kind: [] for kind in self._times}
        for kind, at in self._rendering.values():
            if at >= self._began:
                running[kind].append(now - at)
        return {
            kind: spread_of(times.seen, running[kind], self._guess_s(kind), times.earlier)
            for kind, times in self._times.items()
        }

    def _guess_s(self, kind: str) -> float:
        """Return the time to expect of a kind: what is remembered of it, else what others took."""
        own = self._times[kind]
        others = [time for times in self._times.values() if times is not own for time in times.seen]
        known = own.earlier or others
        return median(known) if known else _FIRST_GUESS * self._interval_s


def _body(record: Record) -> dict[str, object]:
    try:
        body = json.loads(record.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
