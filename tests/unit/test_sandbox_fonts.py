"""Which fonts shows a text, and what is shown when none can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import ImageFont

from pipeline.sandbox.video import fonts
from pipeline.sandbox.video.fonts import PLACEHOLDER, choose_font

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    "text", ["A cat yawns.", "sandbox · maker/model · 8 s · 1280 x 720 · sound", "“Cats” …"]
)
def test_latin_is_shown_as_it_is_in_the_built_in_face(text: str) -> None:
    shown, font = choose_font(text, 20)
    assert shown == text
    assert font.getlength(text) == ImageFont.load_default(20).getlength(text)


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A system whose font folder is empty."""
    monkeypatch.setattr(fonts, "font_dirs", lambda: [tmp_path])
    yield tmp_path
    clear_font_caches()


def clear_font_caches() -> None:
    fonts._installed_fonts.cache_clear()
    fonts._best_font.cache_clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("猫があくびをする。", PLACEHOLDER),
        ("A cat 猫 yawns 猫 twice", f"A cat {PLACEHOLDER} yawns twice"),
        ("“naïve” café — 8 × ß", "“naive” cafe - 8 x ss"),
        ("one\n\ttwo\x00three", "one two three"),
        ("half a pair \ud800", "half a pair"),
    ],
)
def test_letters_that_no_face_has_become_a_placeholder_once(no_fonts: Path, text: str, shown: str) -> None:
    clear_font_caches()
    assert choose_font(text, 20)[0] == shown


def test_a_face_of_the_system_is_taken_when_it_has_the_letters(
    no_fonts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear_font_caches()
    (no_fonts / "broken.ttf").write_bytes(b"no font" * 100_000)
    (no_fonts / "deep").mkdir()
    face = no_fonts / "deep" / "Some Face.TTF"
    face.write_bytes(builtin_font().font_bytes)
    monkeypatch.setattr(fonts, "_has_glyph", lambda name, letter: name == str(face) or letter < "Ā")
    shown, font = choose_font("Привет", 20)
    assert shown == "Привет"
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert font.path == str(face)


def builtin_font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
