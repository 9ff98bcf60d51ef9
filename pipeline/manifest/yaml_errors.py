"""What a YAML syntax error, or a `#` that cut a text short, most likely means. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pipeline.manifest.problems import (
    escape_unprintable,
)

if TYPE_CHECKING:
    import yaml

_COMMENT_AFTER_TEXT: Final = re.compile(r"(?<=[^\s])[ \t]+#(?=[^\s#!-])")


def suspicious_comments(text: str) -> dict[int, int]:
    """Return line -> column (from 0) where text may end because of a `#` that was meant as text.

    A comment has a space after its #; `The #1 fan` has none.
    """
    if not _COMMENT_AFTER_TEXT.search(text):
        return {}
    matches = ((number, _COMMENT_AFTER_TEXT.search(line)) for number, line in enumerate(text.split("\n")))
    return {number: match.start() for number, match in matches if match}


def explain_syntax_error(text: str, line: int, error: yaml.MarkedYAMLError) -> tuple[str, str, str]:
    lines = text.split("\n", line + 1)
    source = lines[line] if line < len(lines) else ""
    parser_message = escape_unprintable(" ".join(part for part in (error.context, error.problem) if part))
    if re.match(r"\s*\t", source) or "'\\t'" in parser_message:
        return "a tab in the indentation", "YAML allows only spaces there", "replace it by spaces"
    if "mapping values are not allowed" in parser_message:
        why = "text with a colon and a space in it needs quotes"
        return "a second `: ` in one line", why, 'write prompt: "one: two"'
    if source.count('"') > 2 and re.search(r':\s*".*"', source):
        why = "the text ends at the second quote"
        return "quotes inside quotes", why, """write 'She says "hi".' or "She says \\"hi\\".\""""
    if "cannot start any token" in parser_message or "alphabetic or numeric" in parser_message:
        return "not YAML", parser_message, "put the text in quotes"
    return "not YAML", parser_message, "check the quotes, brackets and indentation here"
