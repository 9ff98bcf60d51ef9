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

from pipeline.cluster.limits import Lender, Outcome, Verdict
from pipeline.submit.concurrency import CreateGate

MEDIAN_S: Final = 80.0
SIGMA: Final = 0.35
INTERVAL_S: Final = 10.0
HUNGRY_S: Final = 1.0
QUICK_S: Final = 0.02
MOST_PERMITS: Final = 16
NOTICE_S: Final = 2.0
"""How long after its end a generation is noticed, on the average: a looker's delay, not the lender's."""

REVIVAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Scene:
    """One row of the table. `mean_life_s` is a worker's, inf for none that dies."""

    jobs: int
    workers: int
    concurrency: int
    account_limit: int | None = None
    mean_life_s: float = math.inf


@dataclass(slots=True)
class Played:
    """One worker: rows in hand, generations by their end, and what it has not reported yet."""

    name: str
    hand: int = 0
    in_flight: int = 0
    dead: bool = False
    verdicts: list[Verdict] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    makespan_s: float
    used: float
    peak: int
    deaths: int


class Play:
    """One scene, played to its end."""

    def __init__(self, scene: Scene, seed: int = 1) -> None:
        self.scene = scene
        self.chance = Random(seed)
        self.lender = Lender(CreateGate(scene.concurrency, interval_s=INTERVAL_S, random=self.chance))
        self.limit = min(scene.concurrency, scene.account_limit or scene.concurrency)
        self.pending = scene.jobs
        self.orphans: list[tuple[str, float]] = []
        self.events: list[tuple[float, int, str, object]] = []
        self.count = 0
        self.now = 0.0
        self.rendering = 0
        self.peak = self.done = self.deaths = self.keys = 0
        self.area = self.area_until = 0.0
        self.changed_at = 0.0
        self.hand = max(2, min(500, scene.concurrency // (2 * scene.workers)))
        self.flying: dict[str, dict[str, float]] = {}
        for _ in range(scene.workers):
            self.join(self.chance.random() * HUNGRY_S)

    def at(self, when: float, what: str, whom: object) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what, whom))

    def join(self, when: float) -> None:
        worker = Played(f"w{self.count}")
        self.flying[worker.name] = {}
        self.at(when, "beat", worker)
        if self.scene.mean_life_s < math.inf:
            self.at(when + self.chance.expovariate(1 / self.scene.mean_life_s), "die", worker)

    def run(self) -> Result:
        while self.done < self.scene.jobs:
            self.now, _, what, whom = heapq.heappop(self.events)
            if what == "beat" and isinstance(whom, Played):
                self.beat(whom)
            elif what == "die" and isinstance(whom, Played):
                self.die(whom)
            elif what == "end":
                self.count_area()
                self.rendering -= 1
            elif what == "notice" and isinstance(whom, tuple):
                self.notice(*whom)
        full = self.limit * self.area_until
        return Result(self.now, self.area / full if full else 0.0, self.peak, self.deaths)

    def count_area(self) -> None:
        if self.pending:
            self.area += self.rendering * (self.now - self.changed_at)
            self.area_until = self.now
        self.changed_at = self.now

    def beat(self, worker: Played) -> None:
        if worker.dead:
            return
        verdicts, worker.verdicts = worker.verdicts, []
        self.lender.report(worker.name, self.now, worker.in_flight, verdicts)
        wanted = min(worker.hand, MOST_PERMITS)
        granted = self.lender.grant(worker.name, self.now, wanted)
        for _ in range(granted):
            self.create(worker)
        took = self.claim(worker)
        self.at(self.now + (QUICK_S if granted or took else HUNGRY_S), "beat", worker)

    def claim(self, worker: Played) -> int:
        wanted = max(0, self.hand - worker.hand)
        over, self.orphans = self.orphans[:wanted], self.orphans[wanted:]
        if over:
            self.lender.took(worker.name, [key for key, _ in over])
            for key, noticed in over:
                worker.in_flight += 1
                self.flying[worker.name][key] = noticed
                self.at(max(noticed, self.now + QUICK_S), "notice", (worker, key))
        rows = min(wanted - len(over), self.pending)
        worker.hand += rows
        self.pending -= rows
        return rows + len(over)

    def create(self, worker: Played) -> None:
        if self.rendering >= self.limit:
            worker.verdicts.append(Verdict(Outcome.THROTTLED))
            return
        self.count_area()
        worker.hand -= 1
        worker.in_flight += 1
        self.rendering += 1
        self.peak = max(self.peak, self.rendering)
        worker.verdicts.append(Verdict(Outcome.ACCEPTED))
        self.keys += 1
        ends = self.now + self.chance.lognormvariate(math.log(MEDIAN_S), SIGMA)
        noticed = ends + self.chance.random() * 2 * NOTICE_S
        key = str(self.keys)
        self.flying[worker.name][key] = noticed
        self.at(ends, "end", None)
        self.at(noticed, "notice", (worker, key))

    def notice(self, worker: Played, key: str) -> None:
        if not worker.dead and self.flying[worker.name].pop(key, None) is not None:
            worker.in_flight -= 1
            self.done += 1

    def die(self, worker: Played) -> None:
        worker.dead = True
        self.deaths += 1
        self.pending += worker.hand
        left = self.flying.pop(worker.name)
        self.orphans += left.items()
        self.lender.gone(worker.name, self.now, left)
        self.join(self.now + REVIVAL_S)


def scenes(jobs: int) -> list[Scene]:
    found = [Scene(jobs, workers, 400) for workers in (1, 4, 16)]
    found += [Scene(jobs, workers, 400, mean_life_s=600.0) for workers in (1, 4, 16)]
    found += [Scene(jobs, workers, 400, account_limit=250) for workers in (1, 4, 16)]
    found += [Scene(jobs, 16, 400, account_limit=250, mean_life_s=600.0)]
    return found


def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    base: float | None = None
    head = ("jobs", "workers", "--concurrency", "account limit", "deaths", "slots used", "peak", "makespan")
    print(f"| {' | '.join(head)} | played in |\n|{' --- |' * (len(head) + 1)}")
    for scene in scenes(jobs):
        began = time.perf_counter()
        result = Play(scene).run()
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
