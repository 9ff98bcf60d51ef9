"""A batch that workers carry out, and who of them lives, for those who kill, stop and wake them."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.crash import batches
from tests.crash.batches import ROOT, Batch
from tests.integration.ledger_servers import shared_postgres

if TYPE_CHECKING:
    import signal

    from pipeline.sandbox import Sandbox
    from tests.forked_python import Command

__all__ = [
    "COORDINATOR_PROCESS",
    "LEASE_S",
    "ROOT",
    "WORKER_PROCESS",
    "command_of",
    "descendants",
    "make_cluster_batch",
    "pids_named",
    "send_signal",
    "wait_until",
    "wait_until_seen",
]

LEASE_S = 8.0
"""A worker of a busy machine may say nothing for two seconds, and each that is replaced makes it busier."""
WORKER_PROCESS = "ray::WorkerProcess"
COORDINATOR_PROCESS = "ray::Coordinator"
wait_until = partial(batches.wait_until, interval_s=0.02)
"""For what the sandbox knows."""
wait_until_seen = partial(batches.wait_until, interval_s=0.2)
"""For what is seen from outside: reading all of /proc, a file or a database takes 5 ms of a busy machine."""


@dataclass(frozen=True, slots=True)
class ClusterBatch(Batch):
    """A batch whose end is waited for as long as it may take on a busy machine, and no longer."""

    ledger: str = ""

    def workers_with_rows(self) -> set[str]:
        """The workers that rows are leased to at this moment."""
        with psycopg.connect(self.ledger, autocommit=True) as connection:
            try:
                found = connection.execute(
                    "SELECT DISTINCT worker FROM veobatch_records WHERE worker IS NOT NULL"
                )
            except psycopg.errors.UndefinedTable:
                return set()
            return {name for (name,) in found}

    async def _start_python(self, *args: str, env: dict[str, str], output: int) -> Command:
        """A real start: Ray looks at how its driver was started."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *args),
            cwd=self.folder,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    async def ended(self, process: Command, within_s: float = 600.0) -> int:
        try:
            async with asyncio.timeout(within_s):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"not ended within {within_s} s\n{self.output_text()}") from None


def make_cluster_batch(
    folder: Path, box: Sandbox, jobs: int, *extra: str, workers: int, concurrency: int, ledger: str = ""
) -> ClusterBatch:
    """A batch with a ledger in PostgreSQL; workers are on this machine unless `extra` names a cluster."""
    ledger = ledger or shared_postgres().url(shared_postgres().new_database())
    options = (
        *("--poll-interval", "0.2", "--reconcile-after", "5", "--concurrency", str(concurrency)),
        *("--engine", "ray", "--workers", str(workers), "--lease", str(LEASE_S)),
        *("--ledger", ledger),
    )
    return ClusterBatch(folder, box, jobs, (*options, *extra), ledger)


def pids_named(name: str, *ancestors: int) -> list[int]:
    """The processes below `above` whose command line begins with `name`, in the order of their start."""
    below = {found for pid in ancestors for found in descendants(pid)}
    return sorted(pid for pid in below if command_of(pid).startswith(name))


def command_of(pid: int) -> str:
    """What a process was started as, or calls itself; empty when it is gone."""
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    first = words[0].decode(errors="replace")
    return first if first.startswith("ray::") else first.rpartition("/")[2]


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


def send_signal(pid: int, number: signal.Signals) -> bool:
    """Send a signal; say whether there was anyone to get it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
