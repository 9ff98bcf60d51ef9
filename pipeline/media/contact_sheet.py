"""Pictures with words: the contact sheet of a reel, and the slates between its clips. Blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from pipeline.media.typesetting import Typesetter

COLUMNS: Final = 4
CELLS_A_SHEET: Final = 48
_PICTURE: Final = (360, 203)
_GAP: Final = 24
_TEXT_LINES: Final = 3
_LINE_PX: Final = 21
_FONT_PX: Final = 16
_PAPER, _INK, _SOFT, _DARK, _FAINT = "#f8f6f1", "#1d1b18", "#6b665d", "#16150f", "#b9b2a4"


class Cell(NamedTuple):
    """One clip: what it is called, what was asked for, and a picture of it, as a file."""

    title: str
    prompt: str
    picture: Path | None


def contact_sheets(cells: Sequence[Cell], setter: Typesetter) -> Iterator[Image]:
    """Yield sheets of up to `CELLS_A_SHEET` pictures, each with its id and the beginning of its prompt."""
    for n in range(0, len(cells), CELLS_A_SHEET):
        yield _sheet(cells[n : n + CELLS_A_SHEET], setter)


def _sheet(cells: Sequence[Cell], setter: Typesetter) -> Image:
    from PIL import Image, ImageDraw

    columns, rows = min(COLUMNS, len(cells)), -(-len(cells) // COLUMNS)
    width, height = _PICTURE[0] + _GAP, _PICTURE[1] + _GAP + (1 + _TEXT_LINES) * _LINE_PX
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, cell in enumerate(cells):
        x, y = _GAP + n % COLUMNS * width, _GAP + n // COLUMNS * height
        draw.rectangle((x, y, x + _PICTURE[0] - 1, y + _PICTURE[1] - 1), fill=_DARK)
        if cell.picture is not None:
            _paste_fitted(sheet, cell.picture, (x, y, *_PICTURE))
        _write(sheet, (x, y + _PICTURE[1] + 6), cell, setter)
    return sheet


def _paste_fitted(sheet: Image, picture: Path, box: tuple[int, int, int, int]) -> None:
    """Paste a picture; one that cannot be read leaves its place dark."""
    import PIL.Image
    from PIL import ImageOps

    x, y, width, height = box
    try:
        with PIL.Image.open(picture) as opened:
            fitted = ImageOps.contain(opened.convert("RGB"), (width, height))
    except Exception:  # decoders raise struct.error, SyntaxError, ... for a file that is damaged
        return
    sheet.paste(fitted, (x + (width - fitted.width) // 2, y + (height - fitted.height) // 2))


def _write(sheet: Image, at: tuple[int, int], cell: Cell, setter: Typesetter) -> None:
    x, y = at
    (title,) = setter.wrap(cell.title, _FONT_PX, _PICTURE[0], 1)
    setter.draw(sheet, (x, y, _PICTURE[0]), title, _FONT_PX, _INK)
    for line in setter.wrap(cell.prompt, _FONT_PX, _PICTURE[0], _TEXT_LINES):
        y += _LINE_PX
        setter.draw(sheet, (x, y, _PICTURE[0]), line, _FONT_PX, _SOFT)


def slate(title: str, prompt: str, size: tuple[int, int], setter: Typesetter) -> Image:
    """Return a title card of the reel's size."""
    from PIL import Image

    width, height = size
    image = Image.new("RGB", size, _DARK)
    margin, px = width // 10, max(12, min(width, height) // 18)
    inner = width - 2 * margin
    lines = [*setter.wrap(title, px, inner, 2), "", *setter.wrap(prompt, px, inner, 6)]
    y = (height - len(lines) * px * 1.4) / 2
    for number, line in enumerate(lines):
        setter.draw(image, (margin, y, inner), line, px, _PAPER if number == 0 else _FAINT)
        y += px * 1.4
    return image
