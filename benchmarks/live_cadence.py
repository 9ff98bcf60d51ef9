"""How often what people see of a run changes: the terminal's bars, the live page's events, results.csv.

Owns the watching of one process on a terminal of its own. Linux and macOS only.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks.live import HERE, TIMEOUT_S, veobatch_command

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

TERMINAL, CSV = "the terminal's bars", "results.csv"
EVENTS: Final = {"rows": "the page's rows", "parts": "the page's sums"}

_ONE_REDRAW_S: Final = 0.05
"""A redraw reaches the terminal in several pieces, all of them within so many seconds."""

_READ_BYTES: Final = 65_536
_CSV_CHECK_S: Final = 0.05


class WatchedProcess:
    """The real command on a terminal, with its page open; what it shows is noted until it is left."""

    def __init__(self, folder: Path, url: str, rows: int, *args: str) -> None:
        words, environ = veobatch_command(folder, url, rows, *args, "--serve", "0")
        words = [word for word in words if word not in ("--quiet", "--json")]
        environ = {name: value for name, value in environ.items() if name != "CI"} | {"TERM": "xterm"}
        self._csv = folder / "output" / "results.csv"
        self._bar = re.compile(rb"/%d\b" % rows)
        self._times: dict[str, list[float]] = {name: [] for name in (TERMINAL, *EVENTS.values(), CSV)}
        self._page_url, self._is_over = "", threading.Event()
        self._terminal, side = pty.openpty()
        termios.tcsetwinsize(side, (40, 120))  # bars are not drawn where there is no room
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=side, cwd=HERE.parent, env=environ,
        )  # fmt: skip
        os.close(side)

    def __enter__(self) -> WatchedProcess:
        for watch in (self._watch_terminal, self._watch_page, self._watch_csv):
            threading.Thread(target=watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._process.kill()
        self._process.wait()

    def gaps(self, start: float, end: float) -> dict[str, dict[str, float]]:
        """Return how long what is shown stood still between two times, in seconds."""
        return {name: gaps(times, start, end) for name, times in self._times.items()}

    def _watch_terminal(self) -> None:
        seen, drawn_at = b"", 0.0
        while not self._is_over.is_set():
            try:
                data = os.read(self._terminal, _READ_BYTES)
            except OSError:  # the process has ended
                return
            if not self._page_url and (found := re.search(rb"live page: (http\S+)\s", seen := seen + data)):
                self._page_url = found[1].decode()
            if self._bar.search(data) and (now := time.time()) - drawn_at > _ONE_REDRAW_S:
                self._times[TERMINAL].append(now)
                drawn_at = now

    def _watch_page(self) -> None:
        while not self._page_url:
            if self._is_over.wait(0.1):
                return
        # A page that the command serves on loopback, whose address it has printed.
        with urllib.request.urlopen(f"{self._page_url}events", timeout=TIMEOUT_S) as events:  # noqa: S310
            for line in events:
                name = line.partition(b"event: ")[2].strip().decode()
                if name in EVENTS:
                    self._times[EVENTS[name]].append(time.time())

    def _watch_csv(self) -> None:
        written_at = 0
        while not self._is_over.wait(_CSV_CHECK_S):
            if self._csv.exists() and (now := self._csv.stat().st_mtime_ns) != written_at:
                written_at = now
                self._times[CSV].append(time.time())


def gaps(times: list[float], start: float, end: float) -> dict[str, float]:
    """Return the median and the longest gap; what stood still from `start` or until `end` counts as long."""
    moments = [start, *(moment for moment in times if start < moment < end), end]
    between = [later - earlier for earlier, later in pairwise(moments)]
    return {"median_s": median(between), "max_s": max(between)}
