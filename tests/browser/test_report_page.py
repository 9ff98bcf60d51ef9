"""The morning page in a real browser, opened from disk as people open it."""

from __future__ import annotations

import json
import re
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from playwright.sync_api import expect

from pipeline.model import State
from pipeline.results.source_thumbnails import thumbnail_path
from tests.browser.conftest import done_with_clip, write_report
from tests.busy import busy_factor
from tests.unit.sample_rows import failed, row

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from pipeline.model import Record
    from tests.browser.conftest import MonitoredPage

pytestmark = pytest.mark.browser

HOSTILE = '<script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2"> "quotes" \'too\''
ARABIC = "مرحبا! المرأة تبتسم وتلوّح بيدها."


def batch() -> list[Record]:
    return [
        done_with_clip(0, prompt="The woman puts on glasses.", usd_spent=1.2),
        done_with_clip(1, prompt=HOSTILE, usd_spent=4.8),
        done_with_clip(2, prompt=ARABIC, usd_spent=2.4),
        failed(3, f"image too small {HOSTILE}", prompt="A cat yawns."),
        row(4, State.IN_DOUBT, prompt="Waves."),
        row(5, prompt="Later."),
    ]


@pytest.fixture
def page(watched: MonitoredPage, tmp_path: Path, clips: Path) -> Page:
    watched.page.goto(write_report(tmp_path, clips, batch(), next_command="veobatch run x --retry-failed"))
    return watched.page


def ids(page: Page) -> list[str]:
    return page.locator(".row:not([hidden]) .meta bdi").all_inner_texts()


def wait_until_playing(page: Page, index: int) -> None:
    """Wait until the time of a video moves on; the page's policy forbids Playwright's own waiting for it."""
    page.locator(".card video").nth(index).evaluate(
        """video => new Promise((resolve) => {
          const look = () => video.currentTime > 0.2 ? resolve() : requestAnimationFrame(look);
          look();
        })"""
    )


def test_the_gallery_is_filled(page: Page) -> None:
    expect(page.locator("h1")).to_contain_text("3 of 6 videos are saved.")
    assert ids(page) == [f"job-{index}" for index in range(6)]
    poster = page.locator(".card img").first
    poster.scroll_into_view_if_needed()
    expect(poster).to_have_js_property("naturalWidth", 160)
    expect(page.locator("#count")).to_have_text("6 rows")
    first = page.locator(".card").first
    for words in ("$1.20", "took 1 min 30 s", "8 s · 1080p", "0:02"):
        expect(first).to_contain_text(words)


def test_a_video_plays_where_it_is_clicked(page: Page) -> None:
    page.locator(".card .play").first.click()
    video = page.locator(".card video").first
    expect(video).to_be_focused()
    wait_until_playing(page, 0)
    assert video.evaluate("video => video.videoWidth") == 160
    page.locator(".card .play").first.click()
    wait_until_playing(page, 1)
    assert video.evaluate("video => video.paused"), "one at a time"


