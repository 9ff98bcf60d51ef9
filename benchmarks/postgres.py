"""What a PostgreSQL ledger that many workers share does in a second, in the middle of a batch.

    python -m benchmarks.postgres [ROWS]            100,000 rows, of which 30% are done and 1,000 lent
    python -m benchmarks.postgres ROWS --no-fsync   the disk left out of it

Starts a PostgreSQL of its own and prints a table. Each connection that makes steps is a process of its own,
as a worker is; `claim` and `revoke` are called as the account calls them. Medians; the slowest in brackets.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks.ledger import make_record, run_row
from benchmarks.memory import rss_mib
from benchmarks.report import table
from pipeline.ledger import Ledger
from tests.integration.ledger_servers import PostgresServer, remove_server
from tests.integration.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from pipeline.ledger.leases import LeasedRow

BATCH: Final = "default"
INSERT_ROWS: Final = 20_000
CLAIM_ROWS: Final = 200
REVOKED_ROWS: Final = 1_600
CALLERS: Final = 200
ROWS_EACH: Final = 2_000
ROUNDS: Final = 5
DONE: Final = "UPDATE veobatch_records SET state = 'done' WHERE position < %s"


async def time_rounds(work: Callable[[], Awaitable[Any]], rounds: int) -> str:
    """Time each round, in milliseconds."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1000)
    return f"{statistics.median(took):,.0f} ms ({max(took):,.0f})"


async def fill(ledger: Ledger, url: str, rows: int) -> None:
    """Make the middle of a batch: three of ten rows are done, in the manifest's order."""
    for first in range(0, rows, INSERT_ROWS):
        await ledger.add([make_record("take", n) for n in range(first, min(rows, first + INSERT_ROWS))])
    with psycopg.connect(url) as connection:
        connection.execute(DONE, (rows * 3 // 10,))


async def _worker(url: str, lent: Sequence[LeasedRow], begin_at: float) -> tuple[float, float]:
    async with await Ledger.open(url) as ledger:
        ledger.fence({leased.record.key: leased.lease for leased in lent})
        records: Iterator[Any] = iter([leased.record for leased in lent])

        async def caller() -> None:
            for record in records:
                await run_row(ledger, record, [])

        await asyncio.sleep(max(0.0, begin_at - time.time()))
        began = time.time()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return began, time.time()


def run_worker(url: str, lent: Sequence[LeasedRow], begin_at: float) -> tuple[float, float]:
    """Take the rows from pending to done, 200 at a time; return when that began and ended."""
    return asyncio.run(_worker(url, lent, begin_at))


def measure_load(url: str) -> tuple[float, float]:
    """Load all rows, as the driver does; return the time in seconds and the memory in MiB."""

    async def load() -> tuple[float, float]:
        async with await Ledger.open(url, read_only=True) as ledger:
            before, began = rss_mib(), time.perf_counter()
            records = await ledger.load()
            took_s = time.perf_counter() - began
            return took_s, (rss_mib() - before) if records else 0.0

    return asyncio.run(load())


def process_pool(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))


async def steps_per_s(ledger: Ledger, epoch: int, url: str, connections: int) -> float:
    """Fenced steps of all connections together: four a row."""
    shares = [await ledger.claim(epoch, f"w{n}", ROWS_EACH) for n in range(connections)]
    loop, begin_at = asyncio.get_running_loop(), time.time() + 3.0
    with process_pool(connections) as pool:
        asked = [loop.run_in_executor(pool, run_worker, url, share, begin_at) for share in shares]
        spans = await asyncio.gather(*asked)
    took_s = max(ended for _, ended in spans) - min(began for began, _ in spans)
    return 4 * sum(map(len, shares)) / took_s


async def measure(url: str, rows: int) -> list[list[str]]:
    """Measure all of it; return the table's lines."""
    lines: list[list[str]] = []
    async with await Ledger.open(url) as ledger:
        began = time.perf_counter()
        await fill(ledger, url, rows)
        lines.append([f"add {rows:,} rows", f"{time.perf_counter() - began:.1f} s"])
        lines.append(["begin to lend", await time_rounds(ledger.begin_epoch, ROUNDS)])
        epoch, _ = await ledger.begin_epoch()
        await ledger.claim(epoch, "others", 1_000)
        lines.append([f"claim {CLAIM_ROWS} rows", await measure_claims(ledger, epoch)])
        for connections in (1, 2, 4):
            rates = [await steps_per_s(ledger, epoch, url, connections) for _ in range(3)]
            name = f"fenced steps, {CALLERS} at once on each of {connections} connections"
            lines.append([name, f"{statistics.median(rates):,.0f} a second"])
        lines.append([f"claim {CLAIM_ROWS} rows, after these steps", await measure_claims(ledger, epoch)])
        lines.append(
            [f"revoke a worker that had {REVOKED_ROWS:,} rows", await measure_revocations(ledger, epoch)]
        )
    with process_pool(1) as pool:
        took_s, mib = pool.submit(measure_load, url).result()
    lines.append(["load all rows", f"{took_s:.1f} s, {mib:,.0f} MiB"])
    return lines


async def measure_claims(ledger: Ledger, epoch: int) -> str:
    return await time_rounds(lambda: ledger.claim(epoch, "a", CLAIM_ROWS), 4 * ROUNDS)


async def measure_revocations(ledger: Ledger, epoch: int) -> str:
    took = []
    for _ in range(ROUNDS):
        await ledger.claim(epoch, "gone", REVOKED_ROWS)
        began = time.perf_counter()
        await ledger.revoke(epoch, "gone")
        took.append((time.perf_counter() - began) * 1000)
    return f"{statistics.median(took):,.0f} ms ({max(took):,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int, nargs="?", default=100_000, help="at least 100,000")
    parser.add_argument("--no-fsync", action="store_true", help="let the server say 'written' too early")
    options = parser.parse_args()
    if options.rows < 100_000:
        parser.error("fewer rows would run out before all is measured")
    server = PostgresServer(free_port(), fsync=not options.no_fsync)
    server.initialise()
    try:
        server.start()
        lines = asyncio.run(measure(server.url("postgres"), options.rows))
        with psycopg.connect(server.url("postgres")) as connection:
            version = str(connection.info.server_version // 10_000)
    finally:
        remove_server(server)
    print(table([f"{options.rows:,} rows", "measured"], lines))
    disk = "off" if options.no_fsync else "on"
    print(f"\nPostgreSQL {version}, fsync {disk}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
