"""Draws the prompt for the band under the moving picture. Pure: a label in, an image out."""

from __future__ import annotations

import textwrap
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from pipeline.sandbox.video.shape import ClipLabel

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND: Final = (13, 13, 30)
PROMPT_COLOUR: Final = (248, 240, 230)
DETAILS_COLOUR: Final = (158, 150, 178)
MISSING_GLYPH: Final = "\uffff"
FONT_FILES: Final = (
    *("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf"),
    *("Hiragino Sans GB.ttc", "Arial Unicode.ttf", "msyh.ttc", "msgothic.ttc", "malgun.ttf"),
)
"""Fonts with many letters, for what Pillow's own lacks; none has to be installed."""


def draw_caption(width: int, height: int, label: ClipLabel) -> Image.Image:
    """The caption as an RGB image of that size; a prompt that does not fit is shortened."""
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    margin, size = round(width * 0.05), round((width * height) ** 0.5 * 0.08)
    text, font = choose_font(label.prompt, size)
    lines = wrap(text, width - 2 * margin, font, max_lines=max(1, round(height * 0.55 / (size * 1.3))))
    draw.multiline_text((margin, height * 0.16), "\n".join(lines), PROMPT_COLOUR, font, spacing=size * 0.3)
    details, small = choose_font(label.details, max(10, round(size * 0.45)))
    draw.text((margin, height * 0.83), wrap(details, width - 2 * margin, small, 1)[0], DETAILS_COLOUR, small)
    return image


def wrap(text: str, width: int, font: Font, max_lines: int) -> list[str]:
    """`text` in at most `max_lines` lines of `width` pixels; never empty."""
    columns = max(2, len(text))
    while True:
        lines = textwrap.wrap(text, columns, max_lines=max_lines, placeholder="…") or [""]
        longest = max(font.getlength(line) for line in lines)
        if longest <= width or columns == 2:
            return lines
        columns = max(2, min(columns - 1, int(columns * width / longest) + 1))


def choose_font(text: str, size: int) -> tuple[str, Font]:
    """`text` as it can be drawn, and the font that has most of its letters; what none has becomes "?"."""
    text = " ".join("".join(" " if _is_control(letter) else letter for letter in text).split())
    letters = set(text) - {" "}
    best, missing = "", {letter for letter in letters if not _has_glyph("", letter)}
    for name in FONT_FILES:
        if not missing:
            break
        lacks = {letter for letter in letters if not _has_glyph(name, letter)}
        best, missing = (name, lacks) if len(lacks) < len(missing) else (best, missing)
    font = _load_font(best, size)
    assert font is not None  # noqa: S101  # it was loaded to look for the letters
    return "".join("?" if letter in missing else letter for letter in text), font


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs")


@lru_cache(maxsize=16384)
def _has_glyph(name: str, letter: str) -> bool:
    font = _load_font(name, 24)
    if font is None:
        return False
    shown, missing = font.getmask(letter), font.getmask(MISSING_GLYPH)
    return (shown.size, bytes(shown)) != (missing.size, bytes(missing))


@lru_cache(maxsize=64)
def _load_font(name: str, size: int) -> Font | None:
    """Pillow's own font for "", else the installed font of that file name, or None."""
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None
