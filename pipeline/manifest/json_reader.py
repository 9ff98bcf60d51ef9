"""JSON and JSON Lines -> tree. A line that reads well costs one `json.loads`; places are found when asked.

The careful parser here knows the place of every member; it reads whole `.json` files, and of a `.jsonl`
only the lines that the fast way will not have.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from contextlib import suppress
from json import JSONDecodeError
from sys import intern
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pipeline.manifest.nodes import DEPTH, Map, Node, Seq
from pipeline.manifest.problems import VIRTUAL, Report, Unreadable, pack, show, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LITERALS: Final = {"true": True, "false": False, "null": None}
_DIGITS: Final = 18


def read_json(text: str, report: Report) -> Node:
    """Return the tree of one JSON document. Raises `Unreadable`, with the reason in `report`."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(pos: int) -> int:
        line = bisect_right(starts, pos)
        return pack(line, pos - starts[line - 1] + 1)

    return _Parser(text, place, report).document()


def read_jsonl(text: str, report: Report) -> Seq:
    """Return the rows of a JSON Lines file; a line that is no JSON goes into `report`, the others go on."""
    rows = Seq(pack(1, 1))
    lines = text.split("\n")
    del text  # of a bulk manifest one copy is enough
    report.locate = _Locator(lines)
    for number, line in enumerate(lines, 1):
        if line and not line.isspace():
            row = _fast(line, number)
            if row is not None:
                rows.add(row, number << 32 | 1)
                continue
            with suppress(Unreadable):
                rows.add(_careful(line, number, report), number << 32 | 1)
    return rows


def _careful(line: str, number: int, report: Report) -> Node:
    return _Parser(line, lambda pos: pack(number, pos + 1), report).document()


class _NotPlain(ValueError):
    """The fast way meets something that needs words."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _NotPlain
    return members


def _no_constant(name: str) -> NoReturn:
    raise _NotPlain(name)


def _bounded_int(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise _NotPlain
    return int(digits)


_read_string = json.JSONDecoder().raw_decode

_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_bounded_int
).raw_decode


def _fast(line: str, number: int) -> Map | None:
    """Return the row with places that `_Locator` finds when asked, None when the line needs care."""
    if line.count("{") + line.count("[") > DEPTH or _SURROGATE.search(line):
        return None
    try:
        members, end = _decode(line)
    except ValueError:
        return None
    if type(members) is not dict or (end < len(line) and not line[end:].isspace()):
        return None
    names = [intern(name) for name in members]
    return Map.counted(number << 32 | 1, names, list(members.values()), number << 32 | VIRTUAL)


class _Locator:
    """Finds the real place behind a virtual one: member by member, its name and its value."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def __call__(self, at: int) -> int:
        line, column = unpack(at)
        if column < VIRTUAL:
            return at
        row = _careful(self._lines[line - 1], line, Report(""))
        assert isinstance(row, Map)  # noqa: S101 - only rows of the fast way have virtual places
        member, is_value = divmod(column - VIRTUAL, 2)
        return (row.value_ats if is_value else row.name_ats)[member]


class _Parser:
    def __init__(self, text: str, place: Callable[[int], int], report: Report) -> None:
        self._text = text
        self._place = place
        self._report = report
        self._pos = 0

    def document(self) -> Node:
        if not self._peek():
            return None
        node, _ = self._value(0)
        if self._peek():
            self._stop("text after the end of the JSON", "only one value may stand here", "remove it")
        return node

    def _peek(self) -> str:
        match = _SPACE.match(self._text, self._pos)
        self._pos = match.end() if match else self._pos
        return self._text[self._pos : self._pos + 1]

    def _value(self, depth: int) -> tuple[Node, int]:
        first = self._peek()
        at = self._place(self._pos)
        if first in {"{", "["} and depth >= DEPTH:
            self._stop(f"nested more than {DEPTH} deep", "no job needs that", "flatten it")
        if first == "{":
            return self._object(at, depth), at
        if first == "[":
            return self._array(at, depth), at
        return self._string() if first == '"' else self._word(), at

    def _object(self, at: int, depth: int) -> Map:
        row = Map(at)
        self._pos += 1
        if self._peek() == "}":
            self._pos += 1
            return row
        while True:
            if self._peek() != '"':
                self._stop("a name in quotes is missing", "JSON needs one here", 'write "name": value')
            name_at = self._place(self._pos)
            name = self._string()
            if self._peek() != ":":
                self._stop("a colon is missing", f"after {show(name)}", 'write "name": value')
            self._pos += 1
            value, value_at = self._value(depth + 1)
            if name in row.names:
                self._report.problem(name_at, f"{show(name)} is given twice", "", "keep one of them")
            row.add(name, name_at, value, value_at)
            if self._ends("}"):
                return row

    def _array(self, at: int, depth: int) -> Seq:
        items = Seq(at)
        self._pos += 1
        if self._peek() == "]":
            self._pos += 1
            return items
        while True:
            items.add(*self._value(depth + 1))
            if self._ends("]"):
                return items

    def _ends(self, bracket: str) -> bool:
        found = self._peek()
        if found not in {",", bracket} or not found:
            self._stop(f"a comma or `{bracket}` is missing", "", "add it")
        self._pos += 1
        return found == bracket

    def _string(self) -> str:
        start = self._pos
        try:
            text, self._pos = _read_string(self._text, start)
        except JSONDecodeError as error:
            self._pos = error.pos
            self._stop("text in quotes that is not right", error.msg, "check its end and its backslashes")
        if not str(text).isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            self._pos = start
            self._stop("half of a character", "a surrogate stands alone", "write the character itself")
        return str(text)

    def _word(self) -> Node:
        for word, value in _LITERALS.items():
            if self._text.startswith(word, self._pos):
                self._pos += len(word)
                return value
        match = _NUMBER.match(self._text, self._pos)
        if match is None:
            self._stop("not JSON", "a value should stand here", "put text in double quotes")
        text = match.group()
        if len(text) > _DIGITS or text.lower().find("e") >= 0:
            self._stop(
                "a number that is too long or has an exponent", "no field takes it", "write it plainly"
            )
        self._pos = match.end()
        return float(text) if match[1] else int(text)

    def _stop(self, what: str, why: str, instead: str) -> NoReturn:
        self._report.problem(self._place(self._pos), what, why, instead)
        raise Unreadable
