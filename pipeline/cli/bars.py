"""Three bars and a line of facts at the bottom of a terminal, drawn with tqdm.

Owns how they look and that they stay whole: at any width, after a resize, with lines printed above them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TextIO

from pipeline.cli.terminal import joined_to_width, wrapped_to_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tqdm import tqdm

_COLOURS: Final = ("blue", "cyan", "green")
_BAR_LABELS: Final = ("submitted", "rendered", "saved")


def can_draw_bars(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether `stream` is a terminal that can redraw lines, with somebody in front of it."""
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
        """Show one count a bar, and under them as many of `facts` as fit, the first ones first."""
        self._handle_resize()
        for bar, count in zip(self._bars, counts, strict=True):
            bar.n = count
            bar.bar_format = self._format(count, int(bar.total or 0))
        self._status_line.set_description_str(joined_to_width(status_parts, self._width - 1), refresh=False)
        for bar in (*self._bars, self._status_line):
            bar.refresh()

    def print_line(self, line: str) -> None:
        """Print a line above the bars."""
        from tqdm import tqdm

        self._handle_resize()
        tqdm.write(wrapped_to_width(line, self._width), file=self._stream)

    def close(self) -> None:
        """Leave the bars as they stand, with the cursor under them."""
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
        """Clear what a narrower window has wrapped, and let tqdm forget how long its lines were.

        It blanks the rest of a line by its former length, which would wrap and scroll the window.
        """
        width = self._terminal_width()
        if width == self._width:
            return
        self._width = width
        self._stream.write("\r\x1b[J")
        for bar in (*self._bars, self._status_line):
            bar.sp = bar.status_printer(self._stream)
