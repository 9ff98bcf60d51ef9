"""The CSV and the totals: projections of the ledger's records, never a second source of truth.

Owns the layout of `results.csv` and what is counted. Knows no file system and no network: it takes
records and writes text. The same records always give the same bytes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

from pipeline.ledger.totals import Totals
from pipeline.manifest.jobs import take_seed
from pipeline.manifest.local_files import image_sha256
from pipeline.model import MAYBE_PAID_STATES, Record, State
from pipeline.plan import has_money_in_it
from pipeline.results.row_blocks import RowBlocks, pack, unpack

if TYPE_CHECKING:
    from _csv import Writer as CsvWriter
    from collections.abc import Iterable, Mapping, Sequence

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

_UNENCODABLE = re.compile(r"[\x00\ud800-\udfff]")
# Leading blanks do not stop a spreadsheet from seeing a formula; the full-width signs are taken for the
# plain ones in East Asian locales (OWASP, "CSV Injection").
_FORMULA = re.compile(r"\s*[=+\-@\t\r＝＋－＠]|[\t\r]")


def status(record: Record) -> State:
    """Return the state that people see: a submission without its response is in doubt."""
    return State.IN_DOUBT if record.state is State.SUBMITTING else record.state


def visible_records(records: Iterable[Record]) -> list[Record]:
    """Return the rows people see: the manifest's in its order, then removed rows that were paid for."""
    rows = sorted((r for r in records if r.position >= 0), key=lambda r: r.position)
    return rows + [r for r in records if r.position < 0 and has_money_in_it(r)]


def write_rows(records: Sequence[Record], file: TextIO, *, sandbox: bool = False) -> None:
    """Write `COLUMNS` and one row a visible record to `file`; open it with `newline=""` and UTF-8.

    `sandbox` marks every row as made by the sandbox, so that its figures are not taken for money.
    """
    _csv_writer(file).writerow(COLUMNS)
    _write_visible(visible_records(records), file, sandbox)


def csv_bytes(records: Sequence[Record], *, sandbox: bool = False) -> bytes:
    """Return what `write_rows` writes, as UTF-8 without a byte order mark."""
    return CsvTable(sandbox=sandbox).to_bytes(records)


class CsvTable:
    """The CSV of rows that change here and there: what has not changed since the last time is kept."""

    def __init__(self, *, sandbox: bool = False, cache: BlockCache | None = None) -> None:
        self._sandbox = sandbox
        self._blocks = RowBlocks(cache.kept("csv", self._packed) if cache else self._packed)

    def to_bytes(self, records: Sequence[Record]) -> bytes:
        """Return what `write_rows` writes, as UTF-8 without a byte order mark."""
        data = io.BytesIO()
        data.write(",".join(COLUMNS).encode() + b"\n")
        data.writelines(map(unpack, self._blocks.each(visible_records(records))))
        return data.getvalue()  # no copy, unlike joining the blocks: 50 MB for 100,000 rows

    def _packed(self, rows: Sequence[Record]) -> str:
        text = io.StringIO(newline="")
        _write_visible(rows, text, self._sandbox)
        return pack(text.getvalue())


def _write_visible(rows: Sequence[Record], file: TextIO, sandbox: bool) -> None:
    _csv_writer(file).writerows(_csv_row(record, csv_bool(sandbox)) for record in rows)


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


def _csv_writer(file: TextIO) -> CsvWriter:
    return csv.writer(_LfWriter(file), lineterminator="\r\n")


class _LfWriter:
    """Ends rows with a bare newline, though `csv` quotes a lone CR only when its own line end has one."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row[:-2] + "\n")


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a batch. Money in USD, durations in seconds.

    `usd_spent` is what the vendor confirmed; `usd_assumed` is the estimate for paid rows whose price
    the vendor has not reported; `unpriced` counts paid rows with neither. `usd_open` is reserved for rows
    that are not settled yet. With `sandbox` all of it is play money.
    """

    total: int
    counts: Mapping[State, int]
    removed: int
    usd_spent: float
    usd_assumed: float
    usd_open: float
    unpriced: int
    saved_bytes: int
    video_s: float
    polls: int
    began_at: float | None
    ended_at: float | None
    sandbox: bool = False

    @property
    def usd_total(self) -> float:
        """Money spent, confirmed or estimated."""
        return self.usd_spent + self.usd_assumed

    @property
    def price_unknown(self) -> bool:
        """Return whether rows are paid for and the price of none of them is known: unknown is never 0."""
        return bool(self.unpriced) and not self.usd_total

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; the counts name every status, also those at zero."""
        return {
            "total": self.total,
            "sandbox": self.sandbox,
            "counts": {state.value: self.counts.get(state, 0) for state in STATUSES},
            "removed": self.removed,
            "usd_spent": None if self.price_unknown else round(self.usd_spent, 6),
            "usd_assumed": round(self.usd_assumed, 6),
            "usd_open": round(self.usd_open, 6),
            "unpriced": self.unpriced,
            "saved_bytes": self.saved_bytes,
            "video_s": round(self.video_s, 3),
            "polls": self.polls,
            "began_at": iso(self.began_at) or None,
            "ended_at": iso(self.ended_at) or None,
        }


def summarize(records: Sequence[Record], *, sandbox: bool = False, money: Totals | None = None) -> Summary:
    """Count the visible rows and add up their bytes and seconds.

    `money` is what all submissions cost, whatever became of the rows; without it, it is what the rows say.
    """
    rows = visible_records(records)
    money = _money_of_rows(rows) if money is None else money
    counts = Counter(status(row) for row in rows)
    done = [row for row in rows if row.state is State.DONE]
    media = [row.artifact.media for row in done if row.artifact and row.artifact.media]
    times = [at for row in rows for at in (row.downloaded_at, row.finished_at, row.not_yet_at) if at]
    return Summary(
        total=len(rows),
        counts=counts,
        removed=sum(row.position < 0 for row in rows),
        usd_spent=money.spent_usd,
        usd_assumed=money.assumed_usd,
        usd_open=money.open_usd + money.maybe_usd,
        unpriced=money.unpriced,
        saved_bytes=sum(row.artifact.size_bytes for row in done if row.artifact),
        video_s=sum(item.duration_s for item in media),
        polls=sum(row.polls for row in rows),
        began_at=min((row.submitted_at for row in rows if row.submitted_at is not None), default=None),
        ended_at=max(times, default=None),
        sandbox=sandbox,
    )


def _money_of_rows(rows: Sequence[Record]) -> Totals:
    unpriced = [row for row in rows if row.usd_spent is None and row.state is State.DONE]
    open_rows = [row for row in rows if row.state in MAYBE_PAID_STATES and row.state is not State.DONE]
    return Totals(
        spent_usd=sum(row.usd_spent or 0.0 for row in rows),
        assumed_usd=sum(row.reserved_usd or 0.0 for row in unpriced),
        open_usd=sum(row.reserved_usd or 0.0 for row in open_rows if row.usd_spent is None),
        unpriced=sum(row.reserved_usd is None for row in unpriced),
    )
