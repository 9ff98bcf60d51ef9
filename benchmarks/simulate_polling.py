"""Polls and delay on a virtual clock: the real `poll` code against fixed clocks, backoff, and the optimum.

Run as `python -m benchmarks.simulate_polling`; `run()` gives the same as data that JSON can hold.
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_right
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import pairwise
from math import ceil, exp
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from pipeline.poll.learner import DurationLearner
from pipeline.poll.schedule import PollSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    DurationSampler = Callable[[Random], float]

INTERVAL_S: Final = 10.0
DURATION_KEY: Final = "any"
PRICE_STEPS: Final = 10
"""How often the price of a second's delay is halved, by its logarithm, to find the one of as many polls."""


def lognormal(random: Random) -> float:
    """Median 75 s, sigma 0.25."""
    return 75.0 * exp(random.gauss(0.0, 0.25))


def two_modes(random: Random) -> float:
    """70% near 55 s, 30% near 140 s, each within some 12%."""
    return (55.0 if random.random() < 0.7 else 140.0) * exp(random.gauss(0.0, 0.12))


def uniform(random: Random) -> float:
    """Anything from 30 s to 300 s."""
    return random.uniform(30.0, 300.0)


DISTRIBUTIONS: Final[dict[str, DurationSampler]] = {
    "lognormal": lognormal,
    "two modes": two_modes,
    "uniform": uniform,
}


@dataclass(frozen=True, slots=True)
class PollingCost:
    """What a batch cost: mean polls a job, mean seconds from finished to noticed, and when all was over.

    `last_delay_s` is how long after the last end all was known to be over.
    """

    polls: float
    delay_s: float
    makespan_s: float
    last_delay_s: float = 0.0

    def relative_to(self, other: PollingCost) -> PollingCost:
        """Return polls and delay as shares of another's."""
        return PollingCost(self.polls / other.polls, self.delay_s / other.delay_s, 1.0)

    @property
    def product(self) -> float:
        """Polls times delay, which no schedule can push below a bound (Keller 1974)."""
        return self.polls * self.delay_s


def simulate(
    durations: Sequence[float],
    in_flight: int,
    *,
    seed: int = 0,
    interval_s: float = INTERVAL_S,
    learner: DurationLearner | None = None,
    latency_s: float = 0.0,
) -> PollingCost:
    """Run one batch through the real queue; a slot is refilled when the end of its generation is noticed."""
    queue = PollSchedule(learner or DurationLearner(interval_s), interval_s=interval_s, random=Random(seed))
    born: dict[str, float] = {}
    waiting = iter(enumerate(durations))
    polls, delay, now, last_end = 0, 0.0, 0.0, 0.0

    def refill(at: float) -> None:
        queue.waiting = len(durations) - len(born) - 1
        for i, _ in waiting:
            born[str(i)] = at
            queue.add(str(i), DURATION_KEY, now=at)
            return

    for _ in range(min(in_flight, len(durations))):
        refill(0.0)
    while (due := queue.next_due()) is not None:
        now = max(now, due)
        key = queue.pop_due(now)
        if key is None:
            continue
        polls += 1
        end = born[key] + durations[int(key)]
        if now < end:
            queue.still_running(key, now=now + latency_s)
            continue
        delay += now + latency_s - end
        last_end = max(last_end, end)
        queue.finished(key, now=now + latency_s)
        refill(now + latency_s)
    return PollingCost(polls / len(durations), delay / len(durations), now, now + latency_s - last_end)


def simulate_fixed_schedule(
    durations: Sequence[float], in_flight: int, next_age: Callable[[float], float]
) -> PollingCost:
    """Run one batch on a fixed schedule: `next_age` gives the age of the poll after one at an age."""
    slots = [0.0] * in_flight
    heapify(slots)
    polls, delay, last_end = 0, 0.0, 0.0
    for duration in durations:
        age = 0.0
        while age < duration:
            age = next_age(age)
            polls += 1
        delay += age - duration
        started = heappop(slots)
        last_end = max(last_end, started + duration)
        heappush(slots, started + age)
    return PollingCost(polls / len(durations), delay / len(durations), max(slots), max(slots) - last_end)


