"""The CSV: a projection of the ledger's records, never a second source of truth.

Owns the layout of `results.csv`. Knows no file system and no network: it takes
records and writes text. The same records always give the same bytes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

from pipeline.manifest.jobs import take_seed
from pipeline.manifest.local_files import image_sha256
from pipeline.model import Record, State
from pipeline.plan import has_money_in_it
from pipeline.results.row_blocks import RowBlocks, all_ended, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.results.block_cache import BlockCache

COLUMNS: Final[tuple[str, ...]] = (
    "id",
    "status",
    "generation_id",
    "video_path",
    "image_url",
    "prompt",
    "model",
    "bytes",
    "sha256",
    "duration_s",
    "width",
    "height",
    "has_audio",
    "submitted_at",
    "finished_at",
    "downloaded_at",
    "polls",
    "attempts",
    "credits_used",
    "usd_spent",
    "error_code",
    "error_message",
    "line",
    "correlation_id",
    "fps",
    "poster_path",
    "warnings",
    "request_id",
    "take",
    "pick",
    "image_sha256",
    "sandbox",
    "seed",
)
"""The columns of `results.csv`, in order. New ones are appended, so that scripts by position keep working."""

STATUSES: Final = (State.DONE, State.FAILED, State.IN_DOUBT, State.READY, State.GENERATING, State.PENDING)
"""The values of the `status` column; `submitting` is not among them, see `status`."""

HEADER: Final = (",".join(COLUMNS) + "\n").encode()

_position_of: Final = attrgetter("position")
_UNENCODABLE = re.compile(r"[\x00\ud800-\udfff]")
# Leading blanks do not stop a spreadsheet from seeing a formula; the full-width signs are taken for the
# plain ones in East Asian locales (OWASP, "CSV Injection").
# A text that looks like a guarded cell gets a guard too, so that one can be told from the other.
_FORMULA = re.compile(r"'*(?:\s*[=+\-@\t\r＝＋－＠]|[\t\r])")


def status(record: Record) -> State:
    """Return the state that people see: a submission without its response is in doubt."""
    return State.IN_DOUBT if record.state is State.SUBMITTING else record.state


def visible_records(records: Iterable[Record]) -> list[Record]:
    """Return the rows people see: the manifest's in its order, then removed rows that were paid for."""
    records = list(records)
    rows = [r for r in records if r.position >= 0]
    rows.sort(key=_position_of)
    if len(rows) < len(records):
        rows += [r for r in records if r.position < 0 and has_money_in_it(r)]
    return rows


def write_rows(records: Sequence[Record], file: TextIO, *, sandbox: bool = False) -> None:
    """Write `COLUMNS` and one row a visible record to `file`; open it with `newline=""` and UTF-8.

    `sandbox` marks every row as made by the sandbox, so that its figures are not taken for money.
    """
    file.write(HEADER.decode())
    file.writelines(_lines(visible_records(records), sandbox))


def csv_bytes(records: Sequence[Record], *, sandbox: bool = False) -> bytes:
    """Return what `write_rows` writes, as UTF-8 without a byte order mark."""
    return CsvTable(sandbox=sandbox).to_bytes(records)


class CsvTable:
    """The CSV of rows that change here and there: what has not changed since the last time is kept."""

    def __init__(self, *, sandbox: bool = False, cache: BlockCache | None = None) -> None:
        self._sandbox = sandbox
        self._kept = cache.kept("csv", self._packed) if cache else self._packed
        self._blocks = RowBlocks(self._block, self._renewed)

    def to_bytes(self, records: Sequence[Record]) -> bytes:
        """Return what `write_rows` writes, as UTF-8 without a byte order mark."""
        data = io.BytesIO()
        data.write(HEADER)
        data.writelines(unpack(block.packed) for block in self._blocks.each(visible_records(records)))
        return data.getvalue()  # no copy, unlike joining the blocks: 50 MB for 100,000 rows

    def _packed(self, rows: Sequence[Record]) -> str:
        return pack(b"".join(self._encoded(rows)))

    def _block(self, rows: Sequence[Record]) -> _Block:
        return _Block(self._kept(rows)) if all_ended(rows) else _Block.of(self._encoded(rows))

    def _renewed(self, before: Sequence[Record], block: _Block, rows: Sequence[Record]) -> _Block:
        """Write only what has changed: with 100,000 in flight, ends lie scattered over all blocks."""
        if len(before) != len(rows) or block.sizes is None or all_ended(rows):
            return self._block(rows)
        lines = block.lines()
        changed = [index for index, row in enumerate(rows) if row is not before[index]]
        for index, line in zip(changed, self._encoded([rows[index] for index in changed]), strict=True):
            lines[index] = line
        return _Block.of(lines)

    def _encoded(self, rows: Sequence[Record]) -> list[bytes]:
        return encoded_rows(rows, sandbox=self._sandbox)


