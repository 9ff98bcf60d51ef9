"""Sets the job's prompt in type, for the still band under the moving picture. Pure: words in, pixels out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

from PIL import Image, ImageDraw, ImageFont

from pipeline.sandbox.video.fonts import choose_font

if TYPE_CHECKING:
    from pipeline.sandbox.video.fonts import Font
    from pipeline.sandbox.video.shape import ClipLabel

BACKGROUND_COLOR: Final = (13, 13, 30)
TEXT_COLOR: Final = (248, 240, 230)
DETAILS_COLOR: Final = (158, 150, 178)
ACCENT_COLORS: Final = ((255, 158, 112), (250, 202, 96), (240, 112, 128), (166, 142, 250), (92, 200, 190))
FONT_SIZE_SHARES: Final = (0.034, 0.028, 0.023, 0.0195)
"""The prompt's type as shares of the picture's width, the largest first."""


def draw_caption(width: int, height: int, label: ClipLabel) -> Image.Image:
    """The caption as an RGB picture of that size; what does not fit is shortened with an ellipsis."""
    image = Image.new("RGB", (width, height), BACKGROUND_COLOR)
    draw = ImageDraw.Draw(image)
    margin = round(min(width * 0.055, height * 0.36))
    text_width = width - 2 * margin
    rule, text_top, details_top = (round(height * share) for share in (0.14, 0.21, 0.83))
    accent = ACCENT_COLORS[crc32(label.prompt.encode()) % len(ACCENT_COLORS)]
    draw.rectangle((margin, rule, margin + round(margin * 0.5), rule + max(2, height // 70)), fill=accent)
    lines, font = _fit_prompt(
        label.prompt, text_width, details_top - text_top, width if width > height * 3 else width * 1.75
    )
    for number, line in enumerate(lines):
        draw.text((margin, text_top + number * _line_height(font)), line, font=font, fill=TEXT_COLOR)
    size = max(12, round(height * 0.078 if width > height * 3 else width * 0.026))
    details, small = choose_font(label.details, size)
    draw.text((margin, details_top), shorten(details, text_width, small), font=small, fill=DETAILS_COLOR)
    return image


def wrap(text: str, width: int, font: Font, max_lines: int) -> list[str]:
    """`text` in at most `most` lines of `width` pixels; a word too long for a line is broken."""
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < max_lines:
        if len(lines) == max_lines - 1:
            return [*lines, shorten(rest, width, font)]
        cut = _fitting_length(rest, width, font)
        space = rest.rfind(" ", 0, cut + 1) if cut < len(rest) else -1
        cut = space if space > 0 else cut
        lines.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return lines


def shorten(text: str, width: int, font: Font) -> str:
    """`text` if it fits `width` pixels, else as much of it as fits with an ellipsis."""
    cut = _fitting_length(text, width, font)
    if cut >= len(text):
        return text
    while cut > 1 and font.getlength(text[:cut].rstrip() + "…") > width:
        cut -= 1
    space = text.rfind(" ", 0, cut + 1)
    cut = space if space > cut - 16 and space > 0 else cut
    return text[:cut].rstrip(" ,.;:") + "…"


def _fit_prompt(text: str, width: int, height: int, scale: float) -> tuple[list[str], Font]:
    """The prompt in the largest type that shows all of it, else in the smallest, shortened."""
    for share in FONT_SIZE_SHARES:
        shown, font = choose_font(text, max(12, round(scale * share)))
        lines = wrap(shown, width, font, max(1, height // _line_height(font)))
        if not lines or not lines[-1].endswith("…"):
            break
    return lines, font


def _line_height(font: Font) -> int:
    size = font.size if isinstance(font, ImageFont.FreeTypeFont) else 12
    return max(1, round(size * 1.28))


def _fitting_length(text: str, width: int, font: Font) -> int:
    """How many letters of `text` fit into `width` pixels (at least one, so that wrapping ends)."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    return low
