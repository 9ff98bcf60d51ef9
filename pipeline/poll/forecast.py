"""When a run will be over: list scheduling of what is left, in futures drawn from how times are spread.

It owns the forecast alone; it knows neither clock nor queue, nor how the spread was judged.
"""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_SIMULATIONS: Final = 8
MAX_SIMULATIONS: Final = 48
TOTAL_DRAWS: Final = 4000
"""How many futures are drawn: the more the fewer jobs there are, for about so many draws in all."""

JOBS: Final = 400
SLOTS: Final = 200
"""Jobs and slots drawn in each future at most. Each stands for several when there are more slots; jobs
beyond pass at their mean rate."""

TAIL_CUTOFF: Final = 0.005
"""Shares of the distribution left out at either end, where nobody has been."""


class Durations(Protocol):
    """What has to be known of how long generations of one kind take."""

    @property
    def mean_s(self) -> float:
        """Return the mean duration."""

    def residual_s(self, age_s: float, share: float, /) -> float:
        """Return the residual time that `share` (0 < share <= 1) of those running at `age_s` outlast."""


def time_left_s(
    running: Sequence[tuple[Durations, float]],
    waiting: Sequence[tuple[Durations, int]],
    limit: int,
    *,
    notice_s: float = 0.0,
) -> float:
    """Return the seconds after which everything is as likely to be noticed as finished as not.

    `running` holds the age in seconds of each generation in flight, `waiting` how many of each kind are not
    started, `limit` how many may be in flight, `notice_s` the mean delay from the end of a generation to
    its refill. The same state gives the same answer.
    """
    many = max(1.0, max(limit, len(running)) / SLOTS)
    shown = [running[int(i * many)] for i in range(round(len(running) / many))]
    jobs = sum(count for _, count in waiting)
    most = min(jobs, round(JOBS * many))
    drawn = [
        known
        for known, count in waiting
        for _ in range(max(1, round(count * most / jobs / many)) if count else 0)
    ]
    mean_s = sum(known.mean_s * count for known, count in waiting) / max(1, jobs) + notice_s
    slots = max(1, round(limit / many))
    chance = Random(len(running) * 7919 + jobs)
    rounds = max(MIN_SIMULATIONS, min(MAX_SIMULATIONS, TOTAL_DRAWS // max(1, len(shown) + len(drawn))))
    futures = [_simulate_once(shown, drawn, (slots, many, notice_s), chance) for _ in range(rounds)]
    return (jobs - most) * mean_s / max(limit, 1) + median(futures)


def _simulate_once(
    running: Sequence[tuple[Durations, float]],
    waiting: Sequence[Durations],
    shape: tuple[int, float, float],
    chance: Random,
) -> float:
    """Draw one future and return when it ends. The slowest of `many` is slower than the one that stands
    for them: a share that all of several outlast is the share of one to the power of one by their number.
    """
    limit, many, notice_s = shape
    slots: list[float] = []
    last = 0.0
    for known, age in running:
        share = _sample_share(chance)
        slots.append(known.residual_s(age, share) + notice_s)
        last = max(last, slots[-1] if many == 1.0 else known.residual_s(age, _share_of_slowest(share, many)))
    slots += [0.0] * (limit - len(slots))
    heapify(slots)
    for _ in range(len(slots) - limit):  # more may be running than the vendor lets in by now
        heappop(slots)
    for known in chance.sample(waiting, len(waiting)):
        start, share = slots[0], _sample_share(chance)
        end = start + known.residual_s(0.0, share) + notice_s
        last = max(
            last, end if many == 1.0 else start + known.residual_s(0.0, _share_of_slowest(share, many))
        )
        heapreplace(slots, end)
    return last


def _share_of_slowest(share: float, many: float) -> float:
    slowest: float = 1.0 - (1.0 - share) ** (1.0 / many)
    return slowest


def _sample_share(chance: Random) -> float:
    return TAIL_CUTOFF + (1.0 - 2.0 * TAIL_CUTOFF) * chance.random()