def fixed_interval(interval_s: float) -> Callable[[float], float]:
    """Return the fixed clock."""
    return lambda age: age + interval_s


def exponential_backoff(
    first_s: float = 1.0, factor: float = 1.5, cap_s: float = 30.0
) -> Callable[[float], float]:
    """Return exponential backoff as a schedule of ages."""
    ages, wait = [0.0], first_s
    while ages[-1] < 10_000.0:
        ages.append(ages[-1] + wait)
        wait = min(wait * factor, cap_s)
    return lambda age: ages[bisect_right(ages, age)]


def optimal_schedule(
    draw: DurationSampler, price: float, *, step_s: float = 1.0, sample: int = 40_000
) -> Callable[[float], float]:
    """Return the best schedule for a known distribution, a second of delay priced at `price` polls.

    By dynamic programming on a grid, over the empirical distribution of `sample` draws.
    """
    random = Random(1)
    draws = sorted(draw(random) for _ in range(sample))
    size = ceil(draws[-1] / step_s) + 2
    survival = [1.0 - bisect_right(draws, i * step_s) / sample for i in range(size)]
    area = [0.0]
    for s, t in pairwise(survival):
        area.append(area[-1] + (s + t) / 2.0 * step_s)
    cost = [0.0] * size
    nexts = [size] * size
    for i in range(size - 2, -1, -1):
        best, at = min(
            (price * (survival[i] * (j - i) * step_s - (area[j] - area[i])) + cost[j], j)
            for j in range(i + 1, size)
            if j == i + 1 or nexts[i + 1] >= j
        )
        cost[i], nexts[i] = best + survival[i], at
    return lambda age: nexts[min(round(age / step_s), size - 2)] * step_s


