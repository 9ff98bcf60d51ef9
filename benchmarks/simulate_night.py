"""One night on a virtual clock: a million jobs through the real queue and gates, with all that goes wrong.

The vendor is down twice, for a while it renders at half its speed, and for a while it refuses calls. What is
measured is what the night costs us: CPU and memory, as the number of jobs grows.
Run as `python -m benchmarks.simulate_night`; `run()` gives the same as data that JSON can hold.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import tracemalloc
from dataclasses import dataclass, field
from math import exp, inf
from random import Random
from typing import Any, Final

from pipeline.poll.learner import DurationLearner
from pipeline.poll.poll_rate import AdaptiveRateLimit
from pipeline.poll.schedule import PollSchedule
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

INTERVAL_S: Final = 10.0
DURATION_KEYS: Final = ("a|720p|4", "a|1080p|8", "b|1080p|8")
MEDIANS_S: Final = (45.0, 75.0, 140.0)


@dataclass(slots=True)
class VendorConditions:
    """What the vendor is like at a time of night; a night of any length has the same hours."""

    night_s: float

    def is_down(self, now: float) -> bool:
        """Two outages of a hundredth of the night."""
        part = now / self.night_s
        return 0.30 < part < 0.31 or 0.62 < part < 0.63

    def render_factor(self, now: float) -> float:
        """For a tenth of the night everything renders twice as long."""
        return 2.0 if 0.45 < now / self.night_s < 0.55 else 1.0

    def rejection_share(self, now: float) -> float:
        """Return the share of calls refused: a twentieth of the night is throttled."""
        return 0.05 if 0.75 < now / self.night_s < 0.80 else 0.0


@dataclass(slots=True)
class NightSimulation:
    """One night's counts, and the moving parts that make them."""

    jobs: int
    ceiling: int
    seed: int
    started: int = 0
    finished: int = 0
    polls: int = 0
    failed_polls: int = 0
    rejected: int = 0
    delay_s: float = 0.0
    ends: dict[str, float] = field(default_factory=dict)

    def run(self) -> float:
        """Play the night to its end and return how long it was on its own clock."""
        random = Random(self.seed)
        conditions = VendorConditions(self.jobs / self.ceiling * 100.0)
        queue = PollSchedule(DurationLearner(INTERVAL_S), interval_s=INTERVAL_S, random=Random(self.seed + 1))
        gate = AdaptiveConcurrencyLimit(self.ceiling, interval_s=INTERVAL_S, random=Random(self.seed + 2))
        pace = AdaptiveRateLimit(interval_s=INTERVAL_S)
        now, create_at = 0.0, 0.0
        while self.finished < self.jobs:
            if self.started < self.jobs and create_at <= now:
                create_at = now + self._create(gate, queue, conditions, now, random)
            due = queue.next_due()
            now = max(
                now, min(due if due is not None else inf, create_at if self.started < self.jobs else inf)
            )
            key = queue.pop_due(now)
            if key is None:
                continue
            while (wait := pace.acquire_delay_s(now)) > 0.0:
                now += wait
            if self._poll(key, queue, pace, conditions, now, random):
                create_at = now
        return now

    def _create(
        self,
        gate: AdaptiveConcurrencyLimit,
        queue: PollSchedule,
        conditions: VendorConditions,
        now: float,
        random: Random,
    ) -> float:
        """Start what may start now; return the seconds after which to ask again."""
        wait = 0.0
        while self.started < self.jobs and (wait := gate.start_delay_s(now, len(queue))) <= 0.0:
            gate.on_started(now)
            if conditions.is_down(now):
                gate.on_create_ended(now)
                return INTERVAL_S
            if random.random() < conditions.rejection_share(now):
                self.rejected += 1
                gate.on_rate_limited(now, len(queue))
                continue
            kind = random.randrange(len(DURATION_KEYS))
            key = f"generation-{self.started:012}"
            duration = MEDIANS_S[kind] * exp(random.gauss(0.0, 0.25)) * conditions.render_factor(now)
            self.ends[key] = now + duration
            queue.add(key, DURATION_KEYS[kind], now=now)
            self.started += 1
            gate.on_accepted(now, len(queue))
        return wait

    def _poll(
        self,
        key: str,
        queue: PollSchedule,
        pace: AdaptiveRateLimit,
        conditions: VendorConditions,
        now: float,
        random: Random,
    ) -> bool:
        """Poll once; return whether a slot came free."""
        self.polls += 1
        if conditions.is_down(now):
            self.failed_polls += 1
            queue.poll_again(key, now=now)
        elif random.random() < conditions.rejection_share(now):
            self.failed_polls += 1
            pace.on_rate_limited(now)
            queue.poll_again(key, now=now)
        elif now < self.ends[key]:
            pace.on_success(now)
            queue.still_running(key, now=now)
        else:
            pace.on_success(now)
            queue.finished(key, now=now)
            self.delay_s += now - self.ends.pop(key)
            self.finished += 1
            return True
        return False


