"""JSON and JSON Lines to nodes. A good line costs one `json.loads`; positions are found on demand.

The careful parser here knows the position of every member; it reads whole `.json` files, and of a `.jsonl`
only the lines that the fast way will not have.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from contextlib import suppress
from json import JSONDecodeError
from sys import intern
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pipeline.manifest.nodes import MAX_DEPTH, MappingNode, Node, RowStream, SequenceNode
from pipeline.manifest.problems import (
    VIRTUAL_COLUMN,
    ParseAborted,
    ProblemReport,
    format_value,
    pack_location,
    unpack_location,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WHITESPACE: Final = re.compile(r"[ \t\r\n]*")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LITERALS: Final = {"true": True, "false": False, "null": None}
_MAX_INTEGER_CHARS: Final = 18


def read_json(text: str, report: ProblemReport, place: int | None = None) -> Node:
    """Return the nodes of one JSON document. Raises `ParseAborted`, with the reason in `report`.

    All of it stands at `place` when it is the text of a cell.
    """
    if place is not None:
        return _JsonParser(text, lambda _: place, report).document()
    line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def location_of(pos: int) -> int:
        line = bisect_right(line_starts, pos)
        return pack_location(line, pos - line_starts[line - 1] + 1)

    return _JsonParser(text, location_of, report).document()


def read_jsonl(text: str, report: ProblemReport) -> RowStream:
    """Return the rows of a JSON Lines file; a line that is no JSON goes into `report`, the others go on."""
    lines = text.split("\n")
    report.resolve_location = _JsonLocator(lines)
    example = '{"image_url": "...", "prompt": "..."}'
    return RowStream(_read_lines(lines, report), ("no line holds one", f"write a line for each: {example}"))


def _read_lines(lines: list[str], report: ProblemReport) -> Iterator[tuple[Node, int]]:
    for number, line in enumerate(lines, 1):
        if line and not line.isspace():
            row = _parse_fast(line, number)
            if row is not None:
                yield row, number << 32 | 1
                continue
            with suppress(ParseAborted):
                yield _parse_with_locations(line, number, report), number << 32 | 1


def _parse_with_locations(line: str, number: int, report: ProblemReport) -> Node:
    return _JsonParser(line, lambda pos: pack_location(number, pos + 1), report).document()


class _NeedsFullParser(ValueError):
    """The fast path met something that needs a message."""


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _NeedsFullParser
    return members


def _reject_constant(name: str) -> NoReturn:
    raise _NeedsFullParser(name)


def _bounded_int(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_CHARS:
        raise _NeedsFullParser
    return int(digits)


def _finite_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _NeedsFullParser
    return number


_decode_string = json.JSONDecoder().raw_decode

_decode = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_constant=_reject_constant,
    parse_int=_bounded_int,
    parse_float=_finite_float,
).raw_decode


def _parse_fast(line: str, number: int) -> MappingNode | None:
    """Return the row with positions that are found on demand, None when the line needs the careful parser."""
    if line.count("{") + line.count("[") > MAX_DEPTH or ("\\u" in line and _SURROGATE.search(line)):
        return None
    try:
        members, end = _decode(line)
    except ValueError:
        return None
    if type(members) is not dict or (end < len(line) and not line[end:].isspace()):
        return None
    names = [intern(name) for name in members]
    return MappingNode.with_virtual_locations(
        number << 32 | 1, names, list(members.values()), number << 32 | VIRTUAL_COLUMN
    )


class _JsonLocator:
    """Finds the real position behind a virtual one, member by member: its name and its value."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def __call__(self, location: int) -> int:
        line, column = unpack_location(location)
        if column < VIRTUAL_COLUMN:
            return location
        try:
            row = _parse_with_locations(self._lines[line - 1], line, ProblemReport(""))
        except ParseAborted:  # the problem counts more than its column
            row = None
        member, is_value = divmod(column - VIRTUAL_COLUMN, 2)
        if not isinstance(row, MappingNode) or member >= len(row.names):
            return pack_location(line, 1)
        return (row.value_locations if is_value else row.name_locations)[member]


