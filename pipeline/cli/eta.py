"""How long the rest of a run will take, from what this run has seen so far.

Owns the estimate alone: it plays the rest of the batch through, slot by slot, with the rendering times
that were observed. Knows neither the engine nor the terminal; as an observer it sees records move.
"""

from __future__ import annotations

import heapq
import statistics
import time
from bisect import bisect_right, insort
from collections import deque
from typing import TYPE_CHECKING, Final

from pipeline.model import Record, State
from pipeline.results import rendering_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pipeline.events import Event

_ENOUGH: Final = 3
"""Renderings to have seen before a word is said."""

_KEPT: Final = 2000
_PLAYED: Final = 400
"""Rows played one by one; the bulk before them takes its average share of the slots."""

_PLAYS: Final = 5
_AGAIN_S: Final = 1.0
_GOLDEN: Final = 0.6180339887498949
_OPEN: Final = frozenset({State.PENDING, State.SUBMITTING})


class Eta:
    """An observer that returns, when called, the seconds that are left; None while nobody can know.

    `concurrency` is how many generations may be in flight; fewer count when the vendor lets fewer in.
    `wall` is the clock that the records' times are on.
    """

    def __init__(
        self, records: Iterable[Record], concurrency: int, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._wall = wall
        self._concurrency = concurrency
        self._began = wall()
        self._rendering: dict[str, float] = {}
        self._open: set[str] = set()
        self._ready: set[str] = set()
        self._saving = 0.0
        self._seen: list[float] = []
        self._order: deque[float] = deque()
        self._told: tuple[float, float | None] = (float("-inf"), None)
        self._let_in = 0
        for record in records:
            self._place(record)
            if record.state is State.DONE:
                self._learn(record)

    def moved(self, before: Record, after: Record) -> None:
        self._place(after)
        if after.state in (State.READY, State.DONE) and before.state is State.GENERATING:
            self._learn(after)
        if after.state is State.DONE and after.downloaded_at is not None and after.finished_at is not None:
            self._saving += 0.2 * (after.downloaded_at - after.finished_at - self._saving)

    def said(self, event: Event) -> None:
        """Nothing said changes the estimate."""

    def __call__(self) -> float | None:
        now = self._wall()
        if now - self._told[0] >= _AGAIN_S:
            self._told = (now, self._estimate(now))
        made_at, left = self._told
        return None if left is None else max(0.0, left - (now - made_at))

    def _place(self, record: Record) -> None:
        key = record.key
        self._open.discard(key)
        self._ready.discard(key)
        self._rendering.pop(key, None)
        if record.state is State.GENERATING and record.submitted_at is not None:
            self._rendering[key] = record.submitted_at
            self._let_in = max(self._let_in, len(self._rendering))
        elif record.state is State.READY:
            self._ready.add(key)
        elif record.state in _OPEN and record.position >= 0:
            self._open.add(key)

    def _learn(self, record: Record) -> None:
        """Take note of a rendering, unless it was over long before it was noticed, as after a night off."""
        taken = rendering_s(record)
        if taken is None or record.finished_at is None:
            return
        seen_running = record.submitted_at if record.not_yet_at is None else record.not_yet_at
        fresh = (record.submitted_at or 0.0) >= self._began
        if not fresh and record.finished_at - (seen_running or 0.0) > taken / 4:
            return
        insort(self._seen, taken)
        self._order.append(taken)
        if len(self._order) > _KEPT:
            self._seen.remove(self._order.popleft())

    def _estimate(self, now: float) -> float | None:
        if not self._rendering and not self._open:
            return (self._saving or None) if self._ready else 0.0
        if len(self._seen) < _ENOUGH:
            return None
        slots = max(1, min(self._concurrency, self._let_in)) if self._open else max(1, len(self._rendering))
        ages = [now - at for at in self._rendering.values()]
        return rest_s(self._seen, ages, len(self._open), slots) + self._saving


def rest_s(seen: Sequence[float], ages: Sequence[float], open_rows: int, slots: int) -> float:
    """Return the expected seconds until everything is rendered.

    `seen` are observed rendering times, sorted; `ages` how long the running ones have run; `open_rows`
    wait for one of `slots`. The rest is played `_PLAYS` times with draws that are spread evenly instead
    of at random, so that the same state gives the same answer.
    """
    plays = [_play(seen, ages, open_rows, slots, offset / _PLAYS) for offset in range(_PLAYS)]
    return statistics.fmean(plays)


def _play(seen: Sequence[float], ages: Sequence[float], open_rows: int, slots: int, offset: float) -> float:
    left = [_remaining(seen, age, (offset + i * _GOLDEN) % 1.0) for i, age in enumerate(ages)]
    # The quick ones are seen first: without the running ones, everything would seem to be quick.
    times = sorted([*seen, *(age + rest for age, rest in zip(ages, left, strict=True))])
    bulk = max(0, open_rows - _PLAYED)
    free = sorted(left) if len(left) >= slots else [0.0] * (slots - len(left)) + sorted(left)
    last = max(free)
    for i in range(open_rows - bulk):
        # More may be running than the slots of now, after the vendor let fewer in.
        if len(free) > slots:
            heapq.heappop(free)
        ends = free[0] + times[int(len(times) * ((offset + (i + 0.5) * _GOLDEN) % 1.0))]
        heapq.heapreplace(free, ends)
        last = max(last, ends)
    return last + bulk * statistics.fmean(times) / slots


def _remaining(seen: Sequence[float], age: float, share: float) -> float:
    """Return what is left of a rendering that has run for `age`, at an even `share` of what may be.

    Beyond all that was seen, the times above are taken to spread as far as those below.
    """
    first = bisect_right(seen, age)
    if len(seen) - first > len(seen) // 20:
        return seen[first + int((len(seen) - first) * share)] - age
    mirrored = age - seen[int(first * share) if first < len(seen) else int(len(seen) * share)]
    return max(0.05 * age, mirrored)
