"""When a run will be over: list scheduling of what is left, with the durations that were learned.

It owns the forecast alone; it knows neither clock nor queue.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.polling.estimate import Estimate
    from pipeline.polling.learner import DurationLearner

ROUNDS: Final = 8
"""How many futures are drawn."""

MOST: Final = 1000
"""Jobs and slots drawn in each future at most; what is beyond passes at its mean rate."""

EDGE: Final = 0.01
"""Shares of the distribution left out at either end: there the prior speaks, and not what was seen."""


def time_left_s(
    learner: DurationLearner,
    in_flight: Sequence[tuple[str, float]],
    pending: Mapping[str, int],
    limit: int,
    *,
    notice_s: float = 0.0,
) -> float | None:
    """Return the expected seconds until everything is noticed as finished; None while nothing is known.

    `in_flight` holds kind and age in seconds, `pending` the number of jobs by kind that are not started,
    `limit` how many may be in flight, `notice_s` the mean delay from the end of a generation to its refill.
    A kind of which nothing is known is taken for the mixture of those that are.
    """
    kinds = {kind for kind, _ in in_flight} | {kind for kind, count in pending.items() if count > 0}
    known = {kind: found for kind in kinds if (found := learner.known(kind)) is not None}
    if not kinds:
        return 0.0
    if not known:
        return None
    stand_in = next(iter(known.values()))
    table = {kind: known.get(kind, stand_in) for kind in kinds}
    slots = max(1, limit, len(in_flight))
    thin = max(1.0, slots / MOST)
    running = [(table[kind], age) for kind, age in in_flight[:: round(thin)]]
    waiting = [table[kind] for kind, count in pending.items() for _ in range(round(count / thin))]
    random = Random(len(running) * 7919 + len(waiting))
    beyond_s = _beyond_s(waiting, max(1, round(slots / thin)), notice_s)
    drawn = waiting if beyond_s == 0.0 else random.sample(waiting, MOST)
    futures = [_future(running, drawn, max(1, round(limit / thin)), notice_s, random) for _ in range(ROUNDS)]
    return beyond_s + fmean(futures)


def _beyond_s(waiting: Sequence[Estimate], slots: int, notice_s: float) -> float:
    """Return how long the jobs take that are too many to be drawn one by one."""
    if len(waiting) <= MOST:
        return 0.0
    mean_s = fmean(known.mean_s for known in waiting[:MOST]) + notice_s
    return (len(waiting) - MOST) * mean_s / slots


def _future(
    running: Sequence[tuple[Estimate, float]],
    waiting: Sequence[Estimate],
    limit: int,
    notice_s: float,
    random: Random,
) -> float:
    """Draw one future and return when it ends."""
    slots = [known.residual_s(age, _share(random)) + notice_s for known, age in running]
    last = max(slots, default=0.0)
    slots += [0.0] * (limit - len(slots))
    heapify(slots)
    for _ in range(len(slots) - limit):
        heappop(slots)
    for known in random.sample(waiting, len(waiting)):
        end = heappop(slots) + known.residual_s(0.0, _share(random)) + notice_s
        heappush(slots, end)
        last = max(last, end)
    return last


def _share(random: Random) -> float:
    return EDGE + (1.0 - 2.0 * EDGE) * random.random()
