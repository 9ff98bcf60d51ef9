"""The time left on a virtual clock: the real `Eta` against runs whose end is known.

Run as `python -m benchmarks.simulate_eta`; a table of errors at a third, a half and two thirds of the run,
as shares of the whole run and of what was really left. `stranger` has no memory of earlier runs, `returning`
remembers a hundred renderings, `all-knowing` is told the distribution: nobody can do better than that but by
luck, and what it misses by is the chance of the slowest rendering.
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_right
from dataclasses import dataclass, replace
from math import exp
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Final

from pipeline.model import Record, State
from pipeline.poll.duration_key import duration_key
from pipeline.poll.eta import EtaEstimator
from pipeline.poll.finish_simulation import time_left_s
from pipeline.poll.learner import DurationLearner
from pipeline.poll.schedule import PollSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    DurationSampler = Callable[[Random], float]
    TimedTransition = tuple[float, Record, Record]

INTERVAL_S: Final = 10.0
DOWNLOAD_S: Final = 2.0
SIZES: Final = (6, 20, 40, 60, 200, 1000)
SLOTS: Final = (6, 20)
CHECKPOINTS: Final = (1 / 3, 1 / 2, 2 / 3)
BODY: Final = json.dumps({"model": "any", "duration": 8})
DURATION_KEY: Final = duration_key("any", json.loads(BODY))
DISTRIBUTIONS: Final[dict[str, DurationSampler]] = {
    "lognormal 0.35": lambda random: 80.0 * exp(random.gauss(0.0, 0.35)),
    "lognormal 0.6": lambda random: 80.0 * exp(random.gauss(0.0, 0.6)),
    "two modes": lambda random: random.gauss(50, 5) if random.random() < 0.6 else random.gauss(130, 12),
    "uniform": lambda random: random.uniform(40.0, 120.0),
}


def make_record(index: int) -> Record:
    return Record(f"{index}@", str(index), "", index, "any", BODY, "", "")


def simulate_transitions(durations: Sequence[float], slots: int, seed: int) -> list[TimedTransition]:
    """Return the moves of a run as an observer sees them, polls at the product's own pace included."""
    queue = PollSchedule(DurationLearner(INTERVAL_S), interval_s=INTERVAL_S, random=Random(seed))
    moves: list[TimedTransition] = []
    rows: dict[str, Record] = {}
    now, started = 0.0, 0
    while started < len(durations) or len(queue):
        while started < len(durations) and len(queue) < slots:
            sent = make_record(started).evolve(State.SUBMITTING, submitted_at=now)
            rows[sent.key] = sent.evolve(State.GENERATING)
            moves.append((now, sent, rows[sent.key]))
            queue.add(sent.key, DURATION_KEY, now=now)
            started += 1
        now = max(now, queue.next_due() or now)
        key = queue.pop_due(now)
        if key is None:
            continue
        before = rows[key]
        if now < (before.submitted_at or 0.0) + durations[before.position]:
            queue.still_running(key, now=now)
            rows[key] = replace(before, not_yet_at=now)
            continue
        queue.finished(key, now=now)
        ready = before.evolve(State.READY, finished_at=now)
        saved = ready.evolve(State.DONE, downloaded_at=now + DOWNLOAD_S)
        moves += [(now, before, ready), (now + DOWNLOAD_S, ready, saved)]
    return sorted(moves, key=lambda move: move[0])


def learner_with_cache(draw: DurationSampler) -> DurationLearner:
    """Return what a run of a hundred rows would have left."""
    learner, random = DurationLearner(INTERVAL_S), Random(777)
    for _ in range(100):
        took, age = max(5.0, draw(random)), 0.0
        while (poll_age := learner.poll_times(DURATION_KEY).next_poll_age(age)) < took:
            learner.on_still_running(DURATION_KEY, age, poll_age)
            age = poll_age
        learner.on_finished(DURATION_KEY, age, poll_age)
    earlier = DurationLearner(INTERVAL_S)
    earlier.restore(learner.dump())
    return earlier