def test_filters(page: Page) -> None:
    page.get_by_role("button", name="failed 1").click()
    assert ids(page) == ["job-3"]
    expect(page.get_by_role("button", name="failed 1")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".row:not([hidden]) .preview-text")).to_contain_text("image too small <script>")
    page.get_by_role("button", name="All 6").click()
    page.get_by_role("searchbox").fill("GLASSES woman")
    assert ids(page) == ["job-0"]
    expect(page.locator("#count")).to_have_text("1 of 6")
    page.get_by_role("searchbox").fill("nothing like it")
    expect(page.locator("#none")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    assert len(ids(page)) == 6
    page.get_by_role("searchbox").fill("gen-2")
    assert ids(page) == ["job-2"]


def test_sorts(page: Page) -> None:
    page.get_by_label("Sort").select_option("usd")
    assert ids(page)[:3] == ["job-1", "job-2", "job-0"]
    page.get_by_label("Sort").select_option("failures")
    assert ids(page)[:3] == ["job-3", "job-4", "job-0"]
    page.get_by_label("Sort").select_option("saved")
    assert ids(page)[:3] == ["job-2", "job-1", "job-0"]


def test_failures_come_first_in_the_vendors_words(page: Page) -> None:
    trouble = page.locator(".failure").first
    expect(trouble.locator("q")).to_have_text(f"image too small {HOSTILE}")
    trouble.locator("summary").click()
    expect(trouble).to_contain_text("line 16")
    assert trouble.evaluate("node => node.compareDocumentPosition(document.getElementById('grid')) & 4") == 4
    trouble.get_by_role("button", name="job-3").click()
    expect(page.get_by_role("dialog")).to_contain_text("A cat yawns.")


def test_hostile_and_right_to_left_text_is_harmless(page: Page) -> None:
    expect(page.locator(".card .prompt").nth(1)).to_have_text(HOSTILE)
    assert page.evaluate("window.hacked") is None
    arabic = page.locator(".card .prompt").nth(2)
    expect(arabic).to_have_text(ARABIC)
    assert arabic.evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert page.locator(".card .meta").nth(2).evaluate("node => getComputedStyle(node).direction") == "ltr"


def test_details_show_every_parameter_and_copy_the_id(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Details of job-1").click()
    dialog = page.get_by_role("dialog")
    for words in ("resolution", "1080p", "$4.80", "gen-1", "vb-1-1", "1920 × 1080", "Manifest line"):
        expect(dialog).to_contain_text(words)
    expect(dialog.get_by_alt_text("Source image of job-1")).to_have_js_property("naturalWidth", 48)
    path = page.url.removeprefix("file://").replace("report.html", "videos/clip #1 100%.mp4")
    dialog.get_by_role("button", name="Copy path").click()
    expect(page.locator("#announcer")).to_have_text(f"Copied {path}")
    dialog.get_by_role("button", name="Copy generation id").click()
    expect(page.locator("#announcer")).to_have_text("Copied gen-1")
    assert page.evaluate("navigator.clipboard.readText()") == "gen-1"
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading")).to_have_text("job-2")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Copy id of job-1").click()
    expect(page.locator("#announcer")).to_have_text("Copied job-1")
    page.get_by_role("button", name="Details of job-1").press("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Details of job-1")).to_be_focused()


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the videos")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    for _ in range(7):
        page.keyboard.press("Tab")
    expect(page.get_by_label("Sort")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Keys", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".card .play").nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    second = page.locator(".card").nth(1)
    expect(second).to_be_focused()
    assert second.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text("job-1")
    page.keyboard.press("Escape")
    page.keyboard.press(" ")
    wait_until_playing(page, 0)


def test_a_screen_reader_is_told_what_is_there(page: Page) -> None:
    cards = page.get_by_role("list", name="Videos").get_by_role("listitem")
    expect(cards).to_have_count(6)
    expect(cards.nth(2)).to_have_attribute("aria-posinset", "3")
    expect(cards.nth(2)).to_have_attribute("aria-setsize", "6")
    expect(page.get_by_role("img", name="Timeline.")).to_have_count(1)
    expect(page.get_by_role("img", name="3 done, 1 failed, 1 in doubt, 1 pending")).to_have_count(1)
    controls = "[...document.querySelectorAll('button, a, input, select')]"
    named = "(node) => node.ariaLabel || node.textContent.trim() || node.labels?.length"
    assert page.evaluate(f"{controls}.every({named})")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_window_and_can_be_read(page: Page, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 844})
    page.reload()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (
        page.evaluate(CONTRAST, ["h1", ".rest", ".card .prompt", ".card .meta", ".figures span", "q"]) == []
    )


# Returns the selectors whose text has less than the 4.5 : 1 of WCAG 2 against the page.
CONTRAST = """(selectors) => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255);
    const linear = parts.map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return selectors.filter((selector) => {
    const ink = light(getComputedStyle(document.querySelector(selector)).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05) < 4.5;
  });
}"""


def test_ten_thousand_rows_are_usable_in_time(watched: MonitoredPage, tmp_path: Path, clips: Path) -> None:
    page = watched.page
    address = write_report(tmp_path, clips, [done_with_clip(index) for index in range(10_000)])
    began = time.monotonic()
    page.goto(address)
    page.locator(".card .play").first.wait_for()
    page.get_by_role("searchbox").fill("job-9999")
    expect(page.locator("#count")).to_have_text("1 of 10,000")
    assert time.monotonic() - began < 30 * busy_factor()
    page.get_by_role("searchbox").fill("")
    expect(page.locator(".block")).to_have_count(417)  # 24 rows are laid out at once, off screen none
    expect(page.locator(".card")).to_have_count(10_000)
    assert page.evaluate("window.find('Prompt 9999.')")
    assert page.evaluate("getSelection().anchorNode.textContent") == "Prompt 9999."


def test_the_focus_is_never_pulled_away(watched: MonitoredPage, tmp_path: Path, clips: Path) -> None:
    page = watched.page
    page.goto(write_report(tmp_path, clips, [done_with_clip(index) for index in range(500)]))
    page.locator(".card .play").first.focus()
    page.keyboard.press("End")
    expect(page.locator(".row:focus-within")).to_have_attribute("aria-posinset", "500")
    expect(page.locator(".row:focus-within")).to_be_in_viewport()
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator(".row:focus-within")).to_have_attribute("aria-posinset", "500")


