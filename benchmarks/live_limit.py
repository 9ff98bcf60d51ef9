"""A hidden limit on generations at once, live: how much of it is used once found, and what finding it costs.

`python -m benchmarks.live_limit` prints the numbers.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final

from benchmarks.live import INTERVAL_S, sandbox_options
from benchmarks.live_polls import run_naive_client, run_veobatch

USED_BOUND: Final = 0.90
REFUSED_BOUND: Final = 1.5


def limit_used(generations: list[list[float]], limit: int, found_at: float) -> float:
    """Return the share of the limit that ran from `found_at` until the last create was accepted.

    `generations` hold created (seconds since the epoch) and how long they rendered (seconds) first.
    """
    last = max(created for created, *_ in generations)
    if last <= found_at:
        return 0.0
    ran = sum(
        max(0.0, min(created + render, last) - max(created, found_at)) for created, render, *_ in generations
    )
    return ran / (limit * (last - found_at))


def limit_metrics(seen: dict[str, Any], limit: int) -> dict[str, float]:
    """Return the share used since the limit was first reached, and refused creates a job."""
    rows = seen["generations"]
    reached = sorted(created for created, *_ in rows)[limit - 1]
    return {
        "used": limit_used(rows, limit, reached),
        "refused_a_job": seen["refused"] / len(rows),
        "peak": seen["peak_in_flight"],
    }


def run(jobs: int = 240, at_once: int = 40, limit: int = 12, rounds: int = 1) -> dict[str, Any]:
    """Return, for ours and for a naive client that repeats after 10 s, medians over the rounds."""
    each: dict[str, list[dict[str, float]]] = {"veobatch": [], "naive": []}
    for seed in range(1, rounds + 1):
        options = sandbox_options(durations="lognormal:75,0.25", seed=seed, concurrency_limit=limit)
        with ThreadPoolExecutor() as pool:  # two accounts, two servers, most of a core idle
            mine = pool.submit(run_veobatch, options, jobs, at_once)
            naive = pool.submit(run_naive_client, options, jobs, at_once, f"fixed:{INTERVAL_S}")
            each["veobatch"].append(limit_metrics(mine.result()[0], limit))
            each["naive"].append(limit_metrics(naive.result(), limit))
    return {
        "jobs": jobs,
        "at_once": at_once,
        "limit": limit,
        "bounds": {"used": USED_BOUND, "refused_a_job": REFUSED_BOUND},
        "clients": {
            who: {name: median(one[name] for one in rows) for name in rows[0]} for who, rows in each.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=240)
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    print(json.dumps(run(args.jobs, limit=args.limit, rounds=args.rounds), indent=1))


if __name__ == "__main__":
    main()
