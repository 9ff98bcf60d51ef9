"""Makes the README's pictures from a real run: `python -m docs.make_pictures`.

The command runs in a pseudo-terminal and is read back through a terminal emulator; what a person would have
seen becomes an animated SVG that ends with the report of the run, seen by a headless browser. The report
is a PNG, too. A second page is that of a night on which not all went well. Needs the extra `dev` and a
Chromium.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

import pexpect
import pyte
from PIL import Image

ROOT: Final = Path(__file__).parents[1]
PICTURES: Final = ROOT / "docs" / "pictures"
COMMAND: Final = "veobatch run --sandbox"
COLUMNS: Final = 80
ROWS: Final = 30
FRAME_S: Final = 0.25
LAST_FRAME_S: Final = 4.0
PAGE_S: Final = 6.0
PAGE_WIDTH: Final = 760
NIGHT: Final = ("content-refusal:secret", "bad-request:astronaut", "cdn-corrupt:hare", "throttled:0.2*6")

CELL: Final = 8.4
LINE: Final = 18.0
MARGIN: Final = 16.0
BAR: Final = 28.0
INK: Final = "#d6deeb"
PAPER: Final = "#0f1720"
COLOURS: Final = {
    "default": INK, "red": "#ff6b6b", "green": "#7fd88f", "brown": "#f2c66d", "yellow": "#f2c66d",
    "blue": "#82aaff", "magenta": "#c792ea", "cyan": "#7fdbca", "white": "#ffffff", "black": "#5f6b7a",
}  # fmt: skip

BLOCKS: Final = "█▉▊▋▌▍▎▏"
"""Drawn as rectangles: side by side, a font's blocks show their seams."""

Row = tuple[tuple[int, str, str, bool], ...]
"""Runs of one look: the column it begins at, its text, its colour, and whether it is bold."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the screen showed from `at_s` seconds on."""

    at_s: float
    rows: tuple[Row, ...]


def surroundings() -> dict[str, str]:
    """Return the environment of a person at a terminal, with this Python's `veobatch` on the path."""
    away = ("CI", "NO_COLOR", "GITHUB_ACTIONS")
    environ = {name: value for name, value in os.environ.items() if name not in away}
    return environ | {"TERM": "xterm-256color", "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}"}


def watch(folder: Path) -> list[Frame]:
    """Run the command in `folder` and return each different screen; raises when it does not exit with 0."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    stream.feed(f"$ {COMMAND}\r\n")
    child = pexpect.spawn(
        COMMAND, cwd=folder, env=surroundings(), dimensions=(ROWS, COLUMNS), encoding="utf-8", timeout=120
    )
    frames = [Frame(0.0, rows_of(screen))]
    began, seen = time.monotonic(), time.monotonic()
    while True:
        try:
            stream.feed(child.read_nonblocking(4096, timeout=0.1))
        except pexpect.TIMEOUT:
            pass
        except pexpect.EOF:
            break
        if time.monotonic() - seen >= FRAME_S:
            seen = time.monotonic()
            frames.append(Frame(seen - began, rows_of(screen)))
    child.close()
    if child.exitstatus:
        raise SystemExit(f"{COMMAND} exited with {child.exitstatus}")
    frames.append(Frame(time.monotonic() - began, rows_of(screen)))
    return [next(same) for _, same in groupby(frames, key=lambda frame: frame.rows)]


def rows_of(screen: pyte.Screen) -> tuple[Row, ...]:
    """Return what `screen` shows now, without the blank end of its lines."""
    rows = []
    for y in range(ROWS):
        cells = [screen.buffer[y][x] for x in range(COLUMNS)]
        while cells and cells[-1].data == " ":
            cells.pop()
        runs, x = [], 0
        for (colour, bold), group in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            text = "".join(cell.data for cell in group)
            runs.append((x, text, COLOURS.get(colour, f"#{colour}"), bold))
            x += len(text)
        rows.append(tuple(runs))
    return tuple(rows)


def svg(frames: list[Frame], page: Path) -> str:
    """Return the recording, then the picture `page`; without motion, the terminal's last frame is shown."""
    lines = max(y + 1 for frame in frames for y, row in enumerate(frame.rows) if row)
    width, height = COLUMNS * CELL + 2 * MARGIN, BAR + lines * LINE + 2 * MARGIN
    page_at_s = frames[-1].at_s + LAST_FRAME_S
    whole_s = page_at_s + PAGE_S
    ends = [*(frame.at_s for frame in frames[1:]), page_at_s]
    styles, groups = [], []
    for n, (frame, end) in enumerate(zip(frames, ends, strict=True)):
        start, stop = 100 * frame.at_s / whole_s, 100 * end / whole_s
        last = n == len(frames) - 1
        styles.append(
            f"#f{n}{{animation:a{n} {whole_s:.2f}s step-end infinite}}@keyframes a{n}{{0%{{visibility:"
            f"{'visible' if not n else 'hidden'}}}{start:.3f}%{{visibility:visible}}"
            f"{stop:.3f}%{{visibility:hidden}}}}"
        )
        hidden = "" if last else ' visibility="hidden"'
        groups.append(f'<g id="f{n}"{hidden}>{"".join(map(line_svg, range(lines), frame.rows))}</g>')
    styles.append(
        f"#p{{animation:p {whole_s:.2f}s infinite}}@keyframes p{{0%,{100 * page_at_s / whole_s:.3f}%"
        f"{{opacity:0}}{100 * (page_at_s + 0.4) / whole_s:.3f}%,100%{{opacity:1}}}}"
    )
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 18 * n}" cy="{BAR / 2 + 4}" r="5" fill="{colour}"/>'
        for n, colour in enumerate(("#ff6b6b", "#f2c66d", "#7fd88f"))
    )
    motion = f"@media (prefers-reduced-motion:no-preference){{{''.join(styles)}}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
        f' role="img" aria-label="{escape(COMMAND)}, from the first bar to the closing words">'
        f"<style>text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        f"white-space:pre}}.b{{font-weight:bold}}{motion}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>{dots}{"".join(groups)}'
        f"{embedded(page, width, height)}</svg>\n"
    )