class _JsonParser:
    def __init__(self, text: str, location_of: Callable[[int], int], report: ProblemReport) -> None:
        self._text = text
        self._location_of = location_of
        self._report = report
        self._pos = 0

    def document(self) -> Node:
        if not self._peek():
            return None
        node, _ = self._value(0)
        # The line ends of other systems stand for blanks here, as they do to the fast way.
        if self._peek() and not self._text[self._pos :].isspace():
            self._abort("text after the end of the JSON", "only one value may stand here", "remove it")
        return node

    def _peek(self) -> str:
        match = _WHITESPACE.match(self._text, self._pos)
        self._pos = match.end() if match else self._pos
        return self._text[self._pos : self._pos + 1]

    def _value(self, depth: int) -> tuple[Node, int]:
        first = self._peek()
        location = self._location_of(self._pos)
        if first in {"{", "["} and depth >= MAX_DEPTH:
            self._abort(f"nested more than {MAX_DEPTH} deep", "no job needs that", "flatten it")
        if first == "{":
            return self._object(location, depth), location
        if first == "[":
            return self._array(location, depth), location
        return self._string() if first == '"' else self._literal(), location

    def _object(self, location: int, depth: int) -> MappingNode:
        node = MappingNode(location)
        self._pos += 1
        if self._peek() == "}":
            self._pos += 1
            return node
        while True:
            if self._peek() != '"':
                self._abort("a name in quotes is missing", "JSON needs one here", 'write "name": value')
            name_location = self._location_of(self._pos)
            name = self._string()
            if self._peek() != ":":
                self._abort("a colon is missing", f"after {format_value(name)}", 'write "name": value')
            self._pos += 1
            value, value_location = self._value(depth + 1)
            if name in node.names:
                self._report.add_problem(
                    name_location, f"{format_value(name)} is given twice", "", "keep one of them"
                )
            node.add(name, name_location, value, value_location)
            if self._consume_separator("}"):
                return node

    def _array(self, location: int, depth: int) -> SequenceNode:
        node = SequenceNode(location)
        self._pos += 1
        if self._peek() == "]":
            self._pos += 1
            return node
        while True:
            node.add(*self._value(depth + 1))
            if self._consume_separator("]"):
                return node

    def _consume_separator(self, bracket: str) -> bool:
        found = self._peek()
        if found not in {",", bracket} or not found:
            self._abort(f"a comma or `{bracket}` is missing", "", "add it")
        self._pos += 1
        return found == bracket

    def _string(self) -> str:
        start = self._pos
        try:
            text, self._pos = _decode_string(self._text, start)
        except JSONDecodeError as error:
            self._pos = error.pos
            self._abort("text in quotes that is not right", error.msg, "check its end and its backslashes")
        if not str(text).isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            self._pos = start
            self._abort("half of a character", "a surrogate stands alone", "write the character itself")
        return str(text)

    def _literal(self) -> Node:
        for literal, value in _LITERALS.items():
            if self._text.startswith(literal, self._pos):
                self._pos += len(literal)
                return value
        match = _NUMBER.match(self._text, self._pos)
        if match is None:
            self._abort("not JSON", "a value should stand here", "put text in double quotes")
        number = float(match[0]) if match[1] or match[2] else None
        if number is not None and math.isinf(number):
            self._abort("a number without bounds", f"{match[0][:20]} is too large", "write a smaller one")
        if number is None and len(match[0]) > _MAX_INTEGER_CHARS:
            self._abort("a number that is too long", "no field takes it", "write a shorter one")
        self._pos = match.end()
        return int(match[0]) if number is None else number

    def _abort(self, what: str, why: str, instead: str) -> NoReturn:
        self._report.add_problem(self._location_of(self._pos), what, why, instead)
        raise ParseAborted
