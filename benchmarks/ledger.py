"""How many durable steps a second the ledger makes, and how long and how large loading it is.

    python -m benchmarks.ledger                     SQLite, in a temporary folder here
    python -m benchmarks.ledger --url postgresql://user:password@host/database

Prints a table and, last, one line of JSON. Each step is on the disk before its caller goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

from pipeline.ledger import Ledger, writer
from pipeline.model import Artifact, Media, Record, State

MEDIA = Media(8.0, 1920, 1080, 24.0, True, "h264", "aac")
STEPS_A_ROW = 4


@dataclass(frozen=True, slots=True)
class LedgerTiming:
    name: str
    steps_per_s: float
    p50_ms: float
    p99_ms: float


def make_record(name: str, n: int) -> Record:
    prompt = f"Take {n}: the woman in the painting slowly turns her head, smiles and puts on her glasses."
    image_url = f"https://images.example.com/library/2026/paintings/{n:06d}.jpg"
    body = {"model": "google/veo-3.1-i2v-fast", "prompt": prompt, "image_url": image_url, "duration": 8}
    return Record(
        key=f"{name}-{n}@0123456789abcdef",
        id=f"{name}-{n}",
        fingerprint="0123456789abcdef",
        position=n,
        model="google/veo-3.1-i2v-fast",
        body=json.dumps(body),
        manifest_image=image_url,
        prompt=prompt,
        file_stem=f"{name}-{n}",
        line=n + 5,
    )


async def run_row(ledger: Ledger, record: Record, latencies_s: list[float]) -> None:
    """Take a row from pending to done, as a run does."""

    async def to(state: State, **changes: object) -> None:
        nonlocal record
        began = time.perf_counter()
        record = await ledger.commit(record, record.evolve(state, **changes))
        latencies_s.append(time.perf_counter() - began)

    await to(
        State.SUBMITTING, submission_no=1, attempts=1, correlation_id=f"abc.{record.id}.1", submitted_at=1.5e9
    )
    await to(State.GENERATING, generation_id=f"812dcc2d-05ba-4ea4-bd79-062be27269c3:{record.id}")
    await to(State.READY, video_url=f"https://cdn.example.com/{record.id}.mp4?X-Amz-Signature={'0' * 64}")
    await to(State.DONE, artifact=Artifact(f"videos/{record.id}.mp4", 4_000_000, "a" * 64, MEDIA))


async def throughput(where: str, name: str, callers: int, n_rows: int, most_moves: int) -> LedgerTiming:
    """Time `callers` tasks that each take their share of the rows through all their steps."""
    usual, writer._MAX_GROUP_UPDATES = writer._MAX_GROUP_UPDATES, most_moves  # type: ignore[misc]  # benchmarked as a knob
    waits: list[float] = []
    async with await Ledger.open(where, batch=name) as ledger:
        records = [make_record(name, n) for n in range(n_rows)]
        await ledger.add(records)
        queue = iter(records)

        async def caller() -> None:
            for record in queue:
                await run_row(ledger, record, waits)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        elapsed_s = time.perf_counter() - began
    writer._MAX_GROUP_UPDATES = usual  # type: ignore[misc]  # as above
    cuts = statistics.quantiles(waits, n=100)
    return LedgerTiming(name, len(waits) / elapsed_s, cuts[49] * 1000, cuts[98] * 1000)


async def measure_loading(where: str, n_rows: int) -> dict[str, float]:
    """Time adding and loading many rows, and weigh what is loaded."""
    async with await Ledger.open(where, batch="load") as ledger:
        records = [make_record("load", n) for n in range(n_rows)]
        began = time.perf_counter()
        await ledger.add(records)
        added_s = time.perf_counter() - began
        del records
        began = time.perf_counter()
        await ledger.load()
        loaded_s = time.perf_counter() - began
        began = time.perf_counter()
        await ledger.counts()
        counted_s = time.perf_counter() - began
        tracemalloc.start()
        kept = await ledger.load()
        each_bytes = tracemalloc.get_traced_memory()[0] / len(kept)
        tracemalloc.stop()
    began = time.perf_counter()
    await (await Ledger.open(where, batch="load")).close()
    opened_s = time.perf_counter() - began
    return {
        "add_s": added_s,
        "load_s": loaded_s,
        "counts_s": counted_s,
        "open_close_s": opened_s,
        "record_bytes": each_bytes,
    }


async def print_measurements(where: str, options: argparse.Namespace) -> None:
    results = [
        await throughput(where, "one-caller", 1, options.rows // 20, 4096),
        await throughput(where, "one-commit-each", options.callers, options.rows // 20, 1),
        await throughput(where, "grouped", options.callers, options.rows, 4096),
    ]
    print(f"{'':18}{'steps/s':>10}{'p50 ms':>10}{'p99 ms':>10}")
    for result in results:
        print(f"{result.name:18}{result.steps_per_s:>10,.0f}{result.p50_ms:>10.2f}{result.p99_ms:>10.2f}")
    loaded = await measure_loading(where, options.load)
    print(f"\n{options.load:,} rows: " + ", ".join(f"{name} {value:,.2f}" for name, value in loaded.items()))
    numbers = {result.name: round(result.steps_per_s) for result in results}
    print(
        json.dumps(
            {"callers": options.callers, "rows": options.rows, "load_rows": options.load, **numbers, **loaded}
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--url", help="a PostgreSQL ledger to measure; rows are added to it under new batches"
    )
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the grouped measurement")
    parser.add_argument("--load", type=int, default=100_000, help="rows to add and load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        asyncio.run(print_measurements(options.url or str(Path(folder) / "ledger.sqlite3"), options))


if __name__ == "__main__":
    main()
