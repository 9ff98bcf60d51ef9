"""Texts that show nothing: blanks, and characters that cannot be seen.

Source: Unicode's general categories, and its property Default_Ignorable_Code_Point for the few letters
that are drawn as nothing.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_INVISIBLE_CATEGORIES: Final = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Me"})
"""Blanks, controls and formats, and marks that sit on another character: alone they show nothing.

What is not assigned is not here: an emoji that is newer than this Python is one all the same."""

_INVISIBLE_LETTERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Hangul's fillers are letters by category and Braille's blank a symbol; all are drawn as nothing."""


def is_blank(text: str) -> bool:
    """Whether nothing of `text` can be seen. One character that can is enough: an emoji, a letter, a dot."""
    if text[:1].isascii() and text[:1].isalnum():
        return False  # nearly every text of a hundred thousand rows
    return all(unicodedata.category(c) in _INVISIBLE_CATEGORIES or c in _INVISIBLE_LETTERS for c in text)


def invisible_code_points(text: str, limit: int = 4) -> str:
    """Name the first kinds of characters of a blank text that an editor does not show as a blank."""
    characters = list(dict.fromkeys(c for c in text if not c.isspace()))
    named = ", ".join(f"U+{ord(c):04X}" for c in characters[:limit])
    return f"{named} and more" if len(characters) > limit else named
