"""One process with 100,000 generations in flight: its memory, the CPU of a poll, and whether it keeps pace.

    python -m benchmarks.live_in_flight                     1,000 and 100,000 in flight
    python -m benchmarks.live_in_flight --rows 10000
    python -m benchmarks.live_in_flight --fresh --rows 100000   each submitted to the sandbox, none goes on
    python -m benchmarks.live_in_flight --together              the CPU of a poll alone, all sizes at once

The ledger says that an earlier run submitted them all, so that this one continues with all of them in flight
at once, against a vendor in a process of its own. Polls come at the same pace whatever the number, and so
closely that the loop hardly sleeps: one that is woken for each poll alone needs half as much again, and few
generations are polled in clusters, many one by one. First none ends, then every tenth has. A second process
shows the same on a terminal and a page: how long they and the CSV stand still while the videos come in.
Prints one line of JSON a size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from benchmarks.live import (
    BenchmarkServer,
    VeobatchProcess,
    run_server,
    temp_folder,
    veobatch_command,
    wait_for_count,
)
from benchmarks.live_cadence import WatchedProcess
from benchmarks.memory import start_sandbox
from pipeline.ledger import Ledger
from pipeline.manifest import load
from pipeline.model import Record, State, Transition
from pipeline.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

POLLS_PER_S: Final = 250.0
BUSY_POLLS_PER_S: Final = 1_000.0
"""At which the CPU of a poll is taken."""

FAR_S: Final = 1e6
"""In how many seconds the first generations end, unless the vendor's clock is set ahead."""

SETTLED_S: Final = 16.0
"""After so many seconds of polls the start is over: the first CSV and the page's blocks are made."""

WORDS: Final = ("--timeout", "86400", "--downloads", "16", "--no-media")


async def submit_rows(manifest: Path, output: Path, now: float) -> None:
    """Make the ledger of a batch all of whose rows are in flight, each to end at a time of its own."""
    records = make_plan(load(manifest).jobs, []).added
    async with await Ledger.open(output / "ledger.sqlite3") as ledger:
        await ledger.meta_set("vendor", "api")
        await ledger.meta_set("manifest", json.dumps(str(manifest)))
        await ledger.add(records)
        for start in range(0, len(records), 5_000):
            block = records[start : start + 5_000]
            await ledger.commit_many([step for record in block for step in _steps(record, now)])


def _steps(record: Record, now: float) -> Iterator[Transition]:
    ends_at = now + FAR_S * (1.0 if record.position % 10 == 0 else 10.0)
    correlation_id = f"vb.0123456789.{record.id}.0123456789.1.0123456789abcdef"
    times = {"submitted_at": now - 30.0, "vendor_sent_at": now - 30.0}
    sent = record.evolve(
        State.SUBMITTING, submission_no=1, correlation_id=correlation_id, reserved_usd=0.6, **times
    )
    yield Transition(record, sent)
    generation_id = f"{record.position:08}-{ends_at:.3f}:google/veo-3.1-i2v-fast"
    after = sent.evolve(State.GENERATING, attempts=1, generation_id=generation_id, accepted_at=now - 30.0)
    yield Transition(sent, after)


def measure(rows: int, seconds: float) -> dict[str, Any]:
    """Continue such a batch for `seconds`, twice; return its memory (MB), CPU a poll and what people see."""
    return {"rows": rows, **_measure_cost(rows, seconds), "still": measure_cadence(rows, 2.0 * seconds)}


def _measure_cost(rows: int, seconds: float) -> dict[str, float]:
    with _batch(rows) as (folder, server, submitted_at):
        command = VeobatchProcess(folder, server.url, rows, *_words(rows, BUSY_POLLS_PER_S))
        try:
            wait_for_count(server, "polls", int(SETTLED_S * BUSY_POLLS_PER_S))
            quiet = _window(server, command, seconds)
            server.stats(f"+{FAR_S - (time.time() - submitted_at)}")
            busy = _window(server, command, seconds)
            at_rest, peak = command.resident_mb(), command.samples()[-1].rss_mb
        finally:
            command.stop()
    return {
        "rss_mb": at_rest, "peak_mb": peak, "cpu_us_a_poll": 1e6 * quiet["cpu_s"] / quiet["polls"],
        "polls_per_s": quiet["polls"] / quiet["wall_s"],
        "videos": busy["videos"], "cpu_share": busy["cpu_s"] / busy["wall_s"],
    }  # fmt: skip


