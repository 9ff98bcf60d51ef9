"""Many workers on one account, on a virtual clock: `python -m benchmarks.simulate_workers [JOBS]`.

The lender and its gate are the real ones; vendor, workers and the time between them are played. Workers die
at random and are replaced; what they had in flight is taken over by others. Printed for each row: how much
of the slots was used while there was enough to do, the peak at the vendor, and how the makespan compares to
that of one worker that never dies.
"""

from __future__ import annotations

import heapq
import math
import sys
import time
from dataclasses import dataclass, field
from random import Random
from typing import Final

from pipeline.cluster.limits import PermitOutcome, PermitPool, PermitResult
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

MEDIAN_S: Final = 80.0
SIGMA: Final = 0.35
INTERVAL_S: Final = 10.0
HEARTBEAT_S: Final = 1.0
FAST_HEARTBEAT_S: Final = 0.02
MAX_PERMITS: Final = 16
POLL_DELAY_S: Final = 2.0
"""How long after its end a generation is noticed, on the average: a poller's delay, not the lender's."""

RESTART_DELAY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table. `mean_life_s` is a worker's, inf for none that dies."""

    jobs: int
    workers: int
    concurrency: int
    account_limit: int | None = None
    mean_lifetime_s: float = math.inf


@dataclass(slots=True)
class SimulatedWorker:
    """One worker: rows in hand, generations by their end, and what it has not reported yet."""

    name: str
    pending_rows: int = 0
    in_flight: int = 0
    dead: bool = False
    create_results: list[PermitResult] = field(default_factory=list)


@dataclass(slots=True)
class SimulationResult:
    makespan_s: float
    used: float
    peak: int
    deaths: int


