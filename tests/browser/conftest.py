"""A headless Chromium and a folder with real videos for it to show."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, Page, Route, expect, sync_playwright

from pipeline.model import Artifact
from pipeline.results.csv_rows import csv_bytes
from pipeline.results.report import render
from tests.unit.sample_rows import MEDIA, T0, done

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import ConsoleMessage, Request

    from pipeline.model import Record

CLIPS = 3
PATIENCE_MS = 600_000
"""After this a page is taken to hang; Playwright's own 5 and 30 s are too short for a busy machine."""

expect.set_options(timeout=PATIENCE_MS)


def _browser_path() -> str | None:
    """Return the browser of this machine: the one that was named, an installed one, or Playwright's own."""
    named = os.environ.get("PLAYWRIGHT_CHROMIUM_EXECUTABLE_PATH")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return named or next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser for the tests of this folder; no longer, since its loop would hinder async tests."""
    arguments = ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=_browser_path(), args=arguments)
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no Chromium on this machine: {error}")
        yield chromium
        chromium.close()


@dataclass
class MonitoredPage:
    """A page with everything it said and asked for."""

    page: Page
    console_messages: list[str] = field(default_factory=list)
    request_urls: list[str] = field(default_factory=list)

    def on_console(self, message: ConsoleMessage) -> None:
        self.console_messages.append(f"{message.type}: {message.text}")

    def on_error(self, error: Error) -> None:
        self.console_messages.append(f"error: {error}")

    def on_request(self, request: Request) -> None:
        self.request_urls.append(request.url)


@pytest.fixture(scope="package")
def tab(browser: Browser) -> Iterator[Page]:
    """The one page of the tests of this folder: a new one takes a second of CPU, this one 0.2 s."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    context.route("https://example.com/*.jpg", serve_source_image)
    yield context.new_page()
    context.close()


def make_new(tab: Page) -> None:
    """Leave what it shows, and undo what a test may have changed of it."""
    tab.goto("about:blank")
    tab.unroute_all()
    tab.context.clear_permissions()
    tab.emulate_media(media="null", color_scheme="null", forced_colors="null", reduced_motion="null")
    for width in (800, 1280):  # Playwright does nothing for a size that it believes to be there
        tab.set_viewport_size({"width": width, "height": 900})
    devices = tab.context.new_cdp_session(tab)
    devices.send("Storage.clearDataForOrigin", {"origin": "file://", "storageTypes": "all"})
    devices.detach()
    assert (tab.evaluate("innerWidth"), tab.evaluate("devicePixelRatio")) == (1280, 1)


@pytest.fixture
def watched(tab: Page) -> Iterator[MonitoredPage]:
    """A page that fails the test for any console message, and for any request to another host but one for
    a source image."""
    make_new(tab)
    got = MonitoredPage(tab)
    tab.on("console", got.on_console)
    tab.on("pageerror", got.on_error)
    tab.on("request", got.on_request)
    yield got
    tab.goto("about:blank")
    tab.remove_listener("console", got.on_console)
    tab.remove_listener("pageerror", got.on_error)
    tab.remove_listener("request", got.on_request)
    assert got.console_messages == []
    own = ("about:blank", "file://", "http://127.0.0.1:", "https://example.com/mona.jpg")
    assert [url for url in got.request_urls if not url.startswith(own)] == []


def serve_source_image(route: Route) -> None:
    """Answer for the host of the source images, which must not learn where its image is shown."""
    assert "referer" not in route.request.headers
    body = io.BytesIO()
    Image.new("RGB", (48, 64), "teal").save(body, "JPEG")
    route.fulfill(body=body.getvalue(), content_type="image/jpeg")


def write_clip(path: Path, colour: int) -> None:
    """Write two seconds of H.264 that a browser plays, and its poster beside it as `.jpg`."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for number in range(24):
            picture = np.full((90, 160, 3), (colour * 70 % 256, 6 * number, 120), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    Image.fromarray(picture).save(path.with_suffix(".jpg"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `CLIPS` real videos, with names that a URL has to escape."""
    folder = tmp_path_factory.mktemp("clips") / "videos"
    folder.mkdir()
    for number in range(CLIPS):
        write_clip(folder / f"clip #{number} 100%.mp4", number)
    return folder


def done_with_clip(index: int, **changes: Any) -> Record:
    """A done row whose video is one of `clips`."""
    stem = f"videos/clip #{index % CLIPS} 100%"
    artifact = Artifact(f"{stem}.mp4", 2_000_000, "ab" * 32, replace(MEDIA, duration_s=2.0), f"{stem}.jpg")
    return done(index, **({"artifact": artifact} | changes))


def write_report(folder: Path, clips: Path, rows: Sequence[Record], **facts: Any) -> str:
    """Write a report beside the clips; return the address it has on disk."""
    target = folder / "videos"
    if not target.exists():
        target.symlink_to(clips, target_is_directory=True)
    page = folder / "report.html"
    page.write_text(render(rows, title="overnight", manifest="overnight.yaml", generated_at=T0, **facts))
    (folder / "results.csv").write_bytes(csv_bytes(rows))
    return page.as_uri()