def measure_fresh(rows: int) -> dict[str, Any]:
    """Submit a new batch to the sandbox; return after how many seconds all of it renders, and memory (MB)."""
    sandbox, url = start_sandbox(render_s=FAR_S)
    try:
        with temp_folder() as folder:
            began, interval = time.monotonic(), ["--poll-interval", f"{rows / POLLS_PER_S:g}"]
            command = VeobatchProcess(folder, url, rows, "--concurrency", str(rows), *interval, *WORDS)
            try:
                while _in_flight(folder / "output" / "ledger.sqlite3") < rows:
                    time.sleep(1.0)
                in_flight_after_s = time.monotonic() - began
                time.sleep(SETTLED_S)
                at_rest, peak = command.resident_mb(), command.samples()[-1].rss_mb
            finally:
                command.stop()
    finally:
        sandbox.terminate()
        sandbox.wait()
    return {"rows": rows, "rss_mb": at_rest, "peak_mb": peak, "in_flight_after_s": in_flight_after_s}


def measure_together(sizes: Sequence[int], seconds: float) -> dict[int, float]:
    """Return the CPU of a poll (us) with each number in flight, measured at once.

    Whatever else the machine does then slows them alike.
    """
    with ExitStack() as stack:
        running: list[tuple[BenchmarkServer, VeobatchProcess]] = []
        for rows in sizes:
            folder, server, _ = stack.enter_context(_batch(rows))
            command = VeobatchProcess(folder, server.url, rows, *_words(rows))
            stack.callback(command.stop)
            running.append((server, command))
        for server, _ in running:
            wait_for_count(server, "polls", int(SETTLED_S * POLLS_PER_S))
        threads = stack.enter_context(ThreadPoolExecutor(len(running)))
        windows = list(threads.map(lambda one: _window(one[0], one[1], seconds), running))
    return {rows: 1e6 * spent["cpu_s"] / spent["polls"] for rows, spent in zip(sizes, windows, strict=True)}


def _in_flight(ledger: Path) -> int:
    """Return how many rows of a ledger render; 0 as long as there is none."""
    if not ledger.exists():
        return 0
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        counted = "SELECT count(*) FROM veobatch_records WHERE state = 'generating'"
        try:
            return int(database.execute(counted).fetchone()[0])
        except sqlite3.OperationalError:  # its tables are being made
            return 0


def measure_cadence(rows: int, seconds: float) -> dict[str, dict[str, float]]:
    """Return how long the terminal, the page and the CSV stood still while videos came in."""
    with (
        _batch(rows) as (folder, server, submitted_at),
        WatchedProcess(folder, server.url, rows, *_words(rows)) as shown,
    ):
        wait_for_count(server, "polls", int(SETTLED_S * POLLS_PER_S))
        server.stats(f"+{FAR_S - (time.time() - submitted_at)}")
        began = time.time()
        wait_for_count(server, "videos", 1)
        start = time.time()
        while time.time() < began + seconds and server.stats()["videos"] < rows // 10:
            time.sleep(0.2)
        return shown.gaps(start, time.time())


@contextmanager
def _batch(rows: int) -> Iterator[tuple[Path, BenchmarkServer, float]]:
    """Make a batch in flight; yield its folder, the vendor and when it was submitted."""
    with temp_folder() as folder, run_server("live_minimal_server", "0") as server:
        veobatch_command(folder, server.url, rows)
        submitted_at = time.time()
        asyncio.run(submit_rows(folder / "manifest.jsonl", folder / "output", submitted_at))
        yield folder, server, submitted_at


def _words(rows: int, polls_per_s: float = POLLS_PER_S) -> list[str]:
    return ["--concurrency", str(rows), "--poll-interval", f"{_interval_s(rows, polls_per_s):g}", *WORDS]


def _interval_s(rows: int, polls_per_s: float) -> float:
    """Return an interval with that many polls: of many rows the first round lasts longer than we measure.

    Few are polled many times, and more and more seldom since none ends: some five intervals apart.
    """
    return rows / polls_per_s if rows > 20_000 else rows / polls_per_s / 5.3


def _window(server: BenchmarkServer, command: VeobatchProcess, seconds: float) -> dict[str, float]:
    began = server.stats()
    time.sleep(seconds)
    ended = server.stats()
    time.sleep(0.2)
    spent = {name: ended[name] - began[name] for name in ("polls", "videos")}
    wall_s, cpu_s = ended["now"] - began["now"], command.cpu_between(began["now"], ended["now"])
    return {**spent, "wall_s": wall_s, "cpu_s": cpu_s}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--together", action="store_true")
    asked = parser.parse_args()
    if asked.together:
        print(json.dumps(measure_together(asked.rows, asked.seconds)))
        return
    for rows in asked.rows:
        seen = measure_fresh(rows) if asked.fresh else measure(rows, asked.seconds)
        print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main()
