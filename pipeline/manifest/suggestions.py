"""What somebody probably meant to write. Pure."""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.manifest.problems import format_value

if TYPE_CHECKING:
    from collections.abc import Iterable


def join_or(words: Iterable[str]) -> str:
    """Join words as a sentence does: `a, b or c`."""
    *head, last = list(words)
    return f"{', '.join(head)} or {last}" if head else last


def closest_name(word: str, names: Iterable[str]) -> str | None:
    """Return the name that `word` was probably meant to be."""
    return _closest_name(word[:60], tuple(names))


@lru_cache(maxsize=1024)
def _closest_name(word: str, names: tuple[str, ...]) -> str | None:
    by_normalized_name = {name.lower().replace("-", "_"): name for name in names}
    close = difflib.get_close_matches(
        word.lower().replace("-", "_").strip(), by_normalized_name, n=1, cutoff=0.6
    )
    return by_normalized_name[close[0]] if close else None


def closest_choice(value: Any, choices: tuple[Any, ...]) -> str:
    """Return the choice closest to `value`, as it would be written."""
    if isinstance(value, int | float) and all(isinstance(choice, int | float) for choice in choices):
        return format_value(min(choices, key=lambda choice: abs(choice - value)))
    by_text = {str(choice).lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(value)[:60].lower(), by_text, n=1, cutoff=0.4)
    return format_value(by_text[close[0]]) if close else "one of them"
