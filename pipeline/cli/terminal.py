"""Words a terminal can take: no control characters from outside, no wider than the window.

Pure text; knows no stream.
"""

from __future__ import annotations

import textwrap
import unicodedata
from typing import Final

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
    """Return a duration as people say it: `45 s`, `12 min`, `3 h 05 min`."""
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
    """Return `line` in as many lines as it takes, broken between words; what hangs over is set in."""
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
