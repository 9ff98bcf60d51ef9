"""Poll times: at which age the next poll of a generation last seen running is worth its request.

It owns the price of a poll against the price of a second's delay, and the optimum under it. How the
distribution was learned, and which generations there are, is not its matter.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import inf, log2
from typing import TYPE_CHECKING, Final

from pipeline.poll.observations import BIN_EDGES_S, bin_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.poll.survival_estimate import HazardEstimate

MIN_INTERVAL: Final = 0.1
"""The shortest wait between two polls, in poll intervals."""

MAX_INTERVAL: Final = 6.0
"""The longest wait between two polls, in poll intervals: the most that a sudden change can cost one."""

GRID_STEP: Final = 0.05
"""The ages are no closer than this, in poll intervals."""


BACKLOG_URGENCY: Final = 1.05
TAIL_URGENCY: Final = 0.5
MAX_URGENCY: Final = 8.0
"""What a second of delay costs, as a multiple of its average: while rows wait, once none does, and for the
last one that runs. Measured by `benchmarks.simulate_polling`: a shorter makespan for no more polls."""


def delay_urgency(waiting: float, running: int, slots: int) -> float:
    """Return what a second of delay costs now, as a multiple of its average.

    While rows wait, each second of delay leaves one of `slots` empty. When none waits, only the end of the
    last one counts, which is any of those `running`. Rounded to powers of two, so that poll times stay valid.
    """
    if waiting > 0 or not running:
        return BACKLOG_URGENCY
    return float(min(MAX_URGENCY, TAIL_URGENCY * 2.0 ** round(log2(slots / running))))


@dataclass(frozen=True, slots=True)
class PollTimes:
    """After a poll at `ages[i]` the next one is at `next_ages[i]`; between two ages it is interpolated.

    Beyond the last of `ages`, polls are `interval_s` apart.
    """

    ages: Sequence[float]
    next_ages: Sequence[float]
    interval_s: float

    def next_poll_age(self, age_s: float) -> float:
        """Return the age of the poll after one at `age_s`: MIN_INTERVAL to MAX_INTERVAL intervals later."""
        ages, next_ages = self.ages, self.next_ages
        i = bisect_right(ages, age_s)
        if i == len(ages):
            return age_s + self.interval_s
        low = ages[i - 1]
        at = next_ages[i - 1] + (next_ages[i] - next_ages[i - 1]) * (age_s - low) / (ages[i] - low)
        return min(max(at, age_s + MIN_INTERVAL * self.interval_s), age_s + MAX_INTERVAL * self.interval_s)

    def polls_sooner_than(self, other: PollTimes, intervals: float) -> bool:
        """Return whether some poll comes sooner than with `other`, by that many poll intervals or more."""
        threshold_s = intervals * self.interval_s
        return any(other.next_poll_age(age) - self.next_poll_age(age) >= threshold_s for age in self.ages)


def fixed_times(interval_s: float) -> PollTimes:
    """Return the poll times before anything is known: one poll every `interval_s`."""
    return PollTimes((0.0,), (interval_s,), interval_s)


def optimal_times(
    estimate: HazardEstimate, interval_s: float, max_interval: float = MAX_INTERVAL, urgency: float = 1.0
) -> PollTimes:
    """Return the poll times that spend the least on polls and delay together.

    It waits `max_interval` intervals at most; `urgency` multiplies the price of delay. A second of delay is
    priced at what the fixed clock pays for it: its polls a job (mean / interval + 1/2)
    for its mean delay (interval / 2). At that price the optimum has fewer polls and less delay than the fixed
    clock, by about the same factor each. Dynamic programming over the ages, from the last one back; that
    the best next poll moves with the last one (Barlow, Hunter and Proschan 1963) bounds the search.
    """
    nodes = _grid_nodes(estimate, interval_s)
    ages = [BIN_EDGES_S[b] for b in nodes]
    delay_price = urgency * (estimate.mean_s / interval_s + 0.5) / (interval_s / 2.0)
    slopes = [delay_price * estimate.survival[b] for b in nodes]
    areas = [delay_price * estimate.survival_integral[b] for b in nodes]
    last = len(nodes) - 1
    next_ages = [0.0] * last + [ages[last] + interval_s]
    tail_cost = estimate.tail_s / interval_s + delay_price * interval_s / 2.0
    costs = [0.0] * last + [estimate.survival[nodes[last]] * tail_cost - areas[last]]
    best_index = last
    for i in range(last - 1, -1, -1):
        slope, age = slopes[i], ages[i]
        limit = bisect_right(ages, age + max_interval * interval_s, i + 1, best_index + 1)
        best = inf
        for j in range(i + 1, max(limit, i + 2)):
            cost = slope * ages[j] + costs[j]
            if cost < best:
                best, best_index = cost, j
        costs[i] = best - slope * age + slope / delay_price
        next_ages[i] = ages[best_index]
    return PollTimes(ages, next_ages, interval_s)


def _grid_nodes(estimate: HazardEstimate, interval_s: float) -> list[int]:
    """Return the edges to choose from: the grid's, thinned out where it is finer than the grain."""
    step_s = GRID_STEP * interval_s
    nodes, at = [0], 0.0
    for b in range(bin_of(MIN_INTERVAL * interval_s), len(estimate.survival)):
        if BIN_EDGES_S[b] >= at + step_s:
            nodes.append(b)
            at = BIN_EDGES_S[b]
    return nodes