@dataclass(frozen=True, slots=True)
class KnownDistribution:
    """The distribution itself, with half a poll interval until an end is noticed."""

    times: Sequence[float]
    mean_s: float

    def residual_at(self, age_s: float) -> Callable[[float], float]:
        first = bisect_right(self.times, age_s)
        left = self.times[first:] if first < len(self.times) else [age_s + INTERVAL_S / 4]
        return lambda share: left[min(len(left) - 1, int(len(left) * (1.0 - share)))] - age_s


def known_distribution(draw: DurationSampler) -> KnownDistribution:
    random = Random(99)
    times = sorted(max(5.0, draw(random)) + random.uniform(0.0, INTERVAL_S / 2) for _ in range(5000))
    return KnownDistribution(times, fmean(times))


def estimates(
    moves: Sequence[TimedTransition], rows: int, slots: int, who: DurationLearner | KnownDistribution | None
) -> list[float]:
    """Return what is said to be left at the shares `AT` of the run; -1 where nobody knows."""
    clock, total = [0.0], moves[-1][0]
    learner = who if isinstance(who, DurationLearner) else None
    eta = EtaEstimator(
        [make_record(index) for index in range(rows)], slots, learner=learner, wall=lambda: clock[0]
    )
    in_flight_since: dict[str, float] = {}
    found: list[float] = []
    started, rest = 0, list(reversed(moves))
    for at in CHECKPOINTS:
        while rest and rest[-1][0] <= at * total:
            clock[0], before, after = rest.pop()
            eta.on_transition(before, after)
            in_flight_since.pop(after.key, None)
            if after.state is State.GENERATING:
                started += 1
                in_flight_since[after.key] = clock[0]
        clock[0] = at * total
        if isinstance(who, KnownDistribution):
            running = [(who, clock[0] - started_at) for started_at in in_flight_since.values()]
            found.append(time_left_s(running, [(who, rows - started)], slots) + DOWNLOAD_S)
        else:
            left = eta()
            found.append(-1.0 if left is None else left)
    return found


def measure_errors(
    rows: int, slots: int, seeds: int
) -> dict[str, tuple[list[float], list[float], list[float]]]:
    """Return, by who guesses, the mean errors (of the whole, of what is left) and how often nobody knew."""
    seen: dict[str, list[list[tuple[float, float, float]]]] = {}
    for draw in DISTRIBUTIONS.values():
        estimators = {
            "stranger": None,
            "returning": learner_with_cache(draw),
            "all-knowing": known_distribution(draw),
        }
        for seed in range(seeds):
            random = Random(seed * 7919 + rows)
            moves = simulate_transitions([max(5.0, draw(random)) for _ in range(rows)], slots, seed)
            total = moves[-1][0]
            for name, who in estimators.items():
                lefts = estimates(moves, rows, slots, who)
                columns = seen.setdefault(name, [[] for _ in CHECKPOINTS])
                for column, at, left in zip(columns, CHECKPOINTS, lefts, strict=True):
                    real = (1.0 - at) * total
                    column.append((abs(left - real) / total, abs(left - real) / real, left))
    return {name: _means(columns) for name, columns in seen.items()}


def _means(
    columns: list[list[tuple[float, float, float]]],
) -> tuple[list[float], list[float], list[float]]:
    known = [[found for found in column if found[2] >= 0.0] for column in columns]
    of_whole = [fmean(found[0] for found in column) if column else 1.0 for column in known]
    of_left = [fmean(found[1] for found in column) if column else 1.0 for column in known]
    unknown = [1.0 - len(some) / len(column) for some, column in zip(known, columns, strict=True)]
    return of_whole, of_left, unknown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12, help="runs of each kind (fewer of large ones)")
    seeds = parser.parse_args().seeds
    print("rows slots  who          of the run        of what is left   unknown   (%, at 1/3 1/2 2/3)")
    for rows in SIZES:
        for slots in SLOTS:
            for name, parts in measure_errors(
                rows, slots, max(2, seeds if rows <= 200 else seeds // 4)
            ).items():
                cells = ["  ".join(f"{100 * value:3.0f}" for value in part) for part in parts]
                print(f"{rows:4} {slots:5}  {name:12} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
