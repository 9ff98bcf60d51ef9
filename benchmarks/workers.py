"""Many workers on one machine: `python -m benchmarks.workers [throughput|slots|messages] [JOBS]`.

`throughput`: jobs that render in no time, so that what is measured is the command's own work: creates, polls,
downloads and ledger. The clock runs from the first create that the vendor sees to the last video in its
place; starting Ray is not counted. `slots`: jobs that render for 80 s on the average at a speed of 20; the
share of `--concurrency` that rendered between the first create and the last, so with rows left to be
submitted. `messages`: how many reports a second one account answers, from 16 who wait for each answer. The
ledger is a PostgreSQL that is started for it.
"""

from __future__ import annotations

import asyncio
import csv
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Final

from pipeline.client import ApiKey
from pipeline.cluster.limits import PollStats
from pipeline.cluster.messages import ClusterConfig, Heartbeat
from pipeline.ledger import Ledger
from pipeline.sandbox import Sandbox, SandboxOptions
from pipeline.settings import Settings
from tests.crash.batches import Batch
from tests.integration.ledger_servers import shared_postgres

ROUNDS: Final = 3
WORKERS: Final = (0, 1, 2, 4)
"""0 stands for the local engine."""

FAST_SANDBOX: Final = SandboxOptions(speed=100.0, durations="fixed:5", video="small", log_lag_s=0.0)
REALISTIC_SANDBOX: Final = SandboxOptions(speed=20.0, video="small", log_lag_s=0.0)
SLOTS: Final = 40
CONCURRENT_CALLERS: Final = 16


def options(workers: int, *more: str) -> tuple[str, ...]:
    ray = ("--engine", "ray", "--workers", str(workers)) if workers else ()
    return (*more, "--no-media", "--ledger", shared_postgres().url(shared_postgres().new_database()), *ray)


async def jobs_per_s(folder: Path, jobs: int, workers: int) -> float:
    """Run one batch of jobs that render in no time."""
    chosen = options(workers, "--poll-interval", "0.2", "--concurrency", "64")
    async with Sandbox(FAST_SANDBOX) as box:
        batch = Batch(folder, box, jobs, chosen)
        code = await batch.finish(600)
        assert code == 0, batch.output_text()
        first = min(generation.created_at for generation in box.state.generations)
    with (batch.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        last = max(datetime.fromisoformat(row["downloaded_at"]) for row in csv.DictReader(file))
    return jobs / (last.timestamp() - first)


async def slots_used(folder: Path, jobs: int, workers: int) -> tuple[float, int]:
    """Run one batch of jobs that take their time; return the share of slots that was used, and the peak."""
    chosen = options(workers, "--poll-interval", "0.5", "--concurrency", str(SLOTS))
    async with Sandbox(REALISTIC_SANDBOX) as box:
        batch = Batch(folder, box, jobs, chosen)
        code = await batch.finish(900)
        assert code == 0, batch.output_text()
        spans = [(one.created_at, one.finishes_at) for one in box.state.generations]
    last = max(begun for begun, _ in spans)
    first = min(begun for begun, _ in spans)
    rendered = sum(min(ended, last) - begun for begun, ended in spans)
    return rendered / (SLOTS * (last - first)), box.state.peak_in_flight


async def measure_throughput(jobs: int) -> None:
    found: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for workers in WORKERS:
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(workers, []).append(await jobs_per_s(Path(folder), jobs, workers))
    base = statistics.median(found[1])
    print("| engine | jobs a second | ratio |\n| --- | --- | --- |")
    for workers, rates in found.items():
        print(
            f"| {engine_label(workers)} | {statistics.median(rates):.0f} "
            f"| {statistics.median(rates) / base:.2f} |"
        )


async def measure_slots(jobs: int) -> None:
    print("| engine | slots used | peak |\n| --- | --- | --- |")
    for workers in WORKERS:
        with tempfile.TemporaryDirectory() as folder:
            used, peak = await slots_used(Path(folder), jobs, workers)
        print(f"| {engine_label(workers)} | {used:.1%} | {peak} of {SLOTS} |", flush=True)


async def measure_messages(reports: int) -> None:
    """Ask one account as fast as it answers; no row moves."""
    from pipeline.cluster import ray_backend

    ray_backend.start_or_join(None, 1)
    where = shared_postgres().url(shared_postgres().new_database())
    async with await Ledger.open(where) as ledger:
        epoch, orphans = await ledger.begin_epoch()
    job = ClusterConfig(where, "default", "", "", ApiKey("none", "-"), Settings(), 1, 60.0)
    account = ray_backend.start_coordinator("asked", job, epoch, orphans)
    await account.open()

    async def ask(name: str) -> None:
        await account.join(name)
        for _ in range(reports // CONCURRENT_CALLERS):
            await account.heartbeat(Heartbeat(name, 1, PollStats(1, 1, 1)))

    began = time.perf_counter()
    await asyncio.gather(*(ask(f"worker {number}") for number in range(CONCURRENT_CALLERS)))
    print(f"{reports / (time.perf_counter() - began):,.0f} messages a second")
    ray_backend.kill(account, [])
    ray_backend.shutdown()


def engine_label(workers: int) -> str:
    return "local" if not workers else f"ray, {workers} worker{'s' if workers > 1 else ''}"


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "throughput"
    jobs = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    asyncio.run(
        {"throughput": measure_throughput, "slots": measure_slots, "messages": measure_messages}[what](jobs)
    )


if __name__ == "__main__":
    main()
