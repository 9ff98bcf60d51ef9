"""Throughput by the number of workers on one machine: `python -m benchmarks.workers [JOBS]`.

Jobs that render in no time, so that what is measured is the command's own work: creates, looks, downloads and
ledger. The clock runs from the first create that the vendor sees to the last video in its place; starting
Ray is not counted. The ledger is a PostgreSQL that is started for it.
"""

from __future__ import annotations

import asyncio
import csv
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from pipeline.sandbox import Sandbox, SandboxOptions
from tests.crash.batches import Batch
from tests.edge.ledgers import server

ROUNDS = 3
FAST = SandboxOptions(speed=100.0, durations="fixed:5", video="small", log_lag_s=0.0)


async def jobs_a_second(folder: Path, jobs: int, workers: int) -> float:
    """Run one batch; `workers` 0 stands for the local engine."""
    ray = ("--engine", "ray", "--workers", str(workers)) if workers else ()
    url = server().url(server().new_database())
    options = ("--poll-interval", "0.2", "--concurrency", "64", "--no-media", "--ledger", url, *ray)
    async with Sandbox(FAST) as box:
        batch = Batch(folder, box, jobs, options)
        code = await batch.finish(600)
        assert code == 0, batch.said()
        first = min(generation.created_at for generation in box.book.generations)
    with (batch.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        last = max(datetime.fromisoformat(row["downloaded_at"]) for row in csv.DictReader(file))
    return jobs / (last.timestamp() - first)


async def main() -> None:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    found: dict[int, list[float]] = {}
    for _ in range(ROUNDS):
        for workers in (0, 1, 2, 4):
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(workers, []).append(await jobs_a_second(Path(folder), jobs, workers))
    base = statistics.median(found[1])
    print("| engine | jobs a second | ratio |\n| --- | --- | --- |")
    for workers, rates in found.items():
        name = f"ray, {workers} workers" if workers else "local"
        print(f"| {name} | {statistics.median(rates):.0f} | {statistics.median(rates) / base:.2f} |")


if __name__ == "__main__":
    asyncio.run(main())
