"""How long a batch takes, live, against the list-scheduling lower bound for the same durations.

The makespan is from the first accepted create to the last completed status, by the sandbox's own book, in the
vendor's seconds. The vendor's sample loop (one generation after the other, a poll every 15 s) is arithmetic:
it would take hours. `python -m benchmarks.live_makespan` prints the numbers.
"""

from __future__ import annotations

import argparse
import json
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.live import INTERVAL_S, sandbox_options
from benchmarks.live_polls import batch_metrics, render_durations_s, run_naive_client, run_veobatch
from benchmarks.simulate_polling import list_scheduling_makespan

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE_INTERVAL_S: Final = 15.0
BOUND: Final = 1.06


def sample_loop_makespan(taken: Sequence[float], interval_s: float = SAMPLE_INTERVAL_S) -> float:
    """Return the makespan of one job after the other, each noticed by a poll every `interval_s`."""
    return sum(ceil(duration / interval_s) * interval_s for duration in taken)


def run_round(jobs: int, at_once: int, seed: int) -> dict[str, float]:
    """Run both clients once; makespans as multiples of the lower bound for what each was dealt."""
    options = sandbox_options(durations="lognormal:75,0.25", seed=seed)
    seen = {
        "naive": run_naive_client(options, jobs, at_once, f"fixed:{INTERVAL_S}"),
        "veobatch": run_veobatch(options, jobs, at_once)[0],
    }
    found = {who: batch_metrics(one)["makespan_s"] for who, one in seen.items()}
    bounds = {who: list_scheduling_makespan(render_durations_s(one), at_once) for who, one in seen.items()}
    return {
        "bound_s": bounds["veobatch"],
        "veobatch": found["veobatch"] / bounds["veobatch"],
        "naive": found["naive"] / bounds["naive"],
        "sample_loop": sample_loop_makespan(render_durations_s(seen["veobatch"])) / bounds["veobatch"],
    }


def run(jobs: int = 240, at_once: int = 40, rounds: int = 1) -> dict[str, Any]:
    """Return the medians over the rounds and each round's own numbers."""
    each = [run_round(jobs, at_once, seed) for seed in range(1, rounds + 1)]
    return {
        "jobs": jobs,
        "at_once": at_once,
        "bound": BOUND,
        "rounds": each,
        **{name: median(one[name] for one in each) for name in each[0]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=240)
    parser.add_argument("--at-once", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    print(json.dumps(run(args.jobs, args.at_once, args.rounds), indent=1))


if __name__ == "__main__":
    main()
