"""What an unquoted YAML scalar means, and which ones mean something their author did not.

Text, whole decimal numbers, decimal fractions, true/false and null are taken as they stand. All else
that YAML 1.1 would turn into another type (https://yaml.org/type/) becomes a `Trap`: `16:9` is 969 there.
"""

from __future__ import annotations

import re
from typing import Final

from pipeline.manifest.nodes import Scalar, Trap

_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_YES: Final = frozenset({"yes", "on"})
_NO: Final = frozenset({"no", "off"})
_LONGEST_WORD: Final = 5

_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FRACTION: Final = re.compile(r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,2})?")
_TRAPS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"[-+]?0[0-7_]+"), "an octal number"),
    (re.compile(r"[-+]?0o[0-7_]+"), "an octal number"),
    (re.compile(r"[-+]?0x[0-9a-fA-F_]+"), "a hexadecimal number"),
    (re.compile(r"[-+]?0b[01_]+"), "a binary number"),
    (re.compile(r"[-+]?\.(?:inf|Inf|INF)"), "infinity"),
    (re.compile(r"\.(?:nan|NaN|NAN)"), "not-a-number"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?"), "a date"),
    (re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?"), "a number"),
    (re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+"), "a number or as text, by version"),
)
_SIXTIES: Final = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")


def resolve(text: str) -> Scalar:
    """Return the value of the unquoted scalar `text`, or a `Trap`."""
    if len(text) <= _LONGEST_WORD:
        if text in _WORDS:
            return _WORDS[text]
        lowered = text.lower()
        if lowered in _YES:
            return Trap(text, "true")
        if lowered in _NO:
            return Trap(text, "false")
    if text[0] not in "0123456789+-.":
        return text
    return _number(text)


def _number(text: str) -> Scalar:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    if _SIXTIES.fullmatch(text):
        return Trap(text, _sixties(text))
    for pattern, meaning in _TRAPS:
        if pattern.fullmatch(text):
            return Trap(text, meaning)
    return text


def _sixties(text: str) -> str:
    """Say what base 60 makes of `text`, the rule behind YAML 1.1's `1:30` for ninety seconds."""
    if len(text) > 20 or "." in text:
        return "a number in base 60"
    total = 0
    for part in text.replace("_", "").lstrip("+-").split(":"):
        total = total * 60 + int(part)
    return f"the number {total} (minutes and seconds)"
