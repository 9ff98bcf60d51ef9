"""The `csv` module's limit on a cell, which the whole process shares, raised for one record at a time."""

from __future__ import annotations

import csv
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_lock = Lock()


def records(reader: Iterator[list[str]], max_cell_chars: int) -> Iterator[list[str]]:
    """Yield the records of a `csv.reader`, whose cells may have so many characters. Raises `csv.Error`."""
    while (cells := _read_next(reader, max_cell_chars)) is not None:
        yield cells


def _read_next(reader: Any, max_cell_chars: int) -> list[str] | None:
    # Two that raise it at once would each restore what the other had set.
    with _lock:
        limit = csv.field_size_limit(max_cell_chars)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(limit)
