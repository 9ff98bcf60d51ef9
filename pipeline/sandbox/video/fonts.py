"""Owns which typeface shows a text: Pillow's own, or one of the system's; and what to do without one."""

from __future__ import annotations

import os
import sys
import unicodedata
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterator

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BUILTIN_FONT: Final = ""
"""The name of Pillow's own typeface: ASCII and little else, no accents, no dashes."""

PREFERRED_FONTS: Final = (
    "dejavusans.ttf",
    *("notosanscjk-regular.ttc", "notosanscjkjp-regular.otf", "notosanscjksc-regular.otf"),
    *("wqy-microhei.ttc", "wqy-zenhei.ttc", "droidsansfallbackfull.ttf", "droidsansfallback.ttf"),
    *("ipag.ttf", "ipagp.ttf", "takaopgothic.ttf", "vl-gothic-regular.ttf", "nanumgothic.ttf", "uming.ttc"),
    *("hiragino sans gb.ttc", "pingfang.ttc", "stheiti light.ttc", "applesdgothicneo.ttc"),
    *(
        "arial unicode.ttf",
        "msyh.ttc",
        "msgothic.ttc",
        "malgun.ttf",
        "simsun.ttc",
        "segoeui.ttf",
        "arial.ttf",
    ),
)
"""File names of plain faces with many letters, on Linux, macOS and Windows; none need be there."""

MAX_OTHER_FONTS: Final = 40
"""Further files that are looked into for a text that no preferred face shows, the largest first: a face
of many letters is a large file. Each costs a millisecond."""

PLACEHOLDER: Final = "[non-Latin prompt]"
ASCII_FALLBACKS: Final = {"—": "-", "–": "-", "×": "x", "ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE"}
MISSING_CHARACTER: Final = "\uffff"
PROBE_FONT_SIZE: Final = 24
INVISIBLE_CATEGORIES: Final = frozenset({"Zs", "Zl", "Zp", "Cf", "Mn"})
"""Categories of characters that show nothing of their own."""


def choose_font(text: str, size: int) -> tuple[str, Font]:
    """`text` as it can be shown, and the face to show it in.

    White space becomes single spaces, control characters go. Letters that no face here has become
    `PLACEHOLDER`, once, instead of a row of boxes.
    """
    text = " ".join("".join(" " if _is_control(letter) else letter for letter in text).split())
    characters = frozenset(text) - {" "}
    name = _best_font(characters)
    missing = {letter for letter in characters if not _has_glyph(name, letter)}
    if missing:
        text = "".join(_ascii_fallback(letter) if letter in missing else letter for letter in text)
        missing = {letter for letter in text if letter != " " and not _has_glyph(name, letter)}
    font = _load_font(name, size)
    assert font is not None  # noqa: S101  # it was opened to look for the letters
    return (_with_placeholder(text, missing) if missing else text), font


def _ascii_fallback(letter: str) -> str:
    """The letter without its accents, or an ASCII sign that stands for it, or itself without one."""
    bare = (
        ASCII_FALLBACKS.get(letter)
        or unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    )
    return bare or letter


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs")


def _with_placeholder(text: str, missing: set[str]) -> str:
    """`text` with its first run of missing letters as the placeholder and the others left out."""
    kept: list[str] = []
    before, shown = False, False
    for letter in text:
        is_missing = letter in missing
        if not is_missing:
            kept.append(letter)
        elif not before:
            kept.append(" " if shown else f" {PLACEHOLDER} ")
            shown = True
        before = is_missing
    return " ".join("".join(kept).split())


@lru_cache(maxsize=512)
def _best_font(letters: frozenset[str]) -> str:
    """The first face that has all the letters, else the one that has most of them."""
    best, most = BUILTIN_FONT, -1
    for name in _candidate_fonts():
        if _load_font(name, PROBE_FONT_SIZE) is None:
            continue
        has = sum(_has_glyph(name, letter) for letter in letters)
        if has > most:
            best, most = name, has
        if has == len(letters):
            break
    return best


def _candidate_fonts() -> Iterator[str]:
    """Pillow's own face, the preferred ones that are here, then others; lazily, since most texts need one."""
    yield BUILTIN_FONT
    found = _installed_fonts()
    yield from (found[name] for name in PREFERRED_FONTS if name in found)
    others = [path for name, path in found.items() if name not in PREFERRED_FONTS]
    yield from islice(sorted(others, key=lambda path: (-_file_size_bytes(path), path)), MAX_OTHER_FONTS)


def _file_size_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _installed_fonts() -> dict[str, str]:
    """Paths of the font files in the usual folders, by file name in lower case."""
    found: dict[str, str] = {}
    for root in font_dirs():
        for folder, _, names in os.walk(root):
            for name in names:
                if name.lower().endswith((".ttf", ".otf", ".ttc")):
                    found.setdefault(name.lower(), str(Path(folder, name)))
    return found


def font_dirs() -> list[Path]:
    """Where this kind of system keeps fonts."""
    home = Path("~").expanduser()
    if sys.platform == "win32":
        windows = Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts")
        return [windows, home / "AppData/Local/Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    return [
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        home / ".local/share/fonts",
        home / ".fonts",
    ]


@lru_cache(maxsize=16384)
def _has_glyph(name: str, letter: str) -> bool:
    """Whether the face draws the letter as something else than its sign for what it lacks."""
    if unicodedata.category(letter) in INVISIBLE_CATEGORIES:
        return True
    font = _load_font(name, PROBE_FONT_SIZE)
    if font is None:
        return False
    try:
        return _render_glyph(font, letter) != _render_glyph(font, MISSING_CHARACTER)
    except OSError:  # a damaged font
        return False


def _render_glyph(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@lru_cache(maxsize=64)
def _load_font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.load_default(size) if name == BUILTIN_FONT else ImageFont.truetype(name, size)
    except OSError:
        return None
