"""What a poll costs: CPU and requests a second beside a bare loop over the same library; memory in flight.

`python -m benchmarks.live_cost` prints the numbers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import tracemalloc
from importlib.util import find_spec
from random import Random
from statistics import median
from typing import Any, Final

from benchmarks.ledger import make_record
from benchmarks.live import HERE, VeobatchProcess, run_client, run_server, temp_folder, wait_for_count
from benchmarks.simulate_night import bytes_per_generation
from pipeline.model import Record, State
from pipeline.poll.learner import DurationLearner
from pipeline.poll.schedule import PollSchedule
from pipeline.run_state import RunState

WORKERS: Final = 128
"""As many pollers as the real engine has."""

JOBS: Final = 400
"""Generations polled, and tasks of the bare loop at the same pace."""

CPU_BOUND: Final = 1.5
BYTES_BOUND: Final = 1000
RSS_BOUND_MB: Final = 300


def measure_bare_loop(
    seconds: float, *how: str, tasks: int = WORKERS, period_s: float = 0.0
) -> dict[str, float]:
    """Time the bare loop: requests a second, and CPU a request in microseconds."""
    with run_server("live_minimal_server") as server:
        words = ["bare", str(tasks), str(seconds), str(period_s), *how]
        told = json.loads(run_client(server.url, *words))
    return {
        "requests_per_s": told["requests"] / told["wall_s"],
        "cpu_us": 1e6 * told["cpu_s"] / told["requests"],
    }


def measure_polling(
    seconds: float, *how: str, jobs: int = JOBS, interval_s: float = 0.01
) -> dict[str, float]:
    """Time the real command with everything on while it polls generations that never finish."""
    words = ["--concurrency", str(jobs), "--poll-interval", str(interval_s), "--timeout", "600"]
    with temp_folder() as folder, run_server("live_minimal_server") as server:
        command = VeobatchProcess(folder, server.url, jobs, *words, modes=how)
        try:
            wait_for_count(server, "creates", jobs)
            time.sleep(1.0)
            began = server.stats()
            time.sleep(seconds)
            ended = server.stats()
            time.sleep(0.2)
            cpu_s = command.cpu_between(began["now"], ended["now"])
        finally:
            command.stop()
    polls = ended["polls"] - began["polls"]
    wall_s = ended["now"] - began["now"]
    return {"requests_per_s": polls / wall_s, "cpu_us": 1e6 * cpu_s / polls, "cpu_share": cpu_s / wall_s}


def measure_poll_cost(seconds: float = 2.5, rounds_count: int = 3, *, uvloop: bool = True) -> dict[str, Any]:
    """Return the medians of each, taken in turns, and the median ratios of neighbours.

    A loop that is never idle takes many answers from one wake-up; at the pace of a run each has its own. So
    the bare loop is timed both ways: flat out, and at the very pace at which ours just went.
    """
    each: dict[str, list[dict[str, float]]] = {}

    def add(who: str, found: dict[str, float]) -> float:
        each.setdefault(who, []).append(found)
        return found["requests_per_s"]

    for _ in range(rounds_count):
        for loop in ["asyncio", "uvloop"] if uvloop and find_spec("uvloop") else ["asyncio"]:
            pace = add(f"veobatch, {loop}", measure_polling(seconds, loop))
            add(
                f"bare, same pace, {loop}", measure_bare_loop(seconds, loop, tasks=JOBS, period_s=JOBS / pace)
            )
            add(f"bare, flat out, {loop}", measure_bare_loop(seconds, loop))
    rows = {who: {key: median(one[key] for one in found) for key in found[0]} for who, found in each.items()}
    ratios = {
        pace: median(
            mine["cpu_us"] / other["cpu_us"]
            for mine, other in zip(each["veobatch, asyncio"], each[f"bare, {pace}, asyncio"], strict=True)
        )
        for pace in ("same pace", "flat out")
    }
    return {"rows": rows, "cpu_ratios": ratios}


def bytes_in_flight(generations: int) -> dict[str, float]:
    """Return the bytes of each generation in flight: the queue alone, and with its record on the board.

    The record holds the manifest's text (the prompt, the URL, the body), the ids and the times.
    """
    tracemalloc.start()
    records = [record_in_flight(n) for n in range(generations)]
    whole = tracemalloc.get_traced_memory()[0]
    board = RunState.from_records(records)
    queue = PollSchedule(DurationLearner(10.0), interval_s=10.0, random=Random(1))
    for n, key in enumerate(board.records):
        queue.add(key, "google/veo-3.1-i2v-fast|1080p|8", now=n * 1e-3)
        board.poll_counts[key] += 1
        board.not_yet_at[key] = 1.5e9 + n
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {
        "queue": bytes_per_generation(generations),
        "queue_and_board": (size - whole) / generations,
        "with_record": size / generations,
    }


def bytes_in_subprocess(generations: int) -> dict[str, float]:
    """Return `bytes_in_flight` as a process of its own finds it: what we hold is handed on at a fork."""
    words = [sys.executable, "-m", "benchmarks.live_cost", "--bytes", str(generations)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def record_in_flight(n: int) -> Record:
    """Return a record as it stands while its generation renders, with strings of its own."""
    record = make_record("take", n)
    return record.evolve(
        State.GENERATING,
        submission_no=1,
        attempts=1,
        correlation_id=f"vb.0123456789ab.{record.id}.0123456789abcdef.1",
        generation_id=f"812dcc2d-05ba-4ea4-bd79-{n:012}:google/veo-3.1-i2v-fast",
        submitted_at=1.5e9 + n,
        accepted_at=1.5e9 + n + 0.5,
    )


def measure_resident(jobs: int = 3000) -> dict[str, float]:
    """Return the resident set (MB) of the real command with so many generations in flight."""
    words = ["--concurrency", str(jobs), "--poll-interval", "3"]
    with temp_folder() as folder, run_server("live_minimal_server") as server:
        started = time.monotonic()
        command = VeobatchProcess(folder, server.url, jobs, *words)
        try:
            wait_for_count(server, "creates", jobs)
            accepted_s = time.monotonic() - started
            wait_for_count(server, "polls", jobs)
            time.sleep(0.2)
            last = command.samples()[-1]
        finally:
            command.stop()
    return {"jobs": jobs, "rss_mb": last.rss_mb, "all_accepted_s": accepted_s}


def run(
    seconds: float = 2.5, rounds: int = 3, flights: tuple[int, ...] = (3000,), *, full: bool = True
) -> dict[str, Any]:
    """Return what polls and generations in flight cost; `flights` are those of real runs.

    Unless it is to be `full`, uvloop and the larger of two numbers of generations are left out.
    """
    return {
        "polls": measure_poll_cost(seconds, rounds, uvloop=full),
        "bytes": {str(size): bytes_in_subprocess(size) for size in (10_000, *([100_000] if full else []))},
        "resident": [measure_resident(jobs) for jobs in flights],
        "bounds": {"cpu_ratio": CPU_BOUND, "bytes": BYTES_BOUND, "rss_mb": RSS_BOUND_MB},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flights", type=int, nargs="*", default=[3000])
    parser.add_argument("--bytes", type=int, help="only weigh so many generations")
    args = parser.parse_args()
    if args.bytes:
        print(json.dumps(bytes_in_flight(args.bytes)))
        return
    print(json.dumps(run(args.seconds, args.rounds, tuple(args.flights)), indent=1))


if __name__ == "__main__":
    main()
