"""What a user waits for beside the vendor: until the first create, and from the last clip to the prompt.

The CPU until the first create stands beside that of importing aiohttp alone, taken in turns, so that a busy
machine slows both. `python -m benchmarks.live_ends` prints the numbers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from typing import Any, Final

from benchmarks.live import HERE, TIMEOUT_S, children_cpu_s, run_server, temp_folder, veobatch_command

WORDS: Final = ("--concurrency", "240", "--poll-interval", "0.2", "--downloads", "16")


def one_run(jobs: int) -> dict[str, float]:
    """Run `jobs` rows that render in half a second; seconds and CPU at both ends."""
    with temp_folder() as folder, run_server("live_minimal_server", "0.5") as server:
        words, environ = veobatch_command(folder, server.url, jobs, *WORDS)
        before, began = children_cpu_s(), time.time()
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words],
            stdout=subprocess.DEVNULL,
            cwd=HERE.parent,
            env=environ,
        ) as process:
            server.stats(process.pid)
            assert process.wait(TIMEOUT_S) == 0
        ended, spent = time.time(), children_cpu_s() - before
        seen = server.stats()
    (first_at, first_cpu_s, _), (last_at, last_cpu_s, _) = seen["first_create"], seen["last_video"]
    return {
        "start_s": first_at - began,
        "start_cpu_s": first_cpu_s,
        "end_s": ended - last_at,
        "end_cpu_s": spent - last_cpu_s,
    }


def import_cpu_s() -> float:
    """Return the CPU of a process that imports aiohttp and does nothing."""
    before = children_cpu_s()
    subprocess.run([sys.executable, "-c", "import aiohttp"], check=True, timeout=TIMEOUT_S)
    return children_cpu_s() - before


def run(jobs: int = 240, rounds: int = 3) -> dict[str, Any]:
    """Return the medians over the rounds, and each round's own numbers."""
    each = [{**one_run(jobs), "import_cpu_s": import_cpu_s()} for _ in range(rounds)]
    for one in each:
        one["start_of_import"] = one["start_cpu_s"] / one["import_cpu_s"]
        one["end_of_import"] = one["end_cpu_s"] / one["import_cpu_s"]
    medians = {name: median(one[name] for one in each) for name in each[0]}
    return {"jobs": jobs, "rounds": each, **medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(json.dumps(run(args.jobs, args.rounds), indent=1))


if __name__ == "__main__":
    main()
