"""CSV to nodes: a header of field names, one row a job; an empty cell is a field that is not given.

All is text in CSV, so a column's field says what its cells must be: whole numbers for `duration`, true or
false for `generate_audio`, a JSON object for `params`.
"""

from __future__ import annotations

import csv
import io
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pipeline.csv_limit import records
from pipeline.manifest.fields import VEO_RULES, FieldKind
from pipeline.manifest.jobs import TAKES_RULE
from pipeline.manifest.json_reader import read_json
from pipeline.manifest.local_files import MAX_FILE_BYTES
from pipeline.manifest.nodes import MappingNode, Node, RowStream
from pipeline.manifest.problems import (
    VIRTUAL_COLUMN,
    ParseAborted,
    ProblemReport,
    format_value,
    pack_location,
    unpack_location,
)
from pipeline.manifest.suggestions import closest_name

if TYPE_CHECKING:
    from _csv import Reader as CsvReader
    from collections.abc import Iterator

_COLUMNS: Final = (*VEO_RULES.fields, "image", "id", "takes", "params")
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_BOOLEANS: Final = {"true": True, "false": False}


def read_csv(text: str, report: ProblemReport) -> RowStream:
    """Return the rows of a CSV file; what ends it early is in `report`."""
    lines = list(io.StringIO(text, newline=""))
    header_line = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t", key=header_line.count) if header_line else ","
    report.resolve_location = _CsvLocator(lines, delimiter)
    rows = _read_rows(csv.reader(lines, delimiter=delimiter, strict=True), report)
    return RowStream(
        rows, ("no row follows a header", f"write image_url{delimiter}prompt, and a line for each job")
    )


def _read_rows(reader: CsvReader, report: ProblemReport) -> Iterator[tuple[Node, int]]:
    names: list[str] | None = None
    start = 1
    try:
        for cells in records(reader, MAX_FILE_BYTES):
            line, start = start, reader.line_num + 1
            if not any(cells):
                continue
            if names is None:
                names = _read_header(cells, line, report)
            else:
                yield _read_row(names, cells, line, report), pack_location(line, 1)
    except csv.Error as error:
        report.add_problem(
            pack_location(start, 1), "not CSV", str(error), "check the quotes from this line on"
        )
        raise ParseAborted from error


def _read_header(cells: list[str], line: int, report: ProblemReport) -> list[str]:
    names = [_column_name(cell) for cell in cells]
    if not set(names) & {"image_url", "image", "prompt"}:
        why = "the first line names the columns"
        report.add_problem(
            pack_location(line, 1),
            "no column is named image_url or prompt",
            why,
            "begin with a header: image_url,prompt",
        )
        raise ParseAborted
    for n, name in enumerate(names):
        location = pack_location(line, VIRTUAL_COLUMN + n)
        if not name:
            report.add_problem(location, "a column without a name", "", "name it or remove it")
        elif name in names[:n]:
            report.add_problem(
                location, f"the column {format_value(name)} stands twice", "", "keep one of them"
            )
        elif name not in _COLUMNS:
            close = closest_name(name, _COLUMNS)
            suggestion = f"did you mean `{close}`?" if close else f"the columns are {', '.join(_COLUMNS)}"
            report.add_problem(
                location, f"unknown column {format_value(name)}", "no field has that name", suggestion
            )
    return [name if name in _COLUMNS else "" for name in names]


def _column_name(cell: str) -> str:
    """Return the field that a heading means: `Image URL` and `image-url` are `image_url`."""
    name = cell.strip()
    folded = re.sub(r"[\s_-]+", "_", name).lower()
    return folded if folded in _COLUMNS else name


def _read_row(names: list[str], cells: list[str], line: int, report: ProblemReport) -> MappingNode:
    row = MappingNode(pack_location(line, 1))
    if len(cells) > len(names):
        location = pack_location(line, VIRTUAL_COLUMN + len(names))
        what = f"{len(cells)} cells under {len(names)} columns"
        report.add_problem(location, what, "is there a comma without quotes?", 'write "one, two"')
    for n, (name, cell) in enumerate(zip(names, cells, strict=False)):
        if name and cell and name not in row.names:
            location = pack_location(line, VIRTUAL_COLUMN + n)
            row.add(name, location, _parse_cell(name, cell, location, report), location)
    return row


def _parse_cell(name: str, cell: str, location: int, report: ProblemReport) -> Node:
    """Return what `cell` says in the type of its column, or the text as it is for the rules to refuse."""
    if name == "params":
        return _parse_params(cell, location, report)
    rule = TAKES_RULE if name == "takes" else VEO_RULES.fields.get(name)
    kind = FieldKind.TEXT if rule is None else rule.kind
    if kind is FieldKind.INTEGER and _INTEGER.fullmatch(cell):
        return int(cell)
    return _BOOLEANS.get(cell.lower(), cell) if kind is FieldKind.BOOLEAN else cell


def _parse_params(cell: str, location: int, report: ProblemReport) -> Node:
    params_report = ProblemReport("")
    params: Node = MappingNode(location)
    with suppress(ParseAborted):
        params = read_json(cell, params_report, location)
    if params_report.problem_count:
        first_problem = params_report.to_exception().problems[0]
        instead = 'write a JSON object: {"name": 1}'
        report.add_problem(location, f"params: {first_problem.what}", first_problem.why, instead)
    return params


class _CsvLocator:
    """Finds where the n-th cell of the record that starts on a line really stands."""

    def __init__(self, lines: list[str], delimiter: str) -> None:
        self._lines = lines
        self._delimiter = delimiter

    def __call__(self, location: int) -> int:
        line, column = unpack_location(location)
        cell_index = column - VIRTUAL_COLUMN
        if cell_index < 0:
            return location
        cell, quoted = 0, False
        for number in range(line, len(self._lines) + 1):
            for position, char in enumerate(self._lines[number - 1], 1):
                if cell == cell_index:
                    return pack_location(number, position)
                if char == '"':
                    quoted = not quoted
                elif char == self._delimiter and not quoted:
                    cell += 1
            if not quoted:
                break
        return pack_location(line, 1)
