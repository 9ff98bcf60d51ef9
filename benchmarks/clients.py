"""What people use today, as plain clients: a semaphore and a clock around create and status.

    python -m benchmarks.clients BASE_URL JOBS AT_ONCE CLOCK     CLOCK: fixed:0.5 or backoff:0.05,1.5,1.5
    python -m benchmarks.clients BASE_URL bare WORKERS SECONDS PERIOD [uvloop]

The first runs one batch and ends with it. The second sends the same small GETs from so many tasks, each of
which sends one each PERIOD (0: as fast as it can), and prints one line of JSON: requests, seconds, CPU
seconds. Seconds are real ones.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from random import random
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = {"Authorization": "Bearer benchmark-key"}
BODY = {
    "model": "google/veo-3.1-i2v-fast",
    "image_url": "https://images.example.com/mona.jpg",
    "duration": 4,
}
REJECTED_WAIT_S = 0.5


def parse_clock(text: str) -> Callable[[], Iterator[float]]:
    """Return the waits between polls that `fixed:S` or `backoff:FIRST,FACTOR,CAP` stands for, in seconds.

    Raises `ValueError` for anything else.
    """
    name, _, rest = text.partition(":")
    numbers = [float(number) for number in rest.split(",")]
    if name == "fixed" and len(numbers) == 1:
        return lambda: itertools.repeat(numbers[0])
    if name == "backoff" and len(numbers) == 3:
        first, factor, cap = numbers
        return lambda: (min(cap, first * factor**i) for i in itertools.count())
    raise ValueError(f"{text!r} is neither fixed:S nor backoff:FIRST,FACTOR,CAP")


async def run_batch(base: str, jobs: int, at_once: int, waits: Callable[[], Iterator[float]]) -> None:
    """Gather with a semaphore: each job creates, sleeps, asks, sleeps, asks, until it is completed."""
    slots = asyncio.Semaphore(at_once)
    url = f"{base}/v2/video/generations"

    async def create(session: aiohttp.ClientSession, number: int) -> str:
        while True:
            async with session.post(url, json={**BODY, "prompt": f"Take {number}"}) as response:
                if response.status != 429:
                    return str((await response.json())["id"])
            await asyncio.sleep(REJECTED_WAIT_S)

    async def job(session: aiohttp.ClientSession, number: int) -> None:
        async with slots:
            query = {"generation_id": await create(session, number)}
            for wait_s in waits():
                await asyncio.sleep(wait_s)
                async with session.get(url, params=query) as response:
                    if (await response.json())["status"] == "completed":
                        return

    async with aiohttp.ClientSession(headers=KEY, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(job(session, number) for number in range(jobs)))


async def measure_requests(base: str, workers: int, seconds: float, period_s: float) -> dict[str, float]:
    """Send GETs from so many tasks; count them after a second to warm up. Nothing but the body is read."""
    identity = quote("00000001-inf:google/veo-3.1-i2v-fast", safe="")
    url = f"{base}/v2/video/generations?generation_id={identity}"
    count = 0

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal count
        due = time.perf_counter() + period_s * random()
        while True:
            if period_s:
                await asyncio.sleep(due - time.perf_counter())
                due += period_s
            async with session.get(url) as response:
                await response.read()
            count += 1

    connector = aiohttp.TCPConnector(limit=128)
    async with aiohttp.ClientSession(headers=KEY, connector=connector) as session:
        tasks = [asyncio.create_task(worker(session)) for _ in range(workers)]
        await asyncio.sleep(1.0)
        began = (count, time.perf_counter(), time.process_time())
        await asyncio.sleep(seconds)
        ended = (count, time.perf_counter(), time.process_time())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    requests, wall_s, cpu_s = (after - before for before, after in zip(began, ended, strict=True))
    return {"requests": requests, "wall_s": wall_s, "cpu_s": cpu_s}


def main() -> None:
    base, what, *rest = sys.argv[1:]
    if what == "bare":
        if rest[3:] == ["uvloop"]:
            import uvloop

            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        print(json.dumps(asyncio.run(measure_requests(base, int(rest[0]), float(rest[1]), float(rest[2])))))
        return
    asyncio.run(run_batch(base, int(what), int(rest[0]), parse_clock(rest[1])))


if __name__ == "__main__":
    main()