def compare_clients(name: str, jobs: int, in_flight: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Measure every client on the same jobs; shares are of the fixed 10 s clock, means over `seeds`."""
    draw = DISTRIBUTIONS[name]
    mean = fmean(draw(Random(seed)) for seed in range(20_000))
    best = optimal_schedule(draw, (mean / INTERVAL_S + 0.5) / (INTERVAL_S / 2.0))
    clients: dict[str, Callable[[Sequence[float], int], PollingCost]] = {
        "fixed 10 s": lambda d, _: simulate_fixed_schedule(d, in_flight, fixed_interval(10.0)),
        "fixed 15 s": lambda d, _: simulate_fixed_schedule(d, in_flight, fixed_interval(15.0)),
        "backoff 1 s x 1.5, cap 30 s": lambda d, _: simulate_fixed_schedule(
            d, in_flight, exponential_backoff()
        ),
        "veobatch": lambda d, seed: simulate(d, in_flight, seed=seed),
        "veobatch, 100 remembered": lambda d, seed: simulate(
            d, in_flight, seed=seed, learner=learner_with_cache(draw, seed)
        ),
        "optimum (known distribution)": lambda d, _: simulate_fixed_schedule(d, in_flight, best),
    }
    rows: dict[str, Any] = {}
    batches = [_sample_batch(draw, jobs, seed) for seed in seeds]
    base = [clients["fixed 10 s"](batch, 0) for batch in batches]
    for client, measure in clients.items():
        seen = [measure(batch, seed) for batch, seed in zip(batches, seeds, strict=True)]
        shares = [one.relative_to(other) for one, other in zip(seen, base, strict=True)]
        rows[client] = {
            "polls": fmean(one.polls for one in seen),
            "delay_s": fmean(one.delay_s for one in seen),
            "polls_share": fmean(share.polls for share in shares),
            "delay_share": fmean(share.delay_s for share in shares),
            "product_share": fmean(share.product for share in shares),
            "product_share_worst": max(share.product for share in shares),
        }
    return rows


def learner_with_cache(draw: DurationSampler, seed: int, jobs: int = 100) -> DurationLearner:
    """Return a learner with the memory of an earlier run of `jobs` jobs."""
    earlier, learner = DurationLearner(INTERVAL_S), DurationLearner(INTERVAL_S)
    simulate(_sample_batch(draw, jobs, seed + 10_000), 20, seed=seed, learner=earlier)
    learner.restore(json.loads(json.dumps(earlier.dump())))
    return learner


def _sample_batch(draw: DurationSampler, jobs: int, seed: int) -> list[float]:
    random = Random(seed * 7919 + 13)
    return [draw(random) for _ in range(jobs)]


def run(jobs: int = 300, in_flight: Sequence[int] = (60, 20, 300), seeds: int = 10) -> dict[str, Any]:
    """Return, by distribution and generations in flight, what each client costs."""
    return {
        f"{name}, {jobs} jobs, {flight} in flight": compare_clients(name, jobs, flight, range(seeds))
        for name in DISTRIBUTIONS
        for flight in in_flight
    }


def measure_makespan(jobs: int = 240, in_flight: int = 40, seeds: int = 12) -> dict[str, dict[str, float]]:
    """Return, by distribution, the makespan as a multiple of list scheduling's, and polls and delays."""
    rows: dict[str, dict[str, float]] = {}
    for name, draw in DISTRIBUTIONS.items():
        batches = [_sample_batch(draw, jobs, seed) for seed in range(seeds)]
        costs = [simulate(batch, in_flight, seed=seed) for seed, batch in enumerate(batches)]
        fixed = [simulate_fixed_schedule(batch, in_flight, fixed_interval(INTERVAL_S)) for batch in batches]
        polls = fmean(one.polls for one in costs)
        known = _optimum_for_polls(draw, batches, in_flight, polls)
        bounds = [list_scheduling_makespan(batch, in_flight) for batch in batches]
        rows[name] = {
            "of_bound": fmean(one.makespan_s / bound for one, bound in zip(costs, bounds, strict=True)),
            "fixed_of_bound": fmean(one.makespan_s / bound for one, bound in zip(fixed, bounds, strict=True)),
            "optimum_of_bound": fmean(
                one.makespan_s / bound for one, bound in zip(known, bounds, strict=True)
            ),
            "polls": polls,
            "fixed_polls": fmean(one.polls for one in fixed),
            "last_delay_s": fmean(one.last_delay_s for one in costs),
            "fixed_last_delay_s": fmean(one.last_delay_s for one in fixed),
        }
    return rows


def _optimum_for_polls(
    draw: DurationSampler, batches: Sequence[Sequence[float]], in_flight: int, polls: float
) -> list[PollingCost]:
    """Return what the batches cost whoever knows the distribution and polls as often, but no more."""
    low, high, found = 0.01, 10.0, []
    for _ in range(PRICE_STEPS):
        price = (low * high) ** 0.5
        schedule = optimal_schedule(draw, price, sample=10_000)
        costs = [simulate_fixed_schedule(batch, in_flight, schedule) for batch in batches]
        if fmean(one.polls for one in costs) > polls:
            high = price
        else:
            low, found = price, costs
    return found


def list_scheduling_makespan(durations: Sequence[float], slots: int) -> float:
    """Return the makespan when each job in turn begins at once on the slot that is free first."""
    free = [0.0] * max(1, slots)
    for duration in durations:
        heapreplace(free, free[0] + duration)
    return max(free)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--in-flight", type=int, nargs="*", default=[60, 20, 300])
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    for title, rows in run(arguments.jobs, arguments.in_flight, arguments.seeds).items():
        print(f"\n{title}\n{'':30}  polls  delay s | of fixed 10 s: polls delay product (worst seed)")
        for client, row in rows.items():
            print(
                f"{client:30} {row['polls']:6.2f} {row['delay_s']:8.2f} | {row['polls_share']:19.2f} "
                f"{row['delay_share']:6.2f} {row['product_share']:7.3f} ({row['product_share_worst']:.3f})"
            )


if __name__ == "__main__":
    main()
