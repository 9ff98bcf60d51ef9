"""CSV -> tree: a header of field names, one row a job; an empty cell is a field that is not given.

All is text in CSV, so a column's field says what its cells must be: whole numbers for `duration`, true or
false for `generate_audio`, a JSON object for `params`.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Final

from pipeline.manifest.fields import VEO, Kind, nearest
from pipeline.manifest.json_reader import read_json
from pipeline.manifest.nodes import Map, Node, Seq
from pipeline.manifest.problems import VIRTUAL, Report, Unreadable, pack, show, unpack

_NAMES: Final = (*VEO.fields, "id", "params")
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_SWITCH: Final = {"true": True, "false": False}


def read_csv(text: str, report: Report) -> Seq:
    """Return the rows of a CSV file. Raises `Unreadable`, with the reason in `report`."""
    lines = list(io.StringIO(text, newline=""))
    header_line = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t", key=header_line.count) if header_line else ","
    report.locate = _Locator(lines, delimiter)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows = Seq(pack(1, 1))
    names: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not any(cells):
                continue
            if names is None:
                names = _header(cells, line, report)
            else:
                rows.add(_row(names, cells, line, report), pack(line, 1))
    except csv.Error as error:
        report.problem(pack(start, 1), "not CSV", str(error), "check the quotes from this line on")
        raise Unreadable from error
    return rows


def _header(cells: list[str], line: int, report: Report) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not set(names) & {"image_url", "prompt"}:
        why = "the first line names the columns"
        report.problem(pack(line, 1), "no column is named image_url or prompt", why, "add a header")
        raise Unreadable
    for n, name in enumerate(names):
        at = pack(line, VIRTUAL + n)
        if not name:
            report.problem(at, "a column without a name", "", "name it or remove it")
        elif name in names[:n]:
            report.problem(at, f"the column {show(name)} stands twice", "", "keep one of them")
        elif name not in _NAMES:
            close = nearest(name, _NAMES)
            instead = f"did you mean `{close}`?" if close else f"the columns are {', '.join(_NAMES)}"
            report.problem(at, f"unknown column {show(name)}", "no field has that name", instead)
    return [name if name in _NAMES else "" for name in names]


def _row(names: list[str], cells: list[str], line: int, report: Report) -> Map:
    row = Map(pack(line, 1))
    if len(cells) > len(names):
        at = pack(line, VIRTUAL + len(names))
        what = f"{len(cells)} cells under {len(names)} columns"
        report.problem(at, what, "is there a comma without quotes?", 'write "one, two"')
    for n, (name, cell) in enumerate(zip(names, cells, strict=False)):
        if name and cell and name not in row.names:
            at = pack(line, VIRTUAL + n)
            row.add(name, at, _typed(name, cell, at, report), at)
    return row


def _typed(name: str, cell: str, at: int, report: Report) -> Node:
    """Return what `cell` says in the type of its column, or the text as it is for the rules to refuse."""
    if name == "params":
        trial = Report("")
        try:
            return read_json(cell, trial)
        except Unreadable:
            found = trial.error().problems[0]
            report.problem(at, f"params: {found.what}", found.why, 'write a JSON object: {"name": 1}')
            return Map(at)
    kind = VEO.fields[name].kind if name in VEO.fields else Kind.TEXT
    if kind is Kind.INTEGER and _INTEGER.fullmatch(cell):
        return int(cell)
    return _SWITCH.get(cell.lower(), cell) if kind is Kind.BOOLEAN else cell


class _Locator:
    """Finds where the n-th cell of the record that starts on a line really stands."""

    def __init__(self, lines: list[str], delimiter: str) -> None:
        self._lines = lines
        self._delimiter = delimiter

    def __call__(self, at: int) -> int:
        line, column = unpack(at)
        wanted = column - VIRTUAL
        if wanted < 0:
            return at
        cell, quoted = 0, False
        for number in range(line, len(self._lines) + 1):
            for position, char in enumerate(self._lines[number - 1], 1):
                if cell == wanted:
                    return pack(number, position)
                if char == '"':
                    quoted = not quoted
                elif char == self._delimiter and not quoted:
                    cell += 1
            if not quoted:
                break
        return pack(line, 1)
