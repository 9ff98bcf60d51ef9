"""What an unquoted YAML scalar means, and which ones mean something their author did not.

Text, whole decimal numbers, decimal fractions, true/false and null are taken as they stand. All else that
YAML 1.1 would turn into another type (https://yaml.org/type/) becomes an `AmbiguousScalar`, such as `16:9`,
which is 969 there.
"""

from __future__ import annotations

import re
from typing import Final

from pipeline.manifest.nodes import AmbiguousScalar, Scalar

_KEYWORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TRUE_WORDS: Final = frozenset({"yes", "on"})
_FALSE_WORDS: Final = frozenset({"no", "off"})
_MAX_KEYWORD_CHARS: Final = 5

_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FRACTION: Final = re.compile(r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,2})?")
_AMBIGUOUS_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
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
_BASE_60: Final = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")


def resolve_scalar(text: str) -> Scalar:
    """Return the value of the unquoted scalar `text`, or an `AmbiguousScalar`."""
    if len(text) <= _MAX_KEYWORD_CHARS:
        if text in _KEYWORDS:
            return _KEYWORDS[text]
        lowered = text.lower()
        if lowered in _TRUE_WORDS:
            return AmbiguousScalar(text, "true")
        if lowered in _FALSE_WORDS:
            return AmbiguousScalar(text, "false")
    if text[0] not in "0123456789+-.":
        return text
    return _resolve_number(text)


def _resolve_number(text: str) -> Scalar:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    if _BASE_60.fullmatch(text):
        return AmbiguousScalar(text, _describe_base_60(text))
    for pattern, meaning in _AMBIGUOUS_PATTERNS:
        if pattern.fullmatch(text):
            return AmbiguousScalar(text, meaning)
    return text


def _describe_base_60(text: str) -> str:
    """Say what base 60 makes of `text`, the rule behind YAML 1.1's `1:30` for ninety seconds."""
    if len(text) > 20 or "." in text:
        return "a number in base 60"
    total = 0
    for part in text.replace("_", "").lstrip("+-").split(":"):
        total = total * 60 + int(part)
    return f"the number {total} (minutes and seconds)"
