"""The page against the rules of axe-core, and in the ways that people set up their browsers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no hints
from playwright.sync_api import expect

from pipeline.model import PICKED, REJECTED, Record, State
from tests.browser.conftest import done_with_clip, write_report
from tests.unit.sample_rows import failed, row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.conftest import MonitoredPage

pytestmark = pytest.mark.browser


def batch() -> list[Record]:
    """One row of every kind that the page draws in a way of its own."""
    one = done_with_clip(0, id="a", key="a@f", file_stem="a", pick=PICKED, pick_note="warm")
    two = replace(one, id="a.2", key="a.2@f", take=2, pick=REJECTED, pick_note="")
    former = replace(one, key="a@old", position=-1, prompt="As it was.", pick="")
    others = [done_with_clip(1, pick=REJECTED), failed(2), row(3, State.IN_DOUBT), row(4, State.GENERATING)]
    return [one, two, former, *others, row(5)]


@pytest.fixture
def address(tmp_path: Path, clips: Path) -> str:
    return write_report(tmp_path, clips, batch(), sandbox=True, next_command="veobatch run x")


@pytest.fixture
def page(watched: MonitoredPage, address: str) -> Page:
    watched.page.goto(address)
    return watched.page


def violations(page: Page) -> list[tuple[str, str]]:
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [(rule["id"], node["html"][:200]) for rule in found for node in rule["nodes"]]


MODES: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "320 px, light": {"color_scheme": "light", "width": 320},
    "320 px, dark": {"color_scheme": "dark", "width": 320},
    "200 % zoom": {"width": 640, "scale": 2.0},
    "forced colours, light": {"forced_colors": "active", "color_scheme": "light"},
    "forced colours, dark": {"forced_colors": "active", "color_scheme": "dark"},
    "reduced motion": {"reduced_motion": "reduce"},
}


@contextmanager
def window(page: Page, width: int, scale: float) -> Iterator[None]:
    """A window of that many CSS pixels, each of `scale` pixels of the screen, as a zoom makes it."""
    devices = page.context.new_cdp_session(page)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": scale, "mobile": False}
    devices.send("Emulation.setDeviceMetricsOverride", metrics)
    try:
        yield
    finally:
        devices.detach()


@pytest.mark.parametrize("mode", MODES)
def test_axe_finds_no_violation(watched: MonitoredPage, address: str, mode: str) -> None:
    page = watched.page
    wanted = {"width": 1280, "scale": 1.0} | MODES[mode]
    width, scale = wanted.pop("width"), wanted.pop("scale")
    page.emulate_media(**wanted)
    with window(page, width, scale):
        page.goto(address)
        assert (page.evaluate("innerWidth"), page.evaluate("devicePixelRatio")) == (width, scale)
        page.get_by_role("button", name="Play the takes of a together").click()
        expect(page.locator(".card video")).to_have_count(3)
        page.locator(".card").first.press("n")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Details of job-2").click()
        assert violations(page) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Details of a.2").click()
        assert page.locator("dialog").evaluate("node => node.scrollWidth <= node.clientWidth")


def test_forced_colours_keep_what_colours_said(page: Page) -> None:
    page.emulate_media(forced_colors="active")
    pressed = page.get_by_role("button", name="Pick a", exact=True).first
    other = page.get_by_role("button", name="Reject a", exact=True).first
    background = "node => getComputedStyle(node).backgroundColor"
    assert pressed.evaluate(background) != other.evaluate(background)
    picked = page.locator(".is-picked .preview")
    assert picked.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"


def test_nothing_moves_for_who_wants_no_motion(page: Page) -> None:
    duration = "node => getComputedStyle(node, '::after').transitionDuration"
    play = page.locator(".play").first
    assert play.evaluate(duration) != "0s"
    page.emulate_media(reduced_motion="reduce")
    assert play.evaluate(duration) == "0s"
