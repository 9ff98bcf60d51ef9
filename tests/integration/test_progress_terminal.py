"""The bars in a real pseudo-terminal, read back through a terminal emulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pyte

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.integration.progress_child"]


class Terminal:
    """A child in a pseudo-terminal of a given size, with what a person would see of it."""

    def __init__(self, columns: int, rows: int = 24, **environ: str) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.Stream(self.screen)
        self.raw = ""
        self.child = pexpect.spawn(
            COMMAND[0],
            COMMAND[1:],
            env=clean | {"TERM": "xterm-256color"} | environ,
            cwd=ROOT,
            dimensions=(rows, columns),
            encoding="utf-8",
            echo=False,
            timeout=600,
        )

    def step(self, words: str) -> list[str]:
        """Do one step and return the lines on the screen."""
        self.child.sendline(words)
        self.child.expect_exact("\x1b]2;ok\x07")
        self._feed(self.child.before)
        return self.lines()

    def end(self) -> list[str]:
        self.child.sendline("end")
        self.child.expect(pexpect.EOF)
        self._feed(self.child.before)
        return self.lines()

    def resize(self, columns: int, rows: int = 24) -> None:
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def _feed(self, text: str | None) -> None:
        assert text is not None
        self.raw += text
        self.stream.feed(text)


def bars_of(lines: list[str]) -> list[str]:
    return [line for line in lines if re.match(r"(submitted|rendered|saved) ", line)]


def test_bars_tell_the_story_at_80_columns() -> None:
    terminal = Terminal(80)
    terminal.step("saved 76")
    terminal.step("throttled")
    terminal.step("doubt")
    lines = terminal.step("failed")

    assert [line.split()[0] for line in bars_of(lines)] == ["submitted", "rendered", "saved"]
    assert " 78/200" in bars_of(lines)[0]
    assert " 76/200" in bars_of(lines)[2]
    assert lines[-1] == "13 min left · 1 failed · 1 in doubt · 1 throttled · $91.20 of $240.00 · 57/min"
    assert "failed job-99 (line 400): refused: no �[2J face found" in lines
    assert max(map(len, lines)) <= 80


def test_bars_stay_whole_at_40_columns() -> None:
    terminal = Terminal(40)
    lines = terminal.step("saved 76")

    assert len(bars_of(lines)) == 3
    assert " 76/200" in bars_of(lines)[2]
    assert lines[-1] == "13 min left · $91.20 of $240.00"
    assert len(lines) == 4


def test_a_resize_leaves_one_set_of_bars() -> None:
    terminal = Terminal(80)
    terminal.step("saved 10")
    terminal.resize(40)
    narrow = terminal.step("saved 10")
    terminal.resize(100)
    wide = terminal.step("saved 10")

    for lines, width in ((narrow, 40), (wide, 100)):
        assert len(bars_of(lines)) == 3
        assert max(map(len, lines)) <= width
    assert " 30/200" in bars_of(wide)[2]
    assert len(bars_of(wide)[0]) > 60


def test_lines_stand_above_the_bars() -> None:
    terminal = Terminal(80)
    terminal.step("saved 10")
    lines = terminal.step("say the vendor is slow tonight")
    assert lines[0] == "the vendor is slow tonight"
    assert len(bars_of(lines)) == 3

    lines = terminal.end()
    assert lines[-1] == "after the bars"
    assert "of $240.00" in lines[-2]


def test_no_color_is_respected() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*m")
    with_colour, without = Terminal(80), Terminal(80, NO_COLOR="1")
    for terminal in (with_colour, without):
        terminal.step("saved 50")
    assert colour.search(with_colour.raw)
    assert not colour.search(without.raw)


def test_a_pipe_gets_plain_lines_only() -> None:
    steps = "saved 50\nthrottled\nfailed\nend\n"
    ran = subprocess.run(
        COMMAND, input=steps, capture_output=True, text=True, cwd=ROOT, timeout=600, check=True
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", ran.stderr)
    assert ran.stderr.splitlines()[-1].startswith(
        "submitted 51/200, rendered 50, saved 50, 1 failed, 1 throttled"
    )


def test_no_bars_under_ci() -> None:
    terminal = Terminal(80, CI="true")
    assert bars_of(terminal.step("saved 50")) == [
        "submitted 50/200, rendered 50, saved 50, $60.00 of $240.00, 13 min left"
    ]
