"""A batch that workers carry out, and who of them lives, for those who kill, stop and wake them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.batches import Batch
from tests.edge.ledgers import server

if TYPE_CHECKING:
    import signal

    from pipeline.sandbox import Sandbox

LEASE_S = 2.0


def batch_of(
    folder: Path, box: Sandbox, jobs: int, *, workers: int, concurrency: int, ledger: str = ""
) -> Batch:
    """A batch for workers on this machine, with a ledger in PostgreSQL."""
    options = (
        *("--poll-interval", "0.2", "--reconcile-after", "8", "--concurrency", str(concurrency)),
        *("--engine", "ray", "--workers", str(workers), "--lease", str(LEASE_S)),
        *("--ledger", ledger or server().url(server().new_database())),
    )
    return Batch(folder, box, jobs, options)


def workers_of(driver: int) -> list[int]:
    """The processes of the workers that a driver has now, in the order in which they were started."""
    found = []
    for pid in descendants(driver):
        try:
            command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::WorkerProcess"):
            found.append(pid)
    return sorted(found)


def descendants(pid: int) -> set[int]:
    """Every process below `pid`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: set[int] = set()
    fresh = {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def tell(pid: int, number: signal.Signals) -> bool:
    """Send a signal; say whether there was anyone to get it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