class _Block(NamedTuple):
    """A packed block; with `sizes`, the bytes of each row, one can be replaced. A cell may hold line ends."""

    packed: str
    sizes: Sequence[int] | None = None

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> _Block:
        return cls(pack(b"".join(lines)), array("I", map(len, lines)))

    def lines(self) -> list[bytes]:
        data = io.BytesIO(unpack(self.packed))
        return [data.read(size) for size in self.sizes or ()]


def encoded_rows(rows: Sequence[Record], *, sandbox: bool) -> list[bytes]:
    """Return the lines of these very rows, each with its end, in UTF-8."""
    return [line.encode() for line in _lines(rows, sandbox)]


def _lines(rows: Sequence[Record], sandbox: bool) -> list[str]:
    """Return the lines of the rows, each with its end."""
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(_csv_row(row, csv_bool(sandbox)) for row in rows)
    return lines


def iso(time_s: float | None) -> str:
    """Return seconds since the epoch as ISO 8601 in UTC, to the millisecond; empty for None."""
    if time_s is None:
        return ""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def csv_text(value: str) -> str:
    """Return `value` as a cell that no spreadsheet takes for a formula and that UTF-8 can encode."""
    encodable = value if value.isascii() and "\0" not in value else _UNENCODABLE.sub("\ufffd", value)
    if encodable[:1].isalnum():
        return encodable  # nearly every cell of a hundred thousand rows
    return f"'{encodable}" if _FORMULA.match(encodable) else encodable


def csv_value(cell: str) -> str:
    """Return the text that `csv_text` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def csv_number(value: float | None, places: int = 6) -> str:
    """Return a plain decimal without an exponent or needless zeros; empty for None and what is no number."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.{places}f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def csv_bool(value: bool) -> str:
    return "true" if value else "false"


def _csv_row(record: Record, sandbox: str) -> list[str | int]:
    artifact = record.artifact if record.state in (State.DONE, State.READY) else None  # READY: fetched again
    media = artifact.media if artifact else None
    failure = record.failure if record.state is not State.DONE else None
    return [
        csv_text(record.id),
        status(record).value,
        csv_text(record.generation_id),
        csv_text(artifact.path) if artifact else "",
        csv_text(record.manifest_image),
        csv_text(record.prompt),
        csv_text(record.model),
        artifact.size_bytes if artifact else "",
        artifact.sha256 if artifact else "",
        csv_number(media.duration_s, 3) if media else "",
        media.width if media else "",
        media.height if media else "",
        csv_bool(media.has_audio) if media else "",
        iso(record.submitted_at),
        iso(record.finished_at),
        iso(record.downloaded_at),
        record.polls,
        record.attempts,
        csv_number(record.credits_used),
        csv_number(record.usd_spent),
        csv_text(failure.code) if failure else "",
        csv_text(failure.message) if failure else "",
        record.line or "",
        csv_text(record.correlation_id),
        csv_number(media.fps, 3) if media else "",
        csv_text(artifact.poster_path) if artifact else "",
        csv_text("; ".join(artifact.warnings)) if artifact else "",
        csv_text(record.request_id),
        record.take,
        record.pick,
        image_sha256(record.body),
        sandbox,
        take_seed(record.body),
    ]


class _Lines(list[str]):
    """Ends rows with a bare newline, though `csv` quotes a lone CR only when its own line end has one."""

    def write(self, row: str) -> None:
        self.append(row[:-2] + "\n")
