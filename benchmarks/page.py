"""How the report of a huge batch feels in Chromium: its first card, scrolling, memory, the browser's search.

    python -m benchmarks.page                     10,000 rows of this tree
    python -m benchmarks.page --before 0d18120    and of the page as it was at that commit

Prints a table; needs Playwright and a Chromium. Each page is made by the code of its own tree, in a process
of its own, of the same rows: done ones with a poster each. Medians of `--rounds` loads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.report import table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE: Final = Path(__file__).resolve().parents[1]
MAKE_PAGE: Final = """
import dataclasses, json, sys
from pipeline.model import Artifact, Media, Record, State
render = __import__(sys.argv[3], fromlist=["render"]).render
fields = {field.name for field in dataclasses.fields(Record)}
def record(n):
    media = Media(8.0, 1920, 1080, 24.0, has_audio=True, video_codec="h264", audio_codec="aac")
    artifact = Artifact(f"videos/{n}.mp4", 2_000_000, "ab" * 32, media, "poster.jpg")
    body = json.dumps({"model": "google/veo-3.1-i2v-fast", "duration": 8, "resolution": "1080p"})
    facts = {
        "key": f"job-{n}@f{n}", "id": f"job-{n}", "fingerprint": f"f{n}", "position": n, "body": body,
        "model": "google/veo-3.1-i2v-fast", "manifest_image": "https://example.com/mona.jpg",
        "prompt": f"The wave breaks over the boats, take by take, in a soft evening light. Prompt {n}.",
        "state": State.DONE, "submitted_at": 1.79e9 + n, "accepted_at": 1.79e9 + n, "polls": 3, "attempts": 1,
        "finished_at": 1.79e9 + n + 90, "downloaded_at": 1.79e9 + n + 92, "usd_spent": 1.2,
        "artifact": artifact, "line": 4 + 4 * n,
    }
    return Record(**{name: value for name, value in facts.items() if name in fields})
rows = [record(n) for n in range(int(sys.argv[1]))]
page = render(rows, title="night", manifest="night.yaml", generated_at=1.79e9)
open(sys.argv[2], "w", encoding="utf-8").write(page)
"""
WATCH_FIRST_CARD: Final = """
new MutationObserver((_, observer) => {
  const card = document.querySelector(".card .play, .card button");
  if (!card) return;
  observer.disconnect();
  const drawn = () => { window.firstCardMs = performance.now(); };
  requestAnimationFrame(() => requestAnimationFrame(drawn));
}).observe(document, { childList: true, subtree: true });
"""
SCROLL: Final = """([seconds, most]) => new Promise((resolve) => {
  const end = Math.min(most, document.documentElement.scrollHeight - innerHeight), frames = [];
  const began = performance.now();
  let last = began;
  const step = (now) => {
    frames.push(now - last);
    last = now;
    const share = (now - began) / 1000 / seconds;
    scrollTo(0, end * Math.min(1, share));
    share < 1 ? requestAnimationFrame(step) : resolve(frames.slice(1));
  };
  requestAnimationFrame(step);
})"""
READY_S: Final = 300
SCROLL_S: Final = 8
SCROLL_PX_S: Final = 5000
"""Faster than anybody reads: five screens a second."""


def make_page(tree: Path, rows: int, target: Path) -> None:
    """Let the code of `tree` write the page of `rows` rows to `target`."""
    module = "pipeline.results.report" if (tree / "pipeline/results/report").is_dir() else "pipeline.report"
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", MAKE_PAGE, str(rows), str(target), module]
    subprocess.run(command, env=environ, cwd=tree, check=True)


def measure(browser: Browser, address: str, rows: int) -> dict[str, float]:
    """Load the page once, scroll through all of it, search for its last prompt."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(READY_S * 1000)
    context.add_init_script(WATCH_FIRST_CARD)
    page = context.new_page()
    page.goto(address, wait_until="commit")
    first_ms = _evaluate_until(page, "window.firstCardMs")
    page.wait_for_load_state("load")
    _settle(page)
    found = page.evaluate(f"window.find('Prompt {rows - 1}.')")
    page.evaluate("getSelection().removeAllRanges()")
    page.evaluate("scrollTo(0, 0)")
    frames: list[float] = page.evaluate(SCROLL, [SCROLL_S, SCROLL_S * SCROLL_PX_S])
    devices = context.new_cdp_session(page)
    devices.send("HeapProfiler.collectGarbage")
    devices.send("Performance.enable")
    metrics = {one["name"]: one["value"] for one in devices.send("Performance.getMetrics")["metrics"]}
    resident_mb = _renderer_mb(browser)
    context.close()
    ordered = sorted(frames)
    return {
        "first_card_s": first_ms / 1000,
        "frames_s": len(frames) / (sum(frames) / 1000),
        "p95_frame_ms": ordered[int(len(ordered) * 0.95)],
        "worst_frame_ms": ordered[-1],
        "heap_mb": metrics["JSHeapUsedSize"] / 1e6,
        "resident_mb": resident_mb,
        "nodes": metrics["Nodes"],
        "found": float(found),
    }


