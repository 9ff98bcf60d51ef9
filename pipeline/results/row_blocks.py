"""What is made of many rows, kept block by block: only blocks of which a row has changed are made again.

Pure but for its memory of the last rows. It must not know what is made.
"""

from __future__ import annotations

import base64
import operator
import zlib
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.model import Record

BLOCK_ROWS: Final = 500
"""Few enough that a block takes some 10 ms, so that the end of a run never waits long for one."""

_ENDED: Final = frozenset({State.DONE, State.FAILED})
_T = TypeVar("_T")


class RowBlocks(Generic[_T]):
    """The blocks of rows that change here and there. Records are frozen: the same one is unchanged."""

    def __init__(
        self,
        make: Callable[[Sequence[Record]], _T],
        renew: Callable[[Sequence[Record], _T, Sequence[Record]], _T] | None = None,
    ) -> None:
        """`renew` makes a block of what its rows were, what was made of them, and the rows as they are."""
        self._make = make
        self._renew = renew
        self._blocks: dict[int, tuple[Sequence[Record], _T]] = {}

    def of(self, rows: Sequence[Record]) -> list[_T]:
        """Return what is made of each block of `rows`, in order."""
        return list(self.each(rows))

    def each(self, rows: Sequence[Record]) -> Iterator[_T]:
        """Make what is missing, a block at each step."""
        for start in range(0, len(rows), BLOCK_ROWS):
            yield self._block(start, rows[start : start + BLOCK_ROWS])

    def each_ended(self, rows: Sequence[Record]) -> Iterator[_T]:
        """Make what is missing of blocks whose rows have all ended: they seldom have to be made again."""
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            if all_ended(block) and not self._is_known(start, block):
                yield self._block(start, block)

    def _is_known(self, start: int, rows: Sequence[Record]) -> bool:
        known = self._blocks.get(start)
        return known is not None and is_same(known[0], rows)

    def _block(self, start: int, rows: Sequence[Record]) -> _T:
        known = self._blocks.get(start)
        if known is None or not is_same(known[0], rows):
            made = self._make(rows) if known is None or self._renew is None else self._renew(*known, rows)
            known = self._blocks[start] = (rows, made)
        return known[1]


def is_same(known: Sequence[Record], rows: Sequence[Record]) -> bool:
    """Return whether these are the very same records, and so unchanged."""
    return len(known) == len(rows) and all(map(operator.is_, known, rows))


def all_ended(rows: Sequence[Record]) -> bool:
    """Return whether a run seldom changes any of the rows again."""
    return all(row.state in _ENDED for row in rows)


def pack(data: bytes) -> str:
    """Return text that `unpack` undoes: an eighth of a CSV, in a tenth of the time of writing that."""
    return base64.b64encode(zlib.compress(data, 1)).decode()


def unpack(block: str) -> bytes:
    """Return the bytes that were packed."""
    return zlib.decompress(base64.b64decode(block))
