"""A server that costs next to nothing, so that the client is what is measured.

    python -m benchmarks.live_minimal_server [RENDER_S]

It answers create, status, prices, balance and one small video without keeping anything: a generation's id
holds the time at which it is finished (never, without RENDER_S). Prints its URL; then, for each line that
comes in, one line of JSON with its counts. Ends with its input.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
import time
from math import inf
from pathlib import Path
from typing import cast
from urllib.parse import unquote

import av

SIDE = 64
FRAMES = 24


class MinimalVendor:
    """What was asked for so far."""

    def __init__(self, render_s: float, video: bytes) -> None:
        self.render_s = render_s
        self.video = video
        self.base = ""
        self.creates = 0
        self.polls = 0
        self.videos = 0
        self.client_pid = 0
        self.ahead_s = 0.0
        self.first_create = (0.0, 0.0, 0.0)
        self.last_video = (0.0, 0.0, 0.0)

    def handle(self, method: str, target: str) -> tuple[str, bytes]:
        """Return the content type and the body."""
        path, _, query = target.partition("?")
        if path == "/v2/video/generations":
            return "application/json", json.dumps(
                self._create() if method == "POST" else self._status(query)
            ).encode()
        if path.startswith("/video"):
            self.videos += 1
            self.last_video = self._now()
            return "video/mp4", self.video
        if path == "/v2/billing":
            return "application/json", b'{"current_balance": 1000000.0, "currency": "USD"}'
        return "application/json", b'{"object": "list", "data": []}'

    def watch(self, pid: int) -> None:
        """Count from here on, for the client with this process id."""
        self.client_pid, self.creates = pid, 0

    def _now(self) -> tuple[float, float, float]:
        """Return the time, the client's CPU so far (both in seconds) and its largest resident set (MB)."""
        folder = Path(f"/proc/{self.client_pid}")
        if not self.client_pid or not folder.exists():
            return time.time(), 0.0, 0.0
        ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        peak_kb = int((folder / "status").read_text().partition("VmHWM:")[2].split()[0])
        return time.time(), sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), peak_kb / 1024

    def _create(self) -> dict[str, object]:
        self.creates += 1
        if self.creates == 1:
            self.first_create = self._now()
        identity = f"{self.creates:08}-{time.time() + self.render_s:.3f}:google/veo-3.1-i2v-fast"
        return {"id": identity, "status": "queued", "video": None, "error": None, "meta": None}

    def _status(self, query: str) -> dict[str, object]:
        self.polls += 1
        identity = unquote(query.partition("=")[2])
        number, _, rest = identity.partition("-")
        if time.time() + self.ahead_s < float(rest.partition(":")[0]):
            return {"id": identity, "status": "generating", "video": None, "error": None, "meta": None}
        video = {"url": f"{self.base}/video/{number}.mp4"}
        usage = {"usage": {"credits_used": 120000}}
        return {"id": identity, "status": "completed", "video": video, "error": None, "meta": usage}


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as a client on loopback needs it."""

    def __init__(self, counts: MinimalVendor) -> None:
        self._counts = counts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1")
            lowered = head.lower()
            length = int(lowered.partition("content-length:")[2].split("\r\n")[0] or 0)
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(*head.split(" ", 2)[:2])
            if "connection: close" in lowered:
                self._transport.close()

    def _answer(self, method: str, target: str) -> None:
        kind, body = self._counts.handle(method, target)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


def small_clip() -> bytes:
    """Return an MP4 of a second, a few KB large."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame(SIDE, SIDE, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number * 8]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


async def _serve(counts: MinimalVendor) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(counts), "127.0.0.1", 0, backlog=4096)
    counts.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(counts.base, flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word = line.strip()
        if word.startswith("+"):
            counts.ahead_s = float(word)
        elif word:
            counts.watch(int(word))
        counts_json = {"creates": counts.creates, "polls": counts.polls, "videos": counts.videos}
        times = {"now": time.time(), "first_create": counts.first_create, "last_video": counts.last_video}
        print(json.dumps({**times, **counts_json}), flush=True)


def main() -> None:
    render_s = float(sys.argv[1]) if len(sys.argv) > 1 else inf
    counts = MinimalVendor(render_s, small_clip())
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(_serve(counts))


if __name__ == "__main__":
    main()