def test_the_browsers_own_search_and_printing_reach_every_card(
    watched: MonitoredPage, tmp_path: Path, clips: Path
) -> None:
    page = watched.page
    page.goto(write_report(tmp_path, clips, [done_with_clip(index) for index in range(300)]))
    expect(page.locator(".card")).to_have_count(300)
    assert page.evaluate("window.find('Prompt 299.')")
    assert page.evaluate("getSelection().anchorNode.textContent") == "Prompt 299."
    page.emulate_media(media="print")
    page.wait_for_function(  # what is out of sight is laid out some frames later, on a busy machine
        "() => [...document.querySelectorAll('.card .prompt')].filter((prompt) =>"
        " prompt.checkVisibility({ contentVisibilityAuto: true }) && prompt.offsetHeight > 0).length == 300"
    )
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))
    assert len(pages) >= 300 / 16, "no sheet of A4 holds more than sixteen cards"


def test_a_clip_plays_on_while_somebody_types_or_scrolls(page: Page) -> None:
    page.locator(".card .play").first.click()
    wait_until_playing(page, 0)
    video = page.locator(".card video").first
    video.evaluate("video => { video.loop = true; window.playing = video; }")
    page.get_by_role("searchbox").fill("nothing like it")
    page.get_by_role("searchbox").fill("job")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.get_by_role("searchbox").fill("")
    assert video.evaluate("video => video === window.playing && !video.paused")
    assert ids(page) == [f"job-{index}" for index in range(6)]


def test_a_picture_of_the_disk_is_shown_by_its_thumbnail(
    watched: MonitoredPage, tmp_path: Path, clips: Path
) -> None:
    sha256 = "cd" * 32
    body = json.dumps({"model": "m", "image_url": f"sha256:{sha256}"}, separators=(",", ":"))
    thumbnail = tmp_path / thumbnail_path(sha256)
    thumbnail.parent.mkdir()
    Image.new("RGB", (96, 54), "teal").save(thumbnail)
    rows = [done_with_clip(0, body=body, manifest_image="stills/my cat.heic")]
    watched.page.goto(write_report(tmp_path, clips, rows))
    watched.page.get_by_role("button", name="Details").first.click()
    dialog = watched.page.get_by_role("dialog")
    expect(dialog.get_by_alt_text("Source image of job-0")).to_have_js_property("naturalWidth", 96)
    expect(dialog).to_contain_text("stills/my cat.heic")


def test_a_source_image_on_a_private_host_is_not_loaded(
    watched: MonitoredPage, tmp_path: Path, clips: Path
) -> None:
    page = watched.page
    urls = [
        "http://localhost/a.jpg",
        "http://2130706433/a.jpg",
        "http://10.1.2.3/a.jpg",
        "http://[fd00::1]/a.jpg",
        "https://nas.local/a.jpg",
        "https://nas/a.jpg",
        "http://100.64.0.1/a.jpg",
    ]
    rows = [done_with_clip(index, manifest_image=url) for index, url in enumerate(urls)]
    page.goto(write_report(tmp_path, clips, rows))
    for index in range(len(urls)):
        page.get_by_role("button", name=f"Details of job-{index}").click()
        expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(f"job-{index}")
        expect(page.locator("dialog img")).to_have_count(0)
        page.keyboard.press("Escape")


def test_a_rehearsal_wears_its_badge(watched: MonitoredPage, tmp_path: Path, clips: Path) -> None:
    watched.page.goto(write_report(tmp_path, clips, [done_with_clip(0)], sandbox=True))
    expect(watched.page.locator(".badge")).to_have_text("Sandbox")
    expect(watched.page.locator(".figures")).to_contain_text("nothing was spent")
    expect(watched.page.locator(".figures")).not_to_contain_text("confirmed")


def test_an_empty_batch_is_a_page_too(watched: MonitoredPage, tmp_path: Path, clips: Path) -> None:
    watched.page.goto(write_report(tmp_path, clips, []))
    expect(watched.page.locator("h1")).to_contain_text("Nothing here yet.")


def test_a_file_that_will_not_play_says_so(watched: MonitoredPage, tmp_path: Path, clips: Path) -> None:
    page = watched.page
    artifact = done_with_clip(0).artifact
    assert artifact is not None
    broken = type(artifact)("broken.mp4", 3, "00", artifact.media)
    (tmp_path / "broken.mp4").write_bytes(b"no!")
    page.goto(write_report(tmp_path, clips, [done_with_clip(0, artifact=broken)]))
    page.locator(".card .play").click()
    expect(page.get_by_role("link", name="Open it")).to_be_visible()


class QuietRequestHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


def test_any_static_host_will_do(watched: MonitoredPage, tmp_path: Path, clips: Path) -> None:
    write_report(tmp_path, clips, batch())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietRequestHandler, directory=str(tmp_path))) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        watched.page.goto(f"http://127.0.0.1:{host.server_address[1]}/report.html")
        watched.page.locator(".card .play").first.click()
        wait_until_playing(watched.page, 0)
        watched.page.goto("about:blank")
        host.shutdown()
        thread.join()
