"""The live page in a real browser, while a run goes on in another thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from pipeline.model import State
from pipeline.results.live import BindAddress, ChangeFeed, LivePage
from pipeline.storage.local import LocalStore
from tests.browser.conftest import done_with_clip
from tests.unit.sample_rows import failed, row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.model import Record
    from tests.browser.conftest import MonitoredPage

pytestmark = pytest.mark.browser


class LiveRun:
    """A run that goes on in a thread of its own, with its page."""

    def __init__(self, root: Path, records: list[Record]) -> None:
        self._root = root
        self._records = records
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._up.wait(600)

    def transition(self, before: Record, after: Record) -> None:
        self._loop.call_soon_threadsafe(self._feed.on_transition, before, after)

    def end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(600)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._feed, store = ChangeFeed(self._records), LocalStore(self._root)
        served = LivePage(
            self._feed,
            BindAddress("127.0.0.1", 0),
            title="t",
            manifest="m",
            store=store,
            eta=lambda: 754.0,
        )
        async with served:
            self.url = served.url
            self._up.set()
            await self._over.wait()
        await store.aclose()


@pytest.fixture
def going(tmp_path: Path, clips: Path) -> Iterator[LiveRun]:
    # A copy, since the server follows no link out of the folder.
    (tmp_path / "videos").mkdir()
    for clip in clips.iterdir():
        (tmp_path / "videos" / clip.name).write_bytes(clip.read_bytes())
    run = LiveRun(tmp_path, [row(0), row(1), row(2)])
    yield run
    run.end()


def test_the_page_follows_the_run(watched: MonitoredPage, going: LiveRun) -> None:
    page = watched.page
    page.goto(going.url)
    expect(page.locator("#live-status")).to_have_text("live, 12 min 34 s left")
    expect(page.locator("h1")).to_contain_text("No video is saved yet. 3 are not submitted yet.")

    going.transition(row(0), done_with_clip(0))
    expect(page.locator("h1")).to_contain_text("1 of 3 videos is saved.")
    going.transition(row(1), failed(1, "no <b>face</b> found"))
    expect(page.locator(".failure q")).to_have_text("no <b>face</b> found")
    going.transition(row(2), row(2, State.SUBMITTING))
    expect(page.get_by_role("button", name="pending 1")).to_be_visible()

    page.get_by_role("button", name="Play job-0").click()
    page.locator(".card video").evaluate(
        """video => new Promise((resolve) => {
          const look = () => video.currentTime > 0.2 ? resolve() : requestAnimationFrame(look);
          look();
        })"""
    )
    going.transition(row(2), done_with_clip(2))
    expect(page.locator("h1")).to_contain_text("2 of 3 videos are saved.")
    expect(page.locator(".card video")).to_have_count(1)
    # Nothing may be on its way when the server goes.
    expect(page.locator(".card", has_text="job-2").locator("img")).to_have_js_property("naturalWidth", 160)

    going.end()
    expect(page.locator("#live-status")).to_have_text("the run has ended")
