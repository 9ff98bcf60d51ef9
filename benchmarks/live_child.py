"""The real command `veobatch`, in a process that writes down what CPU and memory it has taken so far.

    python -m benchmarks.live_child SAMPLES[,uvloop][,unsynced] run manifest.jsonl --base-url ...

SAMPLES is the file for the samples: a line each 50 ms, with the time (s since the epoch), the CPU spent (s)
and the largest resident set until then (MB). `uvloop` runs it on that loop; `unsynced` takes from the ledger
its promise that a step is on the disk, to see what the promise costs.
"""

from __future__ import annotations

import asyncio
import functools
import os
import resource
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

STATUS = Path("/proc/self/status")


class UnsyncedConnection(sqlite3.Connection):
    """A connection that never waits for the disk."""

    def execute(self, sql: str, /, *args: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous = FULL", "synchronous = OFF"), *args)


def peak_mb() -> float:
    """Return the largest resident set so far in MB; Linux counts a parent's into `ru_maxrss` at a fork."""
    if STATUS.exists():
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024)


def write_samples(path: Path) -> None:
    """Write a line each 50 ms as long as the process lives, and let it not outlive the benchmark."""
    parent = os.getppid()
    with path.open("w", buffering=1) as file:
        while True:
            file.write(f"{time.time():.4f} {time.process_time():.6f} {peak_mb():.1f}\n")
            time.sleep(0.05)
            if os.getppid() != parent:
                os._exit(1)


def main() -> None:
    samples, *how = sys.argv.pop(1).split(",")
    if "uvloop" in how:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    if "unsynced" in how:
        cast("Any", sqlite3).connect = functools.partial(sqlite3.connect, factory=UnsyncedConnection)
    threading.Thread(target=write_samples, args=[Path(samples)], daemon=True).start()
    from pipeline.cli import main as veobatch

    veobatch()


if __name__ == "__main__":
    main()
