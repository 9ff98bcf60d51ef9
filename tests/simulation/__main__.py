"""`python -m tests.simulation`: simulate new seeds for a while, or tell the story of one.

It prints how many jobs were simulated, the faults met by kind, and each seed that broke a rule with the few
faults that suffice. The exit code is 1 when a rule was broken; a kind of fault that never struck is named.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import pickle
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from tests.simulation.chance import CLUSTER_FAULTS, FAULTS
from tests.simulation.shrink import shrink
from tests.simulation.simulate import Result, simulate

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS_A_TASK: Final = 20
PREPARING_SEED: Final = 2
"""A small world, on one machine and on a cluster, by which everything is imported."""
SEEDS_A_DAY: Final = 1_000_000
JOBS_A_LINE: Final = 50_000
"""After so many jobs, a line says how far it is: a run that is ended by hand has told that much."""


@dataclass(slots=True)
class Tally:
    """What came of many seeds."""

    seeds: int = 0
    jobs: int = 0
    cluster_seeds: int = 0
    cluster_jobs: int = 0
    runs: int = 0
    steps: int = 0
    simulated_s: float = 0.0
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.jobs += result.jobs
        if result.history.options.workers:
            self.cluster_seeds += 1
            self.cluster_jobs += result.jobs
        self.runs += result.runs
        self.steps += result.steps
        self.simulated_s += result.seconds
        self.faults.update((fault.point, fault.kind) for fault in result.faults)
        if result.violation is not None:
            self.failed.append(result)

    def merge(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.jobs += other.jobs
        self.cluster_seeds += other.cluster_seeds
        self.cluster_jobs += other.cluster_jobs
        self.runs += other.runs
        self.steps += other.steps
        self.simulated_s += other.simulated_s
        self.faults.update(other.faults)
        self.failed += other.failed


def simulate_many(first: int, count: int) -> Tally:
    """Simulate `count` seeds from `first` on."""
    tally = Tally()
    for seed in range(first, first + count):
        tally.add(simulate(seed))
    return tally


def simulate_in_child(first: int, count: int) -> Tally:
    """Do as `simulate_many` in a process forked for it.

    Its worlds' garbage, which would take a tenth of their time to collect, is gone with the process at once.
    """
    readable, writable = os.pipe()
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException), os.fdopen(writable, "wb") as answer:
            answer.write(pickle.dumps(simulate_many(first, count)))
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as answer:
        tally = answer.read()
    os.waitpid(child, 0)
    if not tally:
        return simulate_many(first, count)  # it raises again what ended the child
    return cast("Tally", pickle.loads(tally))  # noqa: S301  # our own bytes


def prepare_process() -> None:
    """Import all that worlds need, and leave it to each to collect, now and then, what is left before it."""
    for is_cluster in (False, True):
        simulate(PREPARING_SEED, cluster=is_cluster)
    gc.freeze()
    gc.disable()


def simulate_until(is_over: Callable[[Tally], bool], first: int, workers: int) -> Tally:
    """Simulate seeds from `first` on until it is over; print those that break a rule as they are met."""
    tally, seed, told = Tally(), first, 0
    with ProcessPoolExecutor(workers, initializer=prepare_process) as pool:
        waiting: set[Future[Tally]] = set()
        while waiting or not is_over(tally):
            while len(waiting) < 2 * workers and not is_over(tally):
                waiting.add(pool.submit(simulate_in_child, seed, SEEDS_A_TASK))
                seed += SEEDS_A_TASK
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                tally.merge(part := future.result())
                for result in part.failed:
                    print(f"SEED={result.seed}: {result.violation}", flush=True)
            if tally.jobs // JOBS_A_LINE > told:
                told = tally.jobs // JOBS_A_LINE
                print(f"{tally.seeds} seeds: {tally.jobs} jobs, {len(tally.failed)} broken", flush=True)
    return tally


def show(tally: Tally, took_s: float, first: int) -> None:
    """Print the numbers, and the faults by kind."""
    print(
        f"seeds {first} to {first + tally.seeds - 1}: {tally.jobs} jobs in {tally.runs} runs, "
        f"{tally.simulated_s / 86_400:.0f} simulated days, {tally.steps} steps; "
        f"{took_s:.0f} s, {tally.jobs / took_s:.0f} jobs/s",
        flush=True,
    )
    print(f"  of these on clusters: {tally.cluster_jobs} jobs in {tally.cluster_seeds} worlds")
    for point, kinds in _every_fault().items():
        print(f"  {point}: " + ", ".join(f"{kind} {tally.faults[point, kind]}" for kind in kinds))


def _every_fault() -> dict[str, tuple[str, ...]]:
    """Return each kind by its point, whether it strikes one machine or a cluster."""
    points = dict.fromkeys((*FAULTS, *CLUSTER_FAULTS))
    return {p: tuple(dict.fromkeys(FAULTS.get(p, ()) + CLUSTER_FAULTS.get(p, ()))) for p in points}


def show_failed(result: Result) -> None:
    """Print a seed that broke a rule, and what suffices for it."""
    print(f"SEED={result.seed}: {result.violation}")
    fewest = shrink(result)
    print(f"  suffices: {'; '.join(map(str, fewest.faults)) or 'no fault at all'}")


def tell(seed: int) -> int:
    """Print the story of one seed."""
    result = simulate(seed, told=True)
    print("\n".join(result.story))
    print(f"SEED={seed}: {result.violation or 'no rule was broken'}; {result.jobs} jobs, {result.runs} runs")
    if result.violation is not None:
        fewest = shrink(result)
        print("\nthe same with the fewest faults:")
        print("\n".join(fewest.story))
        print(f"suffices: {'; '.join(map(str, fewest.faults)) or 'no fault at all'}")
    return int(result.violation is not None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="tell the story of this seed")
    parser.add_argument("--seconds", type=float, default=300.0, help="for how long to simulate new seeds")
    parser.add_argument("--jobs", type=int, help="simulate so many jobs, however long that takes")
    parser.add_argument("--first", type=int, help="the first seed (default: the day's)")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.seed is not None:
        return tell(options.seed)
    today = int(time.time() // 86_400) * SEEDS_A_DAY
    first = today if options.first is None else options.first
    began = time.monotonic()
    ends_at = began + options.seconds
    if options.jobs is None:
        tally = simulate_until(lambda _: time.monotonic() >= ends_at, first, options.workers)
    else:
        tally = simulate_until(lambda tally: tally.jobs >= options.jobs, first, options.workers)
    show(tally, time.monotonic() - began, first)
    missing = [
        f"{p}: {kind}" for p, kinds in _every_fault().items() for kind in kinds if not tally.faults[p, kind]
    ]
    if missing:
        print(f"never struck: {', '.join(missing)}")
    for result in tally.failed[:10]:
        show_failed(result)
    print(f"{len(tally.failed)} seed(s) broke a rule")
    return int(bool(tally.failed))


if __name__ == "__main__":
    sys.exit(main())
