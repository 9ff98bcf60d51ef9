"""Which rows' pictures are prepared next, before the rows are submitted, and which pictures may go. Pure.

Rows are known in the order in which they will be submitted. Preparing stays a fixed number of rows ahead of
the row that was begun last: enough for every slot, and not the whole batch on the disk.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

from pipeline.manifest.local_files import PREFIX, references_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.model import Record


class Lookahead:
    """The rows that are expected, those whose pictures are at hand, and who still needs a picture."""

    def __init__(self, rows: int) -> None:
        """`rows` is how far preparing may be ahead."""
        self._rows = rows
        self._numbers = count()
        self._begun = 0
        self._expected: dict[str, tuple[int, Record]] = {}
        self._open: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._uses: Counter[str] = Counter()
        self._near_uses: Counter[str] = Counter()

    def expect(self, records: Iterable[Record]) -> None:
        """Take rows in, in the order of their submission; those without files are ignored."""
        for record in records:
            if PREFIX not in record.body or record.key in self._open:
                continue
            number, files = next(self._numbers), tuple(set(references_in(record.body)))
            self._expected[record.key] = number, record
            self._open[record.key] = number, files
            self._uses.update(files)

    def next(self) -> Record | None:
        """Return the next row to prepare for; None when preparing is far enough ahead."""
        key = next(iter(self._expected), None)
        if key is None or self._expected[key][0] >= self._begun + self._rows:
            return None
        return self._take(key)

    def begin(self, record: Record) -> None:
        """Note that a row is being submitted: preparing may go on."""
        if record.key in self._open:
            self._begun = max(self._begun, self._open[record.key][0] + 1)
        if record.key in self._expected:
            self._take(record.key)

    def _take(self, key: str) -> Record:
        _, record = self._expected.pop(key)
        self._near_uses.update(self._open[key][1])
        return record

    def finish(self, record: Record) -> list[str]:
        """Note that a row was sent; return the files that no row needs any more."""
        _, files = self._open.pop(record.key, (0, ()))
        self._uses.subtract(files)
        self._near_uses.subtract(files)
        return [sha256 for sha256 in references_in(record.body) if self._uses[sha256] <= 0]

    def is_needed(self, sha256: str) -> bool:
        """Return whether any row still needs a file."""
        return self._uses[sha256] > 0

    def is_needed_soon(self, sha256: str) -> bool:
        """Return whether a row needs a file that was prepared for, and is not sent yet."""
        return self._near_uses[sha256] > 0
