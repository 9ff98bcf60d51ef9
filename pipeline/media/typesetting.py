"""Lines of text in any script, with the fonts of this machine. Blocks.

Pillow's own font has little more than English. What no font here has is named in brackets, so that a line
can be read, and is kept in `missing`, to be reported.
"""

from __future__ import annotations

import unicodedata
from itertools import groupby
from typing import TYPE_CHECKING, Final

from pipeline.media.fonts import Face, installed_fonts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from PIL.Image import Image

_MAX_CHARS: Final = 1000
"""More than any slate has room for."""


class Typesetter:
    """Measures and draws lines. `missing` names the scripts and signs that no font here has."""

    def __init__(self, font_files: Iterable[Path] | None = None) -> None:
        self._files = iter(installed_fonts() if font_files is None else font_files)
        self._faces = [Face()]
        self._face_of: dict[str, Face | None] = {}
        self.missing: set[str] = set()

    def readable(self, text: str) -> str:
        """Return the text with what no font has named in brackets."""
        return "".join(run if face is not None else self._named(run) for face, run in self._runs(text))

    def length(self, line: str, px: int) -> float:
        """Return how wide a readable line is, in pixels."""
        return sum((face or self._faces[0]).length(run, px) for face, run in self._runs(line))

    def draw(self, image: Image, at: tuple[float, float, float], line: str, px: int, fill: str) -> None:
        """Draw a readable line at `(x, y, width)`: from its right end when it is written from there."""
        x, y, width = at
        runs = [(face or self._faces[0], run) for face, run in self._runs(line)]
        if _is_right_to_left(line):
            x += max(0, width - self.length(line, px))
            runs.reverse()
        for face, run in runs:
            face.draw(image, (x, y), run, px, fill)
            x += face.length(run, px)

    def wrap(self, text: str, px: int, width: float, most: int) -> list[str]:
        """Break a text into readable lines that fit; of more than `most`, the last ends in an ellipsis."""
        lines = [""]
        for word in self._words(self.readable(text[:_MAX_CHARS]), px, width):
            if self.length(lines[-1] + word.rstrip(), px) > width and lines[-1]:
                lines[-1] = lines[-1].rstrip()
                if len(lines) == most:
                    lines[-1] = self._with_ellipsis(lines[-1], px, width)
                    break
                lines.append("")
            lines[-1] += word
        lines[-1] = lines[-1].rstrip()
        return lines

    def _words(self, text: str, px: int, width: float) -> Iterator[str]:
        """Yield what a line may end behind: words with a blank, and pieces of a word longer than a line."""
        for word in text.split():
            piece = ""
            for character in word if self.length(word, px) > width else ():
                if self.length(piece + character, px) > width and piece:
                    yield piece
                    piece = ""
                piece += character
            yield f"{piece or word} "

    def _with_ellipsis(self, line: str, px: int, width: float) -> str:
        while line and self.length(f"{line} ...", px) > width:
            line = line[:-1].rstrip()
        return f"{line} ..."

    def _runs(self, text: str) -> list[tuple[Face | None, str]]:
        """Split a text by the fonts that it takes, as few as can be; None where there is none."""
        found = {character: self._find_face(character) for character in set(text) if _has_glyph(character)}
        for face in dict.fromkeys([self._faces[0], *found.values()]):
            if face is not None and all(owner is None or face.has(char) for char, owner in found.items()):
                found = {character: owner and face for character, owner in found.items()}
                break
        owners, current = [], found.get(text[:1], self._faces[0])
        for character in text:  # a mark goes with what is before it, a blank after a picture does not
            current = found.get(character, current)
            if character.isspace() and current is not None and current.bitmap_px:
                current = self._faces[0]
            owners.append(current)
        runs = groupby(zip(owners, text, strict=True), key=lambda pair: pair[0])
        return [(face, "".join(character for _, character in run)) for face, run in runs]

    def _find_face(self, character: str) -> Face | None:
        if character not in self._face_of:
            self._face_of[character] = next((face for face in self._all_faces() if face.has(character)), None)
        return self._face_of[character]

    def _all_faces(self) -> Iterator[Face]:
        """Yield what has been opened so far, then open more."""
        yield from tuple(self._faces)
        for path in self._files:
            self._faces.append(Face(path))
            yield self._faces[-1]

    def _named(self, run: str) -> str:
        """Return what stands for characters without a glyph: names of signs, and of letters' scripts."""
        parts: list[str] = []
        for is_sign, characters in groupby(filter(_has_glyph, run), key=_is_sign):
            letters = list(characters)
            names = dict.fromkeys(
                _name(letter) for letter in letters if unicodedata.category(letter)[0] != "P"
            )
            self.missing |= names.keys()
            count = "" if is_sign or len(letters) == 1 else f": {len(letters)} characters"
            parts.append(f"[{', '.join(names) or 'punctuation'}{count}]")
        return " ".join(parts) + run[len(run.rstrip()) :]


def _is_right_to_left(line: str) -> bool:
    """Return whether the first letter that has a direction goes to the left."""
    directions = (unicodedata.bidirectional(character) for character in line)
    return next((found for found in directions if found in ("L", "R", "AL")), "L") != "L"


def _has_glyph(character: str) -> bool:
    """Return whether a character is drawn by itself: no blank, mark, tone of skin or sign of format is."""
    skin = "\U0001f3fb" <= character <= "\U0001f3ff"
    return not (
        character.isspace() or skin or unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf", "Cc")
    )


def _is_sign(character: str) -> bool:
    return unicodedata.category(character).startswith("S")


def _name(character: str) -> str:
    """Return what a character is called by: a sign's own name, a letter's script."""
    name = unicodedata.name(character, "unnamed")
    if _is_sign(character):
        return name.lower()
    script = name.partition(" ")[0].partition("-")[0]
    return script if script == "CJK" else script.capitalize()
