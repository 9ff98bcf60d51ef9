"""Pictures with words: the contact sheet of a reel, and the slates between its clips. Blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

COLUMNS: Final = 4
CELLS_A_SHEET: Final = 48
_PICTURE: Final = (360, 203)
_GAP: Final = 24
_TEXT_LINES: Final = 3
_LINE_PX: Final = 21
_PAPER, _INK, _SOFT, _DARK = "#f8f6f1", "#1d1b18", "#6b665d", "#16150f"


class Cell(NamedTuple):
    """One clip: what it is called, what was asked for, and a picture of it."""

    title: str
    prompt: str
    picture: Image | None


def contact_sheets(cells: Sequence[Cell]) -> list[Image]:
    """Return sheets of up to `CELLS_A_SHEET` pictures, each with its id and the beginning of its prompt."""
    return [_sheet(cells[n : n + CELLS_A_SHEET]) for n in range(0, len(cells), CELLS_A_SHEET)]


def _sheet(cells: Sequence[Cell]) -> Image:
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
        _write(draw, (x, y + _PICTURE[1] + 6), cell)
    return sheet


def _paste_fitted(sheet: Image, picture: Image, box: tuple[int, int, int, int]) -> None:
    from PIL import ImageOps

    x, y, width, height = box
    fitted = ImageOps.contain(picture.convert("RGB"), (width, height))
    sheet.paste(fitted, (x + (width - fitted.width) // 2, y + (height - fitted.height) // 2))


def _write(draw: Any, at: tuple[int, int], cell: Cell) -> None:
    font = _font(16)
    x, y = at
    draw.text((x, y), _lines(cell.title, font, _PICTURE[0], 1)[0], fill=_INK, font=font)
    for line in _lines(cell.prompt, font, _PICTURE[0], _TEXT_LINES):
        y += _LINE_PX
        draw.text((x, y), line, fill=_SOFT, font=font)


def slate(title: str, prompt: str, width: int, height: int) -> Image:
    """Return a title card of the reel's size."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), _DARK)
    draw = ImageDraw.Draw(image)
    margin, size = width // 10, max(12, min(width, height) // 18)
    font = _font(size)
    lines = [*_lines(title, font, width - 2 * margin, 2), "", *_lines(prompt, font, width - 2 * margin, 6)]
    y = (height - len(lines) * size * 1.4) / 2
    for number, line in enumerate(lines):
        draw.text((margin, y), line, fill=_PAPER if number == 0 else "#b9b2a4", font=font)
        y += size * 1.4
    return image


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _lines(text: str, font: Any, width: int, most: int) -> list[str]:
    """Break a text into lines that fit; the last one that there is room for ends in an ellipsis."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and font.getlength(longer) > width:
            lines.append(line)
            longer = word
        line = longer
    lines.append(line)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} ..."]
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: Any, width: int) -> str:
    while len(line) > 4 and font.getlength(line) > width:
        line = f"{line[:-4].rstrip()}..."
    return line
