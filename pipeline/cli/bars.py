"""Three bars and a line of facts at the bottom of a terminal, drawn with tqdm.

Owns how they look and that they stay whole: at any width, after a resize, with lines printed above them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TextIO

from pipeline.cli.terminal import joined, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tqdm import tqdm

_COLOURS: Final = ("blue", "cyan", "green")
_NAMES: Final = ("submitted", "rendered", "saved")


def wants_bars(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether `stream` is a terminal that can redraw lines, with somebody in front of it."""
    if environ.get("CI", "").lower() not in ("", "0", "false") or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


class Bars:
    """Bars on `stream`, which is a terminal, until `close`."""

    def __init__(self, total: int, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._width = self._columns()
        colours = ("",) * 3 if environ.get("NO_COLOR") else _COLOURS
        self._bars = [
            self._bar(total, row, name, colour)
            for row, (name, colour) in enumerate(zip(_NAMES, colours, strict=True))
        ]
        self._facts = self._bar(None, len(_NAMES), "", "")

    def draw(self, counts: Sequence[int], facts: list[str]) -> None:
        """Show one count a bar, and under them as many of `facts` as fit, the first ones first."""
        self._watch_width()
        for bar, count in zip(self._bars, counts, strict=True):
            bar.n = count
            bar.bar_format = self._format(count, int(bar.total or 0))
        self._facts.set_description_str(joined(facts, self._width - 1), refresh=False)
        for bar in (*self._bars, self._facts):
            bar.refresh()

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        from tqdm import tqdm

        self._watch_width()
        tqdm.write(wrapped(line, self._width), file=self._stream)

    def close(self) -> None:
        """Leave the bars as they stand, with the cursor under them."""
        for bar in (*self._bars, self._facts):
            bar.close()
        self._stream.flush()

    def _bar(self, total: int | None, row: int, name: str, colour: str) -> tqdm[Any]:
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

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def _watch_width(self) -> None:
        """Clear what a narrower window has wrapped, and let tqdm forget how long its lines were.

        It blanks the rest of a line by its former length, which would wrap and scroll the window.
        """
        width = self._columns()
        if width == self._width:
            return
        self._width = width
        self._stream.write("\r\x1b[J")
        for bar in (*self._bars, self._facts):
            bar.sp = bar.status_printer(self._stream)
