"""Untyped JSON to plain values: an object, a text, an id, an amount. Pure; it knows no call of the vendor's.

Every text that comes out can be kept in any file and database.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final

MAX_MESSAGE_CHARS: Final = 2000
_PARAMETER: Final = re.compile(
    r"((?:\?|&(?:amp;)?\s*|\\u0026|%(?:25)*(?:3f|26))(?:[\w.~-]|%(?!(?:25)*3d)){1,100}+(?:=|%(?:25)*3d))"
    r"(?:(?!%(?:25)*26)[^\s\"'<>&#\\])+",
    re.IGNORECASE,
)
"""A parameter and its value, also as HTML, as JSON, or percent-encoded within another URL, once or more.

A name has an end: else a text of nothing but `%26` takes time by the square of its length."""


class UnreadableResponseError(ValueError):
    """The body is not the JSON object that was promised."""


def parse_object(body: bytes) -> dict[str, object]:
    """Return `body` as a JSON object; raises `UnreadableResponseError` for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableResponseError(excerpt(body)) from error
    if not isinstance(value, dict):
        raise UnreadableResponseError(excerpt(body))
    return value


def excerpt(body: bytes, limit: int = 200) -> str:
    """Return the start of a body in one printable line of at most `limit` characters."""
    text = " ".join(body[: limit * 4].decode("utf-8", "replace").split())
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return hide_parameters(text)[:limit] or "an empty body"


def hide_parameters(text: str) -> str:
    """Return what the vendor wrote without the values of URLs' parameters: a signature opens the file."""
    return _PARAMETER.sub(r"\1***", text)


def truncated_json(value: object) -> str:
    """Return the vendor's own JSON, cut off. What could just be read may be too deep to be written."""
    try:
        return hide_parameters(json.dumps(value)[: 8 * MAX_MESSAGE_CHARS])[:MAX_MESSAGE_CHARS]
    except RecursionError:
        return "(nested too deeply to be shown)"


def parse_amount(value: object) -> float | None:
    """Return a number that can be an amount of money or credits, else None."""
    number = parse_number(value)
    return number if number is not None and number >= 0 else None


def parse_number(value: object) -> float | None:
    """Return a finite number, written as a number or as a string, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_id(value: object) -> str:
    """Return an id, which is opaque and may be a number; "" for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(value)


def text_of(value: object) -> str:
    """Return a string as it can be stored, "" for anything else."""
    return storable_text(value) if isinstance(value, str) else ""


def storable_text(value: str) -> str:
    """Return a string that every file and database can hold: JSON may spell lone surrogates and NUL."""
    if value.isprintable():
        return value
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
