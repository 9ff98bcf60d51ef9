"""When a run will be over: list scheduling of what is left, in futures drawn from how times are spread.

It owns the forecast alone; it knows neither clock nor queue, nor how the spread was judged.
"""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIN_SIMULATIONS: Final = 8
MAX_SIMULATIONS: Final = 48
TOTAL_DRAWS: Final = 4000
"""How many futures are drawn: the more the fewer jobs there are, for about so many draws in all."""

MAX_SIMULATED_JOBS: Final = 400
MAX_SIMULATED_SLOTS: Final = 200
"""Jobs and slots drawn in each future at most. Each stands for several when there are more slots; jobs
beyond pass at their mean rate."""

TAIL_CUTOFF: Final = 0.005
"""The share of the distribution that is left out at either end, where nothing was seen."""


ResidualTime: TypeAlias = "Callable[[float], float]"


class DurationModel(Protocol):
    """What has to be known of how long generations of one kind take."""

    @property
    def mean_s(self) -> float:
        """Return the mean duration."""

    def residual_at(self, age_s: float, /) -> ResidualTime:
        """Return the residual time of those running at `age_s`, by the share (0 to 1) that outlasts it."""


def time_left_s(
    running: Sequence[tuple[DurationModel, float]],
    waiting: Sequence[tuple[DurationModel, int]],
    limit: int,
) -> float:
    """Return the seconds after which everything is as likely to be over as not.

    `running` holds the age in seconds of each generation in flight, `waiting` how many of each kind are not
    started, `limit` how many may be in flight. The same state gives the same answer.
    """
    group_size = max(1.0, max(limit, len(running)) / MAX_SIMULATED_SLOTS)
    ages = [running[int(i * group_size)] for i in range(round(len(running) / group_size))]
    sampled_running = [known.residual_at(age_s) for known, age_s in ages]
    jobs = sum(count for _, count in waiting)
    simulated_jobs = min(jobs, round(MAX_SIMULATED_JOBS * group_size))
    sampled_waiting = [
        residual_s
        for residual_s, count in [(known.residual_at(0.0), count) for known, count in waiting]
        for _ in range(max(1, round(count * simulated_jobs / jobs / group_size)) if count else 0)
    ]
    mean_s = sum(known.mean_s * count for known, count in waiting) / max(1, jobs)
    slots = max(1, round(limit / group_size))
    rng = Random(len(running) * 7919 + jobs)
    simulations = max(
        MIN_SIMULATIONS,
        min(MAX_SIMULATIONS, TOTAL_DRAWS // max(1, len(sampled_running) + len(sampled_waiting))),
    )
    end_times = [
        _simulate_once(sampled_running, sampled_waiting, slots, group_size, rng) for _ in range(simulations)
    ]
    return (jobs - simulated_jobs) * mean_s / max(limit, 1) + median(end_times)


def _simulate_once(
    running: Sequence[ResidualTime],
    waiting: Sequence[ResidualTime],
    limit: int,
    group_size: float,
    rng: Random,
) -> float:
    """Sample one future and return when it ends.

    The slowest of `group_size` is slower than the one sampled for all: the maximum of n durations is sampled
    as `1 - (1 - u) ** (1 / n)`.
    """
    slots: list[float] = []
    latest_end = 0.0
    for residual_s in running:
        share = _sample_share(rng)
        end = residual_s(share)
        slots.append(end)
        if group_size != 1.0:
            end = residual_s(_share_of_slowest(share, group_size))
        if end > latest_end:
            latest_end = end
    slots += [0.0] * (limit - len(slots))
    heapify(slots)
    for _ in range(len(slots) - limit):  # more may be running than the vendor lets in by now
        heappop(slots)
    # Jobs of one kind are alike in any order.
    for residual_s in rng.sample(waiting, len(waiting)) if len(set(waiting)) > 1 else waiting:
        start, share = slots[0], _sample_share(rng)
        end = start + residual_s(share)
        heapreplace(slots, end)
        if group_size != 1.0:
            end = start + residual_s(_share_of_slowest(share, group_size))
        if end > latest_end:
            latest_end = end
    return latest_end


def _share_of_slowest(share: float, group_size: float) -> float:
    slowest: float = 1.0 - (1.0 - share) ** (1.0 / group_size)
    return slowest


def _sample_share(rng: Random) -> float:
    return TAIL_CUTOFF + (1.0 - 2.0 * TAIL_CUTOFF) * rng.random()
