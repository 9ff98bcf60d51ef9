"""Downloads against what people use: curl, aria2c, and our own whole path, from one local server.

Ours does what the others do not: sha256, a check of each video, fsync, atomic names. The server is a
process of its own that sends with `sendfile`, so that what is measured is the client.

    python -m benchmarks.downloads [--files 60] [--mib 16] [--at-once 8] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import av

from pipeline.cli.app import SWITCH_INTERVAL_S, return_large_blocks
from pipeline.download.download_result import Saved
from pipeline.download.downloader import Downloader
from pipeline.download.guarded_session import open_session
from pipeline.media import preload_decoders
from pipeline.model import Record
from pipeline.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_SERVER = """
import sys
from aiohttp import web

app = web.Application()
app.router.add_static("/", sys.argv[1])
web.run_app(app, host="127.0.0.1", port=0, access_log=None, print=lambda text: print(text, flush=True))
"""


def render(path: Path, size_bytes: int) -> None:
    """Write an MP4 of exactly `size_bytes`: 8 s of 720p with moving noise, the rest in a `free` box."""
    noise = [bytes((x * 7 + y * y * shift) % 251 for x in range(640)) for y in range(360) for shift in (3,)]
    luma = b"".join(noise)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "48"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 640, 360, "yuv420p", 8_000_000
        for number in range(24 * 8):
            frame = av.VideoFrame(640, 360, "yuv420p")
            turned = luma[number * 640 :] + luma[: number * 640]
            frame.planes[0].update(turned)
            for plane in frame.planes[1:]:
                plane.update(bytes([(number * 2) % 256]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    missing = size_bytes - path.stat().st_size
    if missing >= 8:
        with path.open("ab") as file:
            file.write(missing.to_bytes(4, "big") + b"free" + bytes(missing - 8))


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder from another process; yields its base URL."""
    server = subprocess.Popen([sys.executable, "-c", _SERVER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        while "http://" not in (line := server.stdout.readline()):
            assert line, "the server did not start"
        yield "http://" + line.partition("http://")[2].split()[0]
    finally:
        server.terminate()
        server.wait()


def curl(urls: list[str], folder: Path, at_once: int) -> None:
    words = ["curl", "--silent", "--fail", "--parallel", "--parallel-max", str(at_once), "--remote-name-all"]
    subprocess.run([*words, *urls], cwd=folder, check=True)


def aria2c(urls: list[str], folder: Path, at_once: int) -> None:
    listing = folder / "urls.txt"
    listing.write_text("\n".join(urls))
    words = ["aria2c", "--quiet", "--input-file", str(listing), "--max-concurrent-downloads", str(at_once)]
    subprocess.run([*words, "--dir", str(folder)], check=True)


@dataclass(slots=True)
class LoopMonitor:
    """What kept the event loop busy at most, in seconds.

    `unresponsive_s` is how long it answered nobody, `callback_s` its longest callback by the clock, and
    `callback_cpu_s` by the CPU time of its thread: what is left on a machine that does nothing else.
    """

    unresponsive_s: float = 0.0
    callback_s: float = 0.0
    callback_cpu_s: float = 0.0


def run_downloader(urls: list[str], folder: Path, at_once: int, *, media: bool = True) -> LoopMonitor:
    """Download everything as the command does; return what its loop was kept by."""
    if media:
        preload_decoders()  # the command has loaded them long before the first video is ready
    gc.freeze()
    return_large_blocks()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    monitor = LoopMonitor()
    with _timed_callbacks(monitor):
        anyio.run(_run_downloader, urls, folder, at_once, media, monitor)
    return monitor


@contextmanager
def _timed_callbacks(monitor: LoopMonitor) -> Iterator[None]:
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began, cpu_began = time.perf_counter(), time.thread_time()
        run(handle)
        monitor.callback_cpu_s = max(monitor.callback_cpu_s, time.thread_time() - cpu_began)
        monitor.callback_s = max(monitor.callback_s, time.perf_counter() - began)

    asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def _run_downloader(
    urls: list[str], folder: Path, at_once: int, media: bool, monitor: LoopMonitor
) -> None:
    queue = list(enumerate(urls))

    async def worker(downloader: Downloader) -> None:
        while queue:
            number, url = queue.pop()
            record = Record(
                str(number), str(number), "f", number, "m", "{}", "", "", str(number), video_url=url
            )
            outcome = await downloader.download(record, _no_fresh_url)
            assert isinstance(outcome, Saved), outcome

    async def watch() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            monitor.unresponsive_s = max(monitor.unresponsive_s, time.perf_counter() - start - 0.001)

    async with open_session() as session, anyio.create_task_group() as outer:
        outer.start_soon(watch)
        downloader = Downloader(session=session, store=open_store(str(folder)), media=media)
        async with anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(worker, downloader)
        outer.cancel_scope.cancel()


async def _no_fresh_url() -> list[str]:
    return []


def measure(files: int, mib: int, at_once: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds (median of `rounds`, taken in turns) and MB/s for each way to download."""
    downloaders: dict[str, Callable[[list[str], Path, int], LoopMonitor | None]] = {
        "ours": run_downloader,
        "ours, no media check": lambda *args: run_downloader(*args, media=False),
    }
    downloaders |= {name: way for name, way in (("curl", curl), ("aria2c", aria2c)) if shutil.which(name)}
    times: dict[str, list[float]] = {name: [] for name in downloaders}
    monitors: dict[str, list[LoopMonitor]] = {name: [] for name in downloaders}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "source")
        source.mkdir()
        render(source / "0.mp4", mib * 2**20)
        for number in range(1, files):
            (source / f"{number}.mp4").hardlink_to(source / "0.mp4")
        with file_server(source) as base:
            urls = [f"{base}/{number}.mp4" for number in range(files)]
            for turn in range(rounds):
                for name, way in downloaders.items():
                    target = Path(scratch, f"{name}-{turn}")
                    target.mkdir()
                    start = time.perf_counter()
                    monitor = way(urls, target, at_once)
                    times[name].append(time.perf_counter() - start)
                    monitors[name].append(monitor or LoopMonitor())
                    shutil.rmtree(target)
    total = files * mib * 2**20 / 1e6
    return {
        name: {
            "seconds": round(statistics.median(taken), 3),
            "mb_s": round(total / statistics.median(taken)),
            "loop_blocked_ms": _most_ms(one.unresponsive_s for one in monitors[name]),
            "loop_callback_ms": _most_ms(one.callback_s for one in monitors[name]),
            "loop_callback_cpu_ms": _most_ms(one.callback_cpu_s for one in monitors[name]),
        }
        for name, taken in times.items()
    }


def _most_ms(seconds: Iterable[float]) -> float:
    return round(max(seconds) * 1000, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--mib", type=int, default=16)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.files, args.mib, args.at_once, args.rounds)
    if args.json:
        print(json.dumps(found))
        return
    best = found.get("curl", found["ours"])["seconds"]
    for name, row in sorted(found.items(), key=lambda item: item[1]["seconds"]):
        print(
            f"{name:22} {row['seconds']:7.2f} s {row['mb_s']:6.0f} MB/s {row['seconds'] / best:5.2f}x curl"
            + (
                f"   loop blocked at most {row['loop_blocked_ms']:.0f} ms, its longest callback "
                f"{row['loop_callback_ms']:.1f} ms, of CPU time {row['loop_callback_cpu_ms']:.1f} ms"
                if "ours" in name
                else ""
            )
        )


if __name__ == "__main__":
    main()
