"""A batch and its page served for review: within a thread of its own, or by the real command."""

from __future__ import annotations

import asyncio
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pipeline.ledger import Ledger
from pipeline.model import Artifact, Pick, Record, State
from pipeline.results.live import BindAddress, ChangeFeed, LivePage, Reviews
from pipeline.storage.local import LocalStore
from tests.browser.conftest import CLIPS
from tests.integration.vendor_double import vendor_and_workspace
from tests.unit.sample_rows import MEDIA, row

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from tests.integration.vendor_double import CommandResult

T = TypeVar("T")


def takes(rows: int, takes_of_each: int) -> list[Record]:
    """Done rows of several takes, whose clips are those that `copy_clips` has made."""
    return [_take(index, take) for index in range(rows) for take in range(1, takes_of_each + 1)]


def _take(index: int, take: int) -> Record:
    suffix = "" if take == 1 else f".{take}"
    stem = f"row-{index}{suffix}"
    poster = f"videos/clip #{take % CLIPS} 100%.jpg"
    artifact = Artifact(f"videos/{stem}.mp4", 1, f"{index}/{take}", replace(MEDIA, duration_s=2.0), poster)
    facts = {"key": f"{stem}@f{index}", "id": stem, "take": take, "file_stem": stem, "usd_spent": 0.4}
    return row(index, State.DONE, artifact=artifact, **facts)


def copy_clips(folder: Path, clips: Path, records: list[Record]) -> list[Record]:
    """Give every take a clip of its own; return the records with their true sizes and sums."""
    import hashlib

    (folder / "videos").mkdir(exist_ok=True)
    for poster in clips.glob("*.jpg"):
        (folder / "videos" / poster.name).write_bytes(poster.read_bytes())
    found = []
    for record in records:
        assert record.artifact is not None
        # The take's own name behind the clip's last box: players ignore it, and no two files are alike.
        data = (clips / f"clip #{record.take % CLIPS} 100%.mp4").read_bytes() + record.id.encode()
        (folder / record.artifact.path).write_bytes(data)
        artifact = replace(record.artifact, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        found.append(replace(record, artifact=artifact))
    return found


class Review:
    """`veobatch review` without its process."""

    def __init__(self, folder: Path, records: list[Record]) -> None:
        self._folder = folder
        self._records = records
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._up.wait(600)

    def end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(600)

    def picks(self) -> dict[str, Pick]:
        """Return what the ledger has, by key."""
        return asyncio.run_coroutine_threadsafe(self._ledger.picks(), self._loop).result(600)

    def say(self, picks: dict[str, Pick]) -> None:
        """Write picks behind the page's back, as the command does."""
        asyncio.run_coroutine_threadsafe(self._ledger.set_picks(picks), self._loop).result(600)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        store = LocalStore(self._folder)
        async with await Ledger.open(self._folder / "ledger.sqlite3") as self._ledger:
            await self._ledger.add(self._records)
            feed = ChangeFeed(self._records)
            reviews = Reviews(self._ledger, store, feed, notify=print)
            page = LivePage(
                feed, BindAddress("127.0.0.1", 0), title="t", manifest="m.yaml", store=store,
                reviews=reviews,
            )  # fmt: skip
            async with page, asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(reviews.keep_up())
                self.url = page.url
                self._up.set()
                await self._over.wait()
                keeping.cancel()
            await reviews.update_folder()
        await store.aclose()


class RealReview:
    """A batch that the real command ran at the vendor double, and that it serves for review."""

    def __init__(self, folder: Path, rows: Sequence[str | dict[str, object]]) -> None:
        self._folder = folder
        self._rows = rows
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._up.wait(600)

    def run(self, *args: str) -> CommandResult:
        return self._call(self._desk.run(*args))

    def command(self, *args: str) -> CommandResult:
        return self._call(self._desk.command(*args))

    def table(self) -> list[dict[str, str]]:
        return self._desk.rows()

    def creates(self) -> list[str]:
        """Return the prompts of what the vendor has accepted, in its order."""
        return [generation.prompt for generation in self._vendor.generations]

    def end_review(self) -> str:
        """End the serving command as Ctrl-C does; return what it said."""
        return self._call(self._end_review())

    def end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(600)

    def _call(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(600)

    async def _end_review(self) -> str:
        self._process.send_signal(signal.SIGINT)
        _, said = await self._process.communicate()
        assert self._process.returncode in (0, 130), said
        return said.decode()

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with vendor_and_workspace(self._folder, render_s=0.05) as (self._vendor, self._desk):
            self._desk.write(self._rows)
            ended = await self._desk.run()
            assert ended.code == 0, ended.output
            self._process = await self._desk.start_command("review", "batch.json")
            assert self._process.stderr is not None
            line = (await self._process.stderr.readline()).decode()
            self.url = line.removeprefix("review: ").split()[0]
            self._up.set()
            await self._over.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.communicate()
