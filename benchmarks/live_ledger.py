"""What durability costs: many fast jobs with the ledger's promise kept, and the same without it.

The same real command, server and jobs; in every second run SQLite is told not to wait for the disk
(`synchronous = OFF`), which is the only difference. `python -m benchmarks.live_ledger` prints the numbers.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import Any, Final

from benchmarks.live import VeobatchProcess, run_server, temp_folder

BOUND: Final = 1.10


def one_run(jobs: int, *how: str) -> float:
    """Return the seconds from the engine's start to its end, by the command's own summary."""
    words = ["--concurrency", "400", "--poll-interval", "0.2", "--downloads", "16", "--no-media"]
    with temp_folder() as folder, run_server("live_minimal_server", "0.5") as server:
        return float(VeobatchProcess(folder, server.url, jobs, *words, modes=how).wait()["wall_s"])


def one_pair(jobs: int, turn: int) -> tuple[float, float]:
    """Run both ways, each first in every second turn; return the seconds of each, the durable one first."""
    if turn % 2:
        unsynced = one_run(jobs, "unsynced")
        return one_run(jobs), unsynced
    return one_run(jobs), one_run(jobs, "unsynced")


def run(jobs: int = 3000, rounds: int = 4) -> dict[str, Any]:
    """Return the median seconds of each way, and the median ratio of neighbours."""
    pairs = [one_pair(jobs, turn) for turn in range(rounds)]
    return {
        "jobs": jobs,
        "durable_s": median(one for one, _ in pairs),
        "unsynced_s": median(other for _, other in pairs),
        "ratio": median(one / other for one, other in pairs),
        "ratios": [one / other for one, other in pairs],
        "bound": BOUND,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    print(json.dumps(run(args.jobs, args.rounds), indent=1))


if __name__ == "__main__":
    main()
