"""How much memory one process takes with thousands of generations in flight, and how soon they are.

    python -m benchmarks.memory                 3,000 generations, all of them in flight at once
    python -m benchmarks.memory --rows 10000

The stand-in vendor runs in a process of its own; what is measured is the client alone. Prints, last, one
line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.client import Api, ApiKey
from pipeline.download.downloader import Downloader
from pipeline.engine import Engine
from pipeline.ledger import Ledger
from pipeline.model import Job, Record, State
from pipeline.plan import new_record
from pipeline.poll.learner import DurationLearner
from pipeline.poll.poll_rate import AdaptiveRateLimit
from pipeline.poll.schedule import PollSchedule
from pipeline.run_context import Dependencies
from pipeline.run_state import RunState
from pipeline.settings import Settings
from pipeline.storage import LocalStore
from pipeline.submit.budget import Budget
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

if TYPE_CHECKING:
    from pipeline.events import Event

MODEL = "google/veo-3.1-i2v-fast"
MIB = 2**20


@dataclass
class MemoryObserver:
    """Watches a run: the most that was in flight, and when all of it was."""

    rows: int
    began: float
    in_flight: int = 0
    peak_in_flight: int = 0
    all_after_s: float = 0.0
    at_peak_mib: float = 0.0

    def on_transition(self, before: Record, after: Record) -> None:
        self.in_flight += (after.state is State.GENERATING) - (before.state is State.GENERATING)
        if self.in_flight > self.peak_in_flight:
            self.peak_in_flight = self.in_flight
            if self.peak_in_flight == self.rows:
                self.all_after_s = time.monotonic() - self.began
                self.at_peak_mib = rss_mib()

    def on_event(self, event: Event) -> None:
        """Only moves count."""


def rss_mib() -> float:
    """The most memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)


def make_record(index: int) -> Record:
    prompt = f"Take {index}: the woman in the painting slowly turns her head, smiles and puts on her glasses."
    image_url = f"https://images.example.com/library/2026/paintings/{index:06d}.jpg"
    body = {"model": MODEL, "prompt": prompt, "image_url": image_url, "duration": 4, "resolution": "720p"}
    return new_record(Job(f"row-{index}", f"f{index}", index, MODEL, body, line=index + 1), f"row-{index}")


def start_sandbox(render_s: float) -> tuple[subprocess.Popen[str], str]:
    """Start the stand-in; return its process and its URL."""
    command = [sys.executable, "-m", "pipeline", "sandbox", "--port", "0", "--small"]
    command += ["--durations", f"fixed:{render_s}", "--balance", "1e9"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, next(word for word in process.stdout.readline().split() if word.startswith("http"))


async def measure(url: str, rows: int, folder: Path, interval_s: float) -> dict[str, float | int]:
    settings = Settings(concurrency=rows, poll_interval=interval_s, media=False)
    before, began, rng = rss_mib(), time.monotonic(), random.Random(1)
    observer = MemoryObserver(rows, began)
    async with (
        Api(url, ApiKey("any-key", "none")) as api,
        await Ledger.open(folder / "ledger.sqlite3") as ledger,
    ):
        records = [make_record(index) for index in range(rows)]
        await ledger.add(records)
        tools = Dependencies(
            api=api,
            ledger=ledger,
            downloader=Downloader(session=api.keyless_session, store=LocalStore(folder), media=False),
            schedule=PollSchedule(DurationLearner(interval_s), interval_s=interval_s, random=rng),
            concurrency_limit=AdaptiveConcurrencyLimit(rows, interval_s=interval_s, random=rng),
            rate_limit=AdaptiveRateLimit(interval_s=interval_s),
            budget=Budget(None),
            price_of=lambda _: None,
            clock=time.monotonic,
            wall=time.time,
            random=rng,
            journal_submission=lambda _: None,
        )
        outcome = await Engine(RunState.from_records(records), tools, settings, observer).run()
    return {
        "rows": rows,
        "done": sum(record.state is State.DONE for record in outcome.records),
        "in_flight_peak": observer.peak_in_flight,
        "all_in_flight_after_s": round(observer.all_after_s, 2),
        "wall_s": round(time.monotonic() - began, 2),
        "polls": sum(record.polls for record in outcome.records),
        "rss_before_mib": round(before, 1),
        "rss_all_in_flight_mib": round(observer.at_peak_mib, 1),
        "rss_peak_mib": round(rss_mib(), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--render-s", type=float, default=30.0, help="how long each generation renders")
    parser.add_argument("--interval-s", type=float, default=10.0, help="the poll interval")
    asked = parser.parse_args()
    process, url = start_sandbox(asked.render_s)
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asyncio.run(measure(url, asked.rows, Path(folder), asked.interval_s))))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
