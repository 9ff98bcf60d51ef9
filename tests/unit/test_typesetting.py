"""Slates and contact sheets in any script: drawn where a font has it, named where none has, never a box."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image, ImageFont

from pipeline.media.contact_sheet import Cell, contact_sheets, slate
from pipeline.media.fonts import Face, installed_fonts
from pipeline.media.typesetting import Typesetter

DEJAVU = Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
TEXTS = {
    "latin": "Café à la crème, Łódź",
    "arabic": "مرحبا! المرأة تبتسم وتلوّح بيدها.",
    "chinese": "女人戴上眼镜，微笑着挥手。",
    "hindi": "महिला चश्मा पहनती है और मुस्कुराती है।",
    "emoji": "She waves 👋🏽 and smiles 😀 👩‍👩‍👧",
    "controls": "a\x00b\x1b[31m\u202e\ud800 \ufffe",
    "one long word": "x" * 5000,
    "nothing": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("files", [[], None], ids=["no font", "this machine's fonts"])
def test_what_is_drawn_has_a_glyph(text: str, files: list[Path] | None) -> None:
    setter = Typesetter(files)
    faces = [Face(), *map(Face, installed_fonts() if files is None else files)]
    for line in setter.wrap(text, 20, 300, 3):
        assert setter.length(line, 20) <= 300
        assert all(any(face.has(one) for face in faces) for one in line if one.isalnum())
    image = slate("row", text, (320, 180), setter)
    assert len(image.getcolors(100_000) or ()) > 1
    (sheet,) = contact_sheets([Cell(text or "row", text, Path(__file__))], setter)
    assert sheet.width > 300


def test_what_no_font_has_is_named() -> None:
    setter = Typesetter([])
    assert setter.readable("She says 你好 世界!") == "She says [CJK: 4 characters]!"
    assert setter.readable("जा 😀 b") == "[Devanagari] [grinning face] b"
    assert setter.missing == {"CJK", "Devanagari", "grinning face"}
    assert setter.readable("plain") == "plain"


def test_a_text_is_set_in_one_font_that_has_it_all(tmp_path: Path) -> None:
    """Not word by word in the first font that has a letter; one that cannot be read is passed over."""
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    setter = Typesetter([broken, DEJAVU])
    plain = Image.new("RGB", (200, 40))
    setter.draw(plain, (0, 0, 200), "Café", 24, "white")
    expected = ImageFont.truetype(DEJAVU, 24).getlength("Café")
    assert setter.length("Café", 24) == expected
    assert setter.missing == set()


def test_a_line_from_right_to_left_ends_at_the_right() -> None:
    setter, image = Typesetter([DEJAVU]), Image.new("L", (400, 40))
    setter.draw(image, (0, 0, 400), "مرحبا", 24, "white")
    left, _, right, _ = image.getbbox() or (0, 0, 0, 0)
    assert right > 380
    assert left > 200
