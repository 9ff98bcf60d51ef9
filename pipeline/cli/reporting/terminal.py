"""Terminal output: text without control characters and no wider than the window, streams, bars.

A closed pipe or terminal never stops a run that is paid for.
"""

from __future__ import annotations

import contextlib
import os
import textwrap
import unicodedata
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tqdm import tqdm

# Escape sequences in a vendor's message could clear the screen, and bidirectional overrides could make
# a line read as another one.
_CONTROL: Final = dict.fromkeys(
    (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "�"
)
_ONE_LINE: Final = _CONTROL | {9: " ", 10: " ", 13: " ", 0x2028: " ", 0x2029: " "}

_MIN_WIDTH: Final = 20


def one_line(text: str) -> str:
    """Return `text` on one line, without anything that could move a terminal's cursor."""
    return text.translate(_ONE_LINE).encode("utf-8", "replace").decode()


def duration_text(seconds: float) -> str:
    """Return a rounded duration, for estimates: `45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 89.5:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def display_width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    return sum(_char_width(char) for char in text)


def truncated(text: str, width: int) -> str:
    """Return `text` cut to `width` columns, with an ellipsis where something was cut."""
    if display_width(text) <= width:
        return text
    out, used = [], 0
    for char in text:
        used += _char_width(char)
        if used > width - 1:
            break
        out.append(char)
    return "".join(out) + "…"


def wrapped_to_width(line: str, width: int) -> str:
    """Return `line` broken between words into lines of at most `width` columns, continuations indented."""
    width = max(width, _MIN_WIDTH)
    if display_width(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    inner = textwrap.wrap(
        line.strip(), width - len(indent) - 2, break_long_words=False, break_on_hyphens=False
    )
    return indent + f"\n{indent}  ".join(inner)


def joined_to_width(parts: list[str], width: int, separator: str = " · ") -> str:
    """Return as many of `parts` as fit into `width`; the first ones matter most."""
    out = ""
    for part in parts:
        longer = f"{out}{separator}{part}" if out else part
        if display_width(longer) <= width:
            out = longer
    return out or truncated(parts[0], width) if parts else ""


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


class BestEffortStream:
    """Passes everything on to `stream` until a write fails; from then on it discards what it is given."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        if not self._broken:
            try:
                self._stream.write(text)
            except (OSError, ValueError):
                self._discard_output()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._broken:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._discard_output()

    def _discard_output(self) -> None:
        """Point the stream at nothing, so that what is still buffered cannot fail at exit."""
        self._broken = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_COLOURS: Final = ("blue", "cyan", "green")
_BAR_LABELS: Final = ("submitted", "rendered", "saved")


def can_draw_bars(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether `stream` is a terminal that can redraw lines, with a user in front of it."""
    if environ.get("CI", "").lower() not in ("", "0", "false") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


class ProgressBars:
    """Bars on `stream`, which is a terminal, until `close`."""

    def __init__(self, total: int, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._width = self._terminal_width()
        colours = ("",) * 3 if environ.get("NO_COLOR") else _COLOURS
        self._bars = [
            self._new_bar(total, row, name, colour)
            for row, (name, colour) in enumerate(zip(_BAR_LABELS, colours, strict=True))
        ]
        self._status_line = self._new_bar(None, len(_BAR_LABELS), "", "")

    def draw(self, counts: Sequence[int], status_parts: list[str]) -> None:
        """Show one count a bar, and below them as many of `status_parts` as fit, the first ones first."""
        self._handle_resize()
        for bar, count in zip(self._bars, counts, strict=True):
            bar.n = count
            bar.bar_format = self._format(count, int(bar.total or 0))
        self._status_line.set_description_str(joined_to_width(status_parts, self._width - 1), refresh=False)
        for bar in (*self._bars, self._status_line):
            bar.refresh()

    def print_line(self, line: str) -> None:
        from tqdm import tqdm

        self._handle_resize()
        tqdm.write(wrapped_to_width(line, self._width), file=self._stream)

    def close(self) -> None:
        """Leave the bars on the screen, with the cursor below them."""
        for bar in (*self._bars, self._status_line):
            bar.close()
        self._stream.flush()

    def _new_bar(self, total: int | None, row: int, name: str, colour: str) -> tqdm[Any]:
        from tqdm import tqdm

        return tqdm(
            total=total,
            desc=f"{name:<9}" if name else "",
            file=self._stream,
            position=row,
            dynamic_ncols=True,
            leave=True,
            colour=colour or None,
            bar_format=self._format(0, total or 0) if name else "{desc}",
            mininterval=0,
            miniters=1,
        )

    def _format(self, count: int, total: int) -> str:
        counted = f"{count:>{len(str(total))}}/{total}"
        return f"{{desc}} {{bar}} {counted}"

    def _terminal_width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def _handle_resize(self) -> None:
        """Clear what a narrower window has wrapped, and reset tqdm's memory of how long its lines were.

        It blanks the rest of a line by its former length, which would wrap and scroll the window.
        """
        width = self._terminal_width()
        if width == self._width:
            return
        self._width = width
        self._stream.write("\r\x1b[J")
        for bar in (*self._bars, self._status_line):
            bar.sp = bar.status_printer(self._stream)