def measure(jobs: int, seed: int = 0) -> dict[str, Any]:
    """Return what a night of `jobs` jobs costs; a twentieth of them (100 at least) are in flight at once."""
    night = NightSimulation(jobs, ceiling=min(jobs, max(100, jobs // 20)), seed=seed)
    begun = time.process_time()
    length_s = night.run()
    cpu_s = time.process_time() - begun
    return {
        "jobs": jobs,
        "in_flight": night.ceiling,
        "night_s": length_s,
        "looks_a_job": (night.polls - night.failed_polls) / jobs,
        "failed_looks_a_job": night.failed_polls / jobs,
        "refused_creates_a_job": night.rejected / jobs,
        "delay_s": night.delay_s / jobs,
        "cpu_s": cpu_s,
        "cpu_us_a_job": 1e6 * cpu_s / jobs,
        "cpu_us_a_look": 1e6 * cpu_s / night.polls,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / (1024 * 1024 if _IS_MAC else 1024),
    }


_IS_MAC: Final = sys.platform == "darwin"


def bytes_per_generation(generations: int = 100_000) -> float:
    """Return the bytes that each of so many tracked generations takes, its key apart."""
    keys = [f"generation-{i:012}" for i in range(generations)]
    tracemalloc.start()
    queue = PollSchedule(DurationLearner(INTERVAL_S), interval_s=INTERVAL_S, random=Random(1))
    for i, key in enumerate(keys):
        queue.add(key, DURATION_KEYS[1], now=i * 1e-3)
    now = 0.0
    for _ in range(generations):
        now = max(now, queue.next_due() or now)
        key_due = queue.pop_due(now)
        if key_due is not None:
            queue.still_running(key_due, now=now)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / generations


def run(sizes: tuple[int, ...] = (1_000, 10_000, 100_000), tracked: int = 100_000) -> dict[str, Any]:
    """Return what nights of growing size cost, and the bytes a tracked generation takes."""
    return {"nights": [measure(size) for size in sizes], "bytes_a_generation": bytes_per_generation(tracked)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    found = run(tuple(parser.parse_args().sizes))
    print("    jobs in flight polls/job failed refused  delay s    cpu s us/job us/poll peak MB")
    for row in found["nights"]:
        print(
            f"{row['jobs']:8} {row['in_flight']:9} {row['looks_a_job']:9.2f} "
            f"{row['failed_looks_a_job']:6.2f} "
            f"{row['refused_creates_a_job']:7.3f} {row['delay_s']:8.2f} {row['cpu_s']:8.1f} "
            f"{row['cpu_us_a_job']:6.0f} {row['cpu_us_a_look']:7.1f} {row['peak_rss_mb']:7.0f}"
        )
    print(f"a tracked generation takes {found['bytes_a_generation']:.0f} bytes")


if __name__ == "__main__":
    main()