class WorkersSimulation:
    """One scene, played to its end."""

    def __init__(self, scene: Scenario, seed: int = 1) -> None:
        self.scenario = scene
        self.rng = Random(seed)
        self.permit_pool = PermitPool(
            AdaptiveConcurrencyLimit(scene.concurrency, interval_s=INTERVAL_S, random=self.rng)
        )
        self.limit = min(scene.concurrency, scene.account_limit or scene.concurrency)
        self.pending = scene.jobs
        self.orphaned: list[tuple[str, float]] = []
        self.events: list[tuple[float, int, str, object]] = []
        self.count = 0
        self.now = 0.0
        self.rendering = 0
        self.peak = self.done = self.deaths = self.created = 0
        self.slot_seconds = self.slots_counted_until = 0.0
        self.changed_at = 0.0
        self.rows_per_worker = max(2, min(500, scene.concurrency // (2 * scene.workers)))
        self.noticed_at: dict[str, dict[str, float]] = {}
        for _ in range(scene.workers):
            self.start_worker(self.rng.random() * HEARTBEAT_S)

    def schedule(self, when: float, what: str, whom: object) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what, whom))

    def start_worker(self, when: float) -> None:
        worker = SimulatedWorker(f"w{self.count}")
        self.noticed_at[worker.name] = {}
        self.schedule(when, "beat", worker)
        if self.scenario.mean_lifetime_s < math.inf:
            self.schedule(when + self.rng.expovariate(1 / self.scenario.mean_lifetime_s), "die", worker)

    def run(self) -> SimulationResult:
        while self.done < self.scenario.jobs:
            self.now, _, what, whom = heapq.heappop(self.events)
            if what == "beat" and isinstance(whom, SimulatedWorker):
                self.heartbeat(whom)
            elif what == "die" and isinstance(whom, SimulatedWorker):
                self.kill_worker(whom)
            elif what == "end":
                self.count_slots()
                self.rendering -= 1
            elif what == "notice" and isinstance(whom, tuple):
                self.finish(*whom)
        full = self.limit * self.slots_counted_until
        return SimulationResult(self.now, self.slot_seconds / full if full else 0.0, self.peak, self.deaths)

    def count_slots(self) -> None:
        if self.pending:
            self.slot_seconds += self.rendering * (self.now - self.changed_at)
            self.slots_counted_until = self.now
        self.changed_at = self.now

    def heartbeat(self, worker: SimulatedWorker) -> None:
        if worker.dead:
            return
        verdicts, worker.create_results = worker.create_results, []
        self.permit_pool.update_worker(worker.name, self.now, worker.in_flight, verdicts)
        wanted = min(worker.pending_rows, MAX_PERMITS)
        granted = self.permit_pool.grant(worker.name, self.now, wanted)
        for _ in range(granted):
            self.create(worker)
        took = self.claim(worker)
        self.schedule(self.now + (FAST_HEARTBEAT_S if granted or took else HEARTBEAT_S), "beat", worker)

    def claim(self, worker: SimulatedWorker) -> int:
        wanted = max(0, self.rows_per_worker - worker.pending_rows)
        over, self.orphaned = self.orphaned[:wanted], self.orphaned[wanted:]
        if over:
            self.permit_pool.assign(worker.name, [key for key, _ in over])
            for key, noticed in over:
                worker.in_flight += 1
                self.noticed_at[worker.name][key] = noticed
                self.schedule(max(noticed, self.now + FAST_HEARTBEAT_S), "notice", (worker, key))
        rows = min(wanted - len(over), self.pending)
        worker.pending_rows += rows
        self.pending -= rows
        return rows + len(over)

    def create(self, worker: SimulatedWorker) -> None:
        if self.rendering >= self.limit:
            worker.create_results.append(PermitResult(PermitOutcome.RATE_LIMITED))
            return
        self.count_slots()
        worker.pending_rows -= 1
        worker.in_flight += 1
        self.rendering += 1
        self.peak = max(self.peak, self.rendering)
        worker.create_results.append(PermitResult(PermitOutcome.ACCEPTED))
        self.created += 1
        ends = self.now + self.rng.lognormvariate(math.log(MEDIAN_S), SIGMA)
        noticed = ends + self.rng.random() * 2 * POLL_DELAY_S
        key = str(self.created)
        self.noticed_at[worker.name][key] = noticed
        self.schedule(ends, "end", None)
        self.schedule(noticed, "notice", (worker, key))

    def finish(self, worker: SimulatedWorker, key: str) -> None:
        if not worker.dead and self.noticed_at[worker.name].pop(key, None) is not None:
            worker.in_flight -= 1
            self.done += 1

    def kill_worker(self, worker: SimulatedWorker) -> None:
        worker.dead = True
        self.deaths += 1
        self.pending += worker.pending_rows
        in_flight = self.noticed_at.pop(worker.name)
        self.orphaned += in_flight.items()
        self.permit_pool.remove_worker(worker.name, self.now, in_flight)
        self.start_worker(self.now + RESTART_DELAY_S)


def scenarios(jobs: int) -> list[Scenario]:
    found = [Scenario(jobs, workers, 400) for workers in (1, 4, 16)]
    found += [Scenario(jobs, workers, 400, mean_lifetime_s=600.0) for workers in (1, 4, 16)]
    found += [Scenario(jobs, workers, 400, account_limit=250) for workers in (1, 4, 16)]
    found += [Scenario(jobs, 16, 400, account_limit=250, mean_lifetime_s=600.0)]
    return found


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    base: float | None = None
    head = ("jobs", "workers", "--concurrency", "account limit", "deaths", "slots used", "peak", "makespan")
    print(f"| {' | '.join(head)} | played in |\n|{' --- |' * (len(head) + 1)}")
    for scene in scenarios(jobs):
        began = time.perf_counter()
        result = WorkersSimulation(scene).run()
        base = base or result.makespan_s
        cells = (
            f"{jobs:,}",
            str(scene.workers),
            str(scene.concurrency),
            str(scene.account_limit or "-"),
            f"{result.deaths:,}",
            f"{result.used:.1%}",
            str(result.peak),
            f"x{result.makespan_s / base:.3f}",
            f"{time.perf_counter() - began:.0f} s",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
