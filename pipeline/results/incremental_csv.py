"""The `results.csv` of a large batch in a folder, made of what it was and of the rows that have changed.

Holds the text of no row: the file is what is kept of them, and a block of it counts while its checksum does.
Everything here blocks.
"""

from __future__ import annotations

import io
import operator
from array import array
from contextlib import suppress
from itertools import accumulate, compress
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from zlib import crc32

from pipeline.results import row_blocks
from pipeline.results.csv_rows import HEADER, encoded_rows, visible_records
from pipeline.results.row_blocks import all_ended, is_same, pack, unpack
from pipeline.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.model import Record
    from pipeline.results.block_cache import BlockCache


class IncrementalCsv:
    """A CSV at `path` that is written again and again. Use it from one thread at a time."""

    def __init__(self, path: Path, *, sandbox: bool, cache: BlockCache) -> None:
        self._path = path
        self._sandbox = sandbox
        self._kept = cache.kept("csv", lambda rows: pack(b"".join(encoded_rows(rows, sandbox=sandbox))))
        self._blocks: list[_Block] = []

    def write(self, records: Sequence[Record]) -> None:
        """Replace the file at once by what `csv_bytes` makes of `records`. Raises `OSError`."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = files.temporary_beside(self._path)
        try:
            with temporary.open("wb") as new:
                blocks = self._write_blocks(visible_records(records), new)
            files.replace_over(temporary, self._path)
        finally:
            temporary.unlink(missing_ok=True)
        self._blocks = blocks

    def _write_blocks(self, rows: Sequence[Record], new: BinaryIO) -> list[_Block]:
        blocks = []
        new.write(HEADER)
        with self._opened() as old:
            for number, start in enumerate(range(0, len(rows), row_blocks.BLOCK_ROWS)):
                known = self._blocks[number] if number < len(self._blocks) else None
                block, data = self._block(known, rows[start : start + row_blocks.BLOCK_ROWS], old)
                new.write(data)
                blocks.append(block)
        return blocks

    def _opened(self) -> BinaryIO:
        """Return the file as it is now; whoever made it, checksums tell what of it is still ours."""
        with suppress(OSError):
            old = self._path.open("rb")
            old.seek(len(HEADER))
            return old
        return io.BytesIO()

    def _block(self, known: _Block | None, rows: Sequence[Record], old: BinaryIO) -> tuple[_Block, bytes]:
        """Return a block of rows and its bytes. Blocks are asked for in the order of the file."""
        if known is None or (data := _read(old, known)) is None:
            return self._new_block(rows)
        if is_same(known.rows, rows):
            return known, data
        if len(known.rows) != len(rows) or not known.sizes or all_ended(rows):
            return self._new_block(rows)
        return self._renewed(known, data, rows)

    def _new_block(self, rows: Sequence[Record]) -> tuple[_Block, bytes]:
        if all_ended(rows):
            return _Block.of(rows, data := unpack(self._kept(rows))), data
        lines = encoded_rows(rows, sandbox=self._sandbox)
        return _Block.of(rows, data := b"".join(lines), array("I", map(len, lines))), data

    def _renewed(self, known: _Block, data: bytes, rows: Sequence[Record]) -> tuple[_Block, bytes]:
        """Write only what has changed: with 100,000 in flight, ends lie scattered over all blocks."""
        changed = list(compress(range(len(rows)), map(operator.is_not, known.rows, rows)))
        lines = encoded_rows([rows[index] for index in changed], sandbox=self._sandbox)
        view, sizes, ends = memoryview(data), known.sizes[:], list(accumulate(known.sizes))
        pieces: list[bytes | memoryview] = []
        position = 0
        for index, line in zip(changed, lines, strict=True):
            pieces += (view[position : ends[index] - sizes[index]], line)
            position, sizes[index] = ends[index], len(line)
        data = b"".join([*pieces, view[position:]])
        return _Block.of(rows, data, sizes), data


class _Block(NamedTuple):
    """A block as it lies in the file; with `sizes`, the bytes of each row, a row of it can be replaced."""

    rows: Sequence[Record]
    size_bytes: int
    checksum: int
    sizes: array[int]

    @classmethod
    def of(cls, rows: Sequence[Record], data: bytes, sizes: array[int] | None = None) -> _Block:
        return cls(rows, len(data), crc32(data), array("I") if sizes is None else sizes)


def _read(old: BinaryIO, block: _Block) -> bytes | None:
    """Return the next bytes of the file, None when they are not those of the block."""
    with suppress(OSError):
        data = old.read(block.size_bytes)
        if len(data) == block.size_bytes and crc32(data) == block.checksum:
            return data
    return None