def embedded(page: Path, width: float, height: float) -> str:
    """Return `page` as an image over the whole window, cut off at its lower edge."""
    buffer = io.BytesIO()
    with Image.open(page) as picture:
        shown = picture.convert("RGB")
        shown = shown.resize((PAGE_WIDTH, round(PAGE_WIDTH * shown.height / shown.width)))
        shown.crop((0, 0, PAGE_WIDTH, round(PAGE_WIDTH * height / width))).save(buffer, "WEBP", quality=70)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<image id="p" opacity="0" width="{width:g}" height="{height:g}" '
        f'href="data:image/webp;base64,{data}"/>'
    )


def line_svg(y: int, row: Row) -> str:
    """Return one line's runs, each held to its columns whatever font there is."""
    out = []
    for x, text, colour, bold in row:
        blank = len(text) - len(text.lstrip(" "))
        shown = text.strip(" ")
        if not shown:
            continue
        left, top = MARGIN + (x + blank) * CELL, BAR + MARGIN + y * LINE
        if set(shown) <= set(BLOCKS):
            wide = CELL * sum(1 - BLOCKS.index(block) / 8 for block in shown)
            place = f'x="{left:.1f}" y="{top + 3:.1f}" width="{wide:.1f}" height="{LINE - 5:.1f}"'
            out.append(f'<rect {place} fill="{colour}"/>')
            continue
        look = ' class="b"' if bold else ""
        out.append(
            f'<text x="{left:.1f}" y="{top + 0.75 * LINE:.1f}"'
            f' textLength="{len(shown) * CELL:.1f}" fill="{colour}"{look}>'
            f"{escape(shown)}</text>"
        )
    return "".join(out)


def screenshot(report: Path, picture: Path, height: int, at: str = "") -> None:
    """Save what a browser shows of `report`, or of it from the element `at` on, in few enough colours for a
    page to load quickly."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    browser_path = next((found for name in names if (found := shutil.which(name))), None)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=arguments)
        page = browser.new_page(viewport={"width": 1080, "height": height}, color_scheme="light")
        page.goto(report.as_uri())
        page.wait_for_load_state("networkidle")
        if at:
            page.locator(at).evaluate("node => scrollTo(0, node.offsetTop - 90)")
            page.wait_for_timeout(500)
        page.screenshot(path=picture)
        browser.close()
    with Image.open(picture) as whole:
        few = whole.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


def bad_night(folder: Path) -> None:
    """Run the large manifest in `folder` against a sandbox that has a bad night; some of its rows fail."""
    faults = " ".join(f"--fault {fault}" for fault in NIGHT)
    served = pexpect.spawn(
        f"veobatch sandbox --port 0 --speed 40 {faults}", env=surroundings(), encoding="utf-8", timeout=60
    )
    served.expect(r"http://[0-9.:]+")
    environ = surroundings() | {
        "AIMLAPI_API_KEY": "any",
        "AIMLAPI_API_BASE": str(served.after),
        "VEOBATCH_POLL_INTERVAL": "0.25",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    night = pexpect.spawn("veobatch run jobs/overnight.yaml", cwd=folder, env=environ, timeout=120)
    night.expect_exact("Go on?")
    night.sendline("y")
    night.expect(pexpect.EOF)
    night.close()
    served.terminate(force=True)
    if night.exitstatus != 1:
        raise SystemExit(f"the bad night ended with {night.exitstatus}")


def reviewed_takes(folder: Path) -> None:
    """Make three takes of each row in `folder`, and choose among some of them."""
    commands = (
        "veobatch run jobs/quick.yaml --sandbox --takes 3 --yes",
        "veobatch pick jobs/quick.yaml great-wave.2",
        "veobatch pick jobs/quick.yaml great-wave earthrise earthrise.3 --reject",
        "veobatch pick jobs/quick.yaml earthrise.3 --reject --note 'The horizon tilts.'",
    )
    for command in commands:
        child = pexpect.spawn(command, cwd=folder, env=surroundings(), timeout=300)
        child.expect(pexpect.EOF)
        child.close()
        if child.exitstatus:
            raise SystemExit(f"{command} exited with {child.exitstatus}")


def main() -> None:
    """Make every picture anew."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "jobs", folder / "jobs")
        frames = watch(folder)
        screenshot(folder / "output" / "example.sandbox" / "report.html", PICTURES / "report.png", 1000)
        (PICTURES / "run.svg").write_text(svg(frames, PICTURES / "report.png"), encoding="utf-8")
        reviewed_takes(folder)
        page = folder / "output" / "quick.sandbox" / "report.html"
        screenshot(page, PICTURES / "takes.png", 900, at='[data-row="great-wave"]')
        bad_night(folder)
        screenshot(folder / "output" / "overnight" / "report.html", PICTURES / "night.png", 1500)


if __name__ == "__main__":
    main()
