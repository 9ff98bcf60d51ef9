"""The sandbox in a process of its own, which tells what it saw when it is asked over standard input.

    python -m benchmarks.live_server '{"speed": 20, "durations": "uniform"}'

Prints its URL; then, for each line that comes in, one line of JSON: what was created, refused, polled,
and when each finished generation was first told to be completed. Ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast

from pipeline.sandbox import Sandbox, SandboxOptions, generation_api
from pipeline.sandbox.responses import generation_body
from pipeline.sandbox.state import Generation, SandboxState, Status

completed_seen_at: dict[int, float] = {}
"""When each generation, by number, was first told to be completed: the moment its client noticed."""


def _recording_generation_body(
    generation: Generation, status: Status, video_url: str | None
) -> dict[str, Any]:
    if status is Status.COMPLETED:
        completed_seen_at.setdefault(generation.number, time.time())
    return generation_body(generation, status, video_url)


def stats(book: SandboxState) -> dict[str, Any]:
    """What happened so far, in seconds since the epoch and real seconds."""
    return {
        "now": time.time(),
        "creates": book.create_requests,
        "refused": book.rejected[429],
        "polls": sum(book.requests["GET", path] for path in ("/v2/video/generations",)),
        "peak_in_flight": book.peak_in_flight,
        "generations": [
            [one.created_at, one.render_s, one.polls, completed_seen_at.get(one.number)]
            for one in book.generations
        ],
    }


async def _serve(options: dict[str, Any]) -> None:
    async with Sandbox(SandboxOptions(**options)) as box:
        print(box.url, flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(stats(box.state)), flush=True)


def main() -> None:
    cast("Any", generation_api).generation_body = _recording_generation_body
    asyncio.run(_serve(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
