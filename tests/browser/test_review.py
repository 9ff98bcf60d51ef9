"""The review of takes in a real browser: by keyboard alone, by two at once, from disk, from another site."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from pipeline.media.reel import join_clips
from pipeline.model import PICKED, REJECTED, Pick, Record
from pipeline.results.picks import parse_picks, with_picks
from tests.browser.conftest import write_report
from tests.browser.review import RealReview, Review, copy_clips, takes
from tests.unit.test_reel import clip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page, Route

    from tests.browser.conftest import MonitoredPage

pytestmark = pytest.mark.browser

ROWS, TAKES = 20, 3


@pytest.fixture
def records(tmp_path: Path, clips: Path) -> list[Record]:
    return copy_clips(tmp_path, clips, takes(ROWS, TAKES))


@pytest.fixture
def review(tmp_path: Path, records: list[Record]) -> Iterator[Review]:
    served = Review(tmp_path, records)
    yield served
    served.end()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def current(page: Page) -> str:
    return str(page.evaluate("document.activeElement.dataset.key ?? document.activeElement.tagName"))


def test_twenty_rows_are_reviewed_by_the_keyboard_alone(watched: MonitoredPage, tmp_path: Path) -> None:
    """Of a real batch, served by the real command; then each row rejected whole gets one more take."""
    rows = [{"id": f"row-{n}", "prompt": f"job {n}", "takes": TAKES} for n in range(ROWS)]
    batch = RealReview(tmp_path, rows)
    try:
        expected = review_by_keyboard(watched.page, batch.url)
        batch.end_review()
        picks = {row["id"]: row["pick"] for row in batch.table() if row["pick"]}
        assert picks == {name: pick for name, (pick, _) in expected.items()}
        listed = batch.command("pick", "batch.json").out
        assert sorted(line.split() for line in listed.splitlines()) == sorted(
            [pick, name, *note.split()] for name, (pick, note) in expected.items()
        )
        output = tmp_path / "output" / "batch"
        chosen = {f"row-{index}.mp4" for index in range(ROWS) if index % 4 != 2}
        assert {path.name for path in (output / "picks").iterdir()} == chosen
        assert (output / "picks" / "row-0.mp4").samefile(output / "videos" / "row-0.2.mp4")

        assert len(batch.creates()) == ROWS * TAKES
        for _ in range(2):  # the second go finds a take that nobody has rejected yet
            assert batch.run("--retake", "rejected").code == 0
            retaken = batch.creates()[ROWS * TAKES :]
            assert sorted(retaken) == sorted(f"job {index}" for index in range(2, ROWS, 4))
        assert sum(row["take"] == "4" for row in batch.table()) == ROWS / 4
    finally:
        batch.end()


def review_by_keyboard(page: Page, url: str) -> dict[str, Pick]:
    """Pick and reject with keys alone; return what was said, by the takes' ids."""
    page.goto(url)
    expect(page.locator("#reviewed-text")).to_have_text("0 of 20 rows reviewed")
    press(page, "ArrowDown")
    said: dict[str, Pick] = {}
    for index in range(ROWS):
        row = f"row-{index}"
        assert current(page).partition("@")[0] == row
        match index % 4:
            case 0:
                press(page, "2")
                said[f"{row}.2"] = Pick(PICKED)
            case 1:
                press(page, "ArrowRight", "x", "n", *"dull", "Enter", "ArrowLeft", "1")
                said |= {row: Pick(PICKED), f"{row}.2": Pick(REJECTED, "dull")}
            case 2:
                press(page, "x", "ArrowRight", "x", "ArrowRight", "x", "ArrowLeft", "ArrowLeft")
                said |= {f"{row}{take}": Pick(REJECTED) for take in ("", ".2", ".3")}
            case _:
                press(page, "3", "1")  # a second thought: a row has one pick
                said[row] = Pick(PICKED)
        press(page, "ArrowDown")
    expect(page.locator("#reviewed-text")).to_have_text("20 of 20 rows reviewed")
    expect(page.get_by_role("button", name="picked 15")).to_be_visible()
    press(page, "/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    press(page, *"dull")
    expect(page.locator("#count")).to_have_text("5 of 20")
    press(page, "ArrowDown")
    assert current(page).partition("@")[0] == "row-1"
    expect(page.locator("#review")).to_have_attribute("aria-busy", "false")
    page.goto("about:blank")  # an open page would be waited for
    return said


def test_a_page_is_not_left_while_a_pick_is_on_its_way(watched: MonitoredPage, review: Review) -> None:
    page = watched.page
    page.goto(review.url)
    held: list[Route] = []
    page.route("**/picks", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/picks"):
        press(page, "ArrowDown", "1", "2")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    expect(page.locator("#review")).to_have_attribute("aria-busy", "true")
    held[0].continue_()
    expect(page.locator("#review")).to_have_attribute("aria-busy", "false")
    assert review.picks() == {"row-0.2@f0": Pick(PICKED)}


def test_two_reviewers_see_each_others_picks(watched: MonitoredPage, review: Review) -> None:
    one = watched.page
    other = one.context.new_page()
    for page in (one, other):
        page.goto(review.url)
        expect(page.locator("#live-status")).to_have_text("live")
    one.get_by_role("button", name="Pick row-0.2").click()
    expect(other.get_by_role("button", name="Pick row-0.2")).to_have_attribute("aria-pressed", "true")
    other.get_by_role("button", name="Pick row-0.3").click()
    expect(one.get_by_role("button", name="Pick row-0.2")).to_have_attribute("aria-pressed", "false")
    expect(one.get_by_role("button", name="Pick row-0.3")).to_have_attribute("aria-pressed", "true")
    expect(one.locator("#reviewed-text")).to_have_text("1 of 20 rows reviewed")
    assert review.picks() == {"row-0.3@f0": Pick(PICKED)}
    review.say({"row-1@f1": Pick(REJECTED, "from the terminal")})
    for page in (one, other):
        expect(page.get_by_text("from the terminal")).to_be_visible()
    other.close()


def test_another_site_cannot_pick(watched: MonitoredPage, review: Review, tmp_path: Path) -> None:
    """The browser asks before it sends JSON to another origin, and the server refuses whatever comes."""
    watched.page.goto(review.url)
    token = watched.page.evaluate("JSON.parse(document.getElementById('data').textContent).token")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<title>another site</title>", encoding="utf-8")
    attack = """async ([url, token]) => {
      const body = JSON.stringify({ picks: [{ key: "row-0@f0", pick: "picked", note: "" }] });
      const sent = (mode, headers) => fetch(url + "picks", { method: "POST", mode, headers, body })
        .then((response) => response.type, (error) => "refused");
      return [await sent("cors", { "Content-Type": "application/json", "X-Veobatch-Token": token }),
              await sent("cors", {}), await sent("no-cors", {})];
    }"""
    handler = partial(QuietRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        thread = threading.Thread(target=host.serve_forever, daemon=True)
        thread.start()
        page = watched.page.context.new_page()
        page.goto(f"http://127.0.0.1:{host.server_address[1]}/")
        assert page.evaluate(attack, [review.url, token]) == ["refused"] * 3
        page.close()
        host.shutdown()
        thread.join()
    assert review.picks() == {}


class QuietRequestHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


def test_a_page_from_disk_keeps_picks_and_exports_them(
    watched: MonitoredPage, records: list[Record], tmp_path: Path, clips: Path
) -> None:
    page = watched.page
    address = write_report(tmp_path, clips, records, batch="k3")
    page.goto(address)
    expect(page.get_by_role("button", name="Export picks")).to_be_hidden()
    press(page, "ArrowDown", "3", "ArrowDown", "x")
    page.reload()
    expect(page.get_by_role("button", name="Pick row-0.3")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("veobatch pick overnight.yaml --from picks.json")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export picks").click()
    picks = parse_picks(download.value.path().read_bytes())
    assert picks == {"row-0.3@f0": Pick(PICKED), "row-1@f1": Pick(REJECTED)}
    assert json.loads(download.value.path().read_text())["picks"][0]["id"] == "row-0.3"

    write_report(tmp_path, clips, with_picks(records, picks), batch="k3")
    page.goto(address)
    expect(page.get_by_role("button", name="picked 1")).to_be_visible()
    expect(page.get_by_role("button", name="Export picks")).to_be_hidden()


def test_filters_show_what_is_left_to_review(
    watched: MonitoredPage, records: list[Record], tmp_path: Path, clips: Path
) -> None:
    page = watched.page
    said = {"row-0.2@f0": Pick(PICKED), **{f"row-1{take}@f1": Pick(REJECTED) for take in ("", ".2", ".3")}}
    page.goto(write_report(tmp_path, clips, with_picks(records[:9], said)))
    shown = page.locator(".row:not([hidden])")
    for name, rows in (("to review", ["row-2"]), ("picked", ["row-0"]), ("rejected", ["row-1"])):
        page.get_by_role("button", name=f"{name} 1").click()
        assert [node.get_attribute("data-row") for node in shown.all()] == rows
    page.get_by_role("button", name="to review 1").click()
    press(page, "ArrowDown")
    assert current(page) == "row-2@f2"


def test_takes_play_together_in_step_with_one_heard(watched: MonitoredPage, review: Review) -> None:
    page = watched.page
    page.goto(review.url)
    press(page, "ArrowDown", "Space")
    page.evaluate(ALL_PLAYING)
    apart = page.evaluate(
        "(() => { const at = [...document.querySelectorAll('video')].map((video) => video.currentTime);"
        " return Math.max(...at) - Math.min(...at); })()"
    )
    assert apart < 0.3
    muted = "[...document.querySelectorAll('video')].map((video) => video.muted)"
    assert page.evaluate(muted) == [False, True, True]
    press(page, "ArrowRight")
    assert page.evaluate(muted) == [True, False, True]
    press(page, "Space")
    assert page.evaluate("[...document.querySelectorAll('video')].every((video) => video.paused)")


# The page's policy forbids Playwright's own waiting for it.
ALL_PLAYING = """() => new Promise((resolve) => {
  const look = () => {
    const videos = [...document.querySelectorAll("video")];
    if (videos.length === 3 && videos.every((video) => video.currentTime > 0.3)) resolve();
    else requestAnimationFrame(look);
  };
  look();
})"""


def test_the_reel_plays_to_its_end(watched: MonitoredPage, tmp_path: Path) -> None:
    clips = [clip(tmp_path / "a.mp4"), clip(tmp_path / "b.mp4", size=(90, 160), fps=30)]
    join_clips(clips, tmp_path / "reel.mp4")
    (tmp_path / "reel.html").write_text('<link rel="icon" href="data:,"><video src="reel.mp4"></video>')
    watched.page.goto((tmp_path / "reel.html").as_uri())
    ended = """() => new Promise((resolve) => {
      const video = document.querySelector("video");
      video.addEventListener("ended", () => resolve([video.duration, video.currentTime]));
      video.addEventListener("error", () => resolve(video.error.message));
      video.play();
    })"""
    assert watched.page.evaluate(ended) == [pytest.approx(2.0, abs=0.05)] * 2
