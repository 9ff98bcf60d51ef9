"""The fonts of this machine, and which characters each of them has. Blocks."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

_PROBE_PX: Final = 32
_BITMAP_PX: Final = (109, 160, 96, 64)
"""The sizes that fonts of coloured emoji come in; they are drawn in one of these and scaled."""

_NOBODY_HAS: Final = "\U0010fffe"
_SUFFIXES: Final = frozenset({".ttf", ".otf", ".ttc"})
_OTHER_STYLES: Final = (
    *(
        "bold",
        "italic",
        "oblique",
        "mono",
        "serif",
        "condensed",
        "narrow",
        "light",
        "thin",
        "black",
        "medium",
    ),
    *("math", "display", "symbol"),
)


def installed_fonts() -> list[Path]:
    """Return the font files of this machine, plain upright ones first."""
    found = {
        path for folder in _font_folders() for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES
    }
    return sorted(found, key=lambda path: (_oddness(path.name.lower()), path.name))


def _font_folders() -> Iterator[Path]:
    if sys.platform == "win32":
        yield Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"
        yield Path(os.environ.get("LOCALAPPDATA", "")) / "Microsoft/Windows/Fonts"
    elif sys.platform == "darwin":
        yield from (Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library/Fonts")
    else:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
        yield from (Path(data) / "fonts", Path.home() / ".fonts")
        yield from (Path("/usr/local/share/fonts"), Path("/usr/share/fonts"))


def _oddness(name: str) -> int:
    return sum(style in name for style in _OTHER_STYLES)


@dataclass(eq=False)
class Face:
    """A font file, Pillow's own font without a path; one that cannot be read has no characters."""

    path: Path | None = None
    _sized: dict[int, Any] = field(default_factory=dict)
    _known: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def bitmap_px(self) -> int | None:
        """The only size that it has; None for one that can have any, 0 for one that cannot be read."""
        for px in (_PROBE_PX, *_BITMAP_PX):
            try:
                self._sized[px] = self._load(px)
            except OSError:
                continue
            return None if px == _PROBE_PX else px
        return 0

    def _load(self, px: int) -> Any:
        from PIL import ImageFont

        return ImageFont.load_default(px) if self.path is None else ImageFont.truetype(self.path, px)

    def font(self, px: int) -> Any:
        px = self.bitmap_px or px
        if px not in self._sized:
            self._sized[px] = self._load(px)
        return self._sized[px]

    def has(self, character: str) -> bool:
        if character not in self._known:
            self._known[character] = self.bitmap_px != 0 and self._glyph(character) != self._glyph(
                _NOBODY_HAS
            )
        return self._known[character]

    def _glyph(self, character: str) -> tuple[object, ...]:
        mask = self.font(_PROBE_PX).getmask(character)
        return mask.size, bytes(mask)

    def length(self, text: str, px: int) -> float:
        length: float = self.font(px).getlength(text)
        return length * px / self.bitmap_px if self.bitmap_px else length

    def draw(self, image: Image, at: tuple[float, float], text: str, px: int, fill: str) -> None:
        """Draw a text in pixels of `px` height with its upper left corner at `at`."""
        import PIL.Image
        from PIL import ImageDraw

        font = self.font(px)
        if not self.bitmap_px:
            base = (at[0], at[1] + px)  # fonts differ in height: their base lines are one line
            ImageDraw.Draw(image).text(base, text, fill=fill, font=font, anchor="ls")
            return
        picture = PIL.Image.new("RGBA", (max(1, round(font.getlength(text))), round(self.bitmap_px * 1.2)))
        ImageDraw.Draw(picture).text((0, 0), text, font=font, embedded_color=True)
        scale = px / self.bitmap_px
        small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
        image.paste(small, (round(at[0]), round(at[1])), small)