def _evaluate_until(page: Page, expression: str) -> float:
    """Return the expression's value once it has one. The page's policy forbids Playwright's own waiting."""
    wait = "new Promise((resolve) => { const look = () => %s ? resolve(%s) : setTimeout(look, 5); look(); })"
    value: float = page.evaluate(wait % (expression, expression))
    return value


def _settle(page: Page) -> None:
    """Wait until no card was added for a second."""
    page.evaluate(
        "new Promise((resolve) => { let count = -1; const look = () => {"
        " const now = document.querySelectorAll('.card').length;"
        " if (now === count) resolve(); else { count = now; setTimeout(look, 1000); } }; look(); })"
    )


def _renderer_mb(browser: Browser) -> float:
    """Return the resident memory of the largest renderer; 0 where /proc has none."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    pids = [one["id"] for one in processes if one["type"] == "renderer"]
    sizes = [0.0]
    for pid in pids:
        status = Path(f"/proc/{pid}/status")
        if status.exists():
            sizes += [
                int(line.split()[1]) / 1e3
                for line in status.read_text().splitlines()
                if line.startswith("VmRSS")
            ]
    return max(sizes)


def export_tree(commit: str, folder: Path) -> Path:
    """Unpack the package as it was at `commit` into `folder`."""
    archive = subprocess.run(
        ["git", "archive", commit, "pipeline"], cwd=HERE, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def run(rows: int, rounds: int, trees: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Measure the pages of the trees in turns; return medians by the tree's name."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        Image.new("RGB", (640, 360), "teal").save(Path(folder) / "poster.jpg")
        for number, tree in enumerate(trees.values()):
            make_page(tree, rows, Path(folder) / f"{number}.html")
        for _ in range(rounds):
            for number, name in enumerate(trees):
                browser = playwright.chromium.launch(
                    executable_path=os.environ.get("PLAYWRIGHT_CHROMIUM_EXECUTABLE_PATH")
                    or shutil.which("chromium"),
                    args=["--no-sandbox"] if os.geteuid() == 0 else [],
                )
                found[name].append(measure(browser, (Path(folder) / f"{number}.html").as_uri(), rows))
                browser.close()
    return {name: _medians(each) for name, each in found.items()}


def _medians(each: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in each) for name in each[0]}


def as_table(rows: int, found: dict[str, dict[str, float]]) -> str:
    """Return the results as a table of Markdown."""
    head = [
        f"{rows:,} rows",
        "first card s",
        "frames/s",
        "p95 frame ms",
        "worst ms",
        "heap MB",
        "resident MB",
    ]
    cells = [
        [
            name,
            f"{one['first_card_s']:.2f}",
            f"{one['frames_s']:.0f}",
            f"{one['p95_frame_ms']:.0f}",
            f"{one['worst_frame_ms']:.0f}",
            f"{one['heap_mb']:.0f}",
            f"{one['resident_mb']:.0f}",
            f"{one['nodes']:,.0f}",
            "yes" if one["found"] else "no",
        ]
        for name, one in found.items()
    ]
    return table([*head, "nodes", "last prompt found"], cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", metavar="COMMIT", help="measure the page of this commit, too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trees = {} if options.before is None else {options.before: export_tree(options.before, Path(folder))}
        found = run(options.rows, options.rounds, trees | {"now": HERE})
    print(json.dumps(found) if options.json else as_table(options.rows, found))


if __name__ == "__main__":
    main()
