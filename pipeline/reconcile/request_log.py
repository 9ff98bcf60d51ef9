"""Rows in doubt against the vendor's log: found, provably absent, or still in doubt.

`read_log` is the one pass that serves all of them; `judged` is the rule, and pure. A row found proves
acceptance. A row missing proves nothing before the longest time that a generation and the log's lag can
take, and nothing at all when the pass was not complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.client.client import LOG_REQUEST_GAP_S
from pipeline.client.responses import StatusError
from pipeline.model import State
from pipeline.submit.create import mark_generating

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.client import Api, LogRow
    from pipeline.model import Record

PAGE_ROWS: Final = 100
DAY_S: Final = 86_400.0
MAX_WINDOW_S: Final = 92 * DAY_S
CLOCK_SKEW_S: Final = 3600.0
MAX_PAGES: Final = 5000


@dataclass(frozen=True, slots=True)
class LogPass:
    """One reading of the log: our rows by correlation id, and whether it was read to its end."""

    rows: Mapping[str, LogRow]
    complete: bool
    error: str = ""


def window(oldest: float, now: float) -> dict[str, str]:
    """Return the narrowest query that covers `oldest`: `period` or `start`+`end`, never both."""
    age = now - oldest + CLOCK_SKEW_S
    if age < DAY_S:
        return {"period": "24h"}
    if age < 7 * DAY_S:
        return {"period": "7d"}
    start = max(oldest - CLOCK_SKEW_S, now + CLOCK_SKEW_S - MAX_WINDOW_S)
    return {"start": _iso(start), "end": _iso(now + CLOCK_SKEW_S)}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def fetch_log(
    api: Api, records: Iterable[Record], now: float, *, gap_s: float = LOG_REQUEST_GAP_S
) -> LogPass:
    """Read the log until every doubtful record is found or the log ends; never raises for the network."""
    missing = {record.correlation_id for record in records}
    oldest = min((record.submitted_at or now for record in records), default=now)
    reach = window(oldest, now)
    found: dict[str, LogRow] = {}
    offset = 0
    for number in range(MAX_PAGES):
        if number:
            await anyio.sleep(gap_s)
        page = await api.log_page(reach, limit=PAGE_ROWS, offset=offset)
        if isinstance(page, StatusError):
            return LogPass(found, complete=False, error=page.message)
        for row in page.rows:
            if row.client_request_id in missing and _preferred(row, found.get(row.client_request_id)):
                found[row.client_request_id] = row
        if not page.has_more:
            return LogPass(found, complete=True)
        if all(_is_conclusive(found.get(name)) for name in missing):
            return LogPass(found, complete=False)
        offset += page.row_count
    return LogPass(found, complete=False, error=f"more than {MAX_PAGES} pages")


@dataclass(frozen=True, slots=True)
class WholeLog:
    """Every row of the log since some moment; `trouble` says why it is not whole, if it is not."""

    rows: tuple[LogRow, ...]
    error: str = ""


async def fetch_whole_log(
    api: Api, oldest: float, now: float, *, gap_s: float = LOG_REQUEST_GAP_S
) -> WholeLog:
    """Read every row since `oldest` (epoch seconds); never raises for the network."""
    reach = window(oldest, now)
    rows: list[LogRow] = []
    offset = 0
    for number in range(MAX_PAGES):
        if number:
            await anyio.sleep(gap_s)
        page = await api.log_page(reach, limit=PAGE_ROWS, offset=offset)
        if isinstance(page, StatusError):
            return WholeLog(tuple(rows), page.message)
        rows += page.rows
        if not page.has_more:
            return WholeLog(tuple(rows))
        offset += page.row_count
    return WholeLog(tuple(rows), f"more than {MAX_PAGES} pages")


def _is_conclusive(row: LogRow | None) -> bool:
    """Say whether a row settles its create, so that no further page is needed."""
    return row is not None and (bool(row.inference_id) or row.succeeded is False)


def _preferred(row: LogRow, other: LogRow | None) -> bool:
    """Of several rows with one correlation id, prefer the one that names a generation that worked."""
    return other is None or (bool(row.inference_id), row.succeeded is not False) > (
        bool(other.inference_id),
        other.succeeded is not False,
    )


def reconcile_record(
    record: Record, log_pass: LogPass, *, asked_at: float, reconcile_after_s: float
) -> Record | None:
    """Return what the pass of `asked_at` (epoch seconds) makes of a doubtful record; None: still in doubt."""
    row = log_pass.rows.get(record.correlation_id)
    if row is not None and row.inference_id:
        when = record.submitted_at or asked_at
        return mark_generating(record, row.inference_id, when)
    if row is not None and row.succeeded is False:
        return mark_never_accepted(record)
    if row is not None or not log_pass.complete:
        return None
    since = max(record.submitted_at or asked_at, record.doubted_at or 0.0)
    return mark_never_accepted(record) if asked_at - since >= reconcile_after_s else None


def mark_never_accepted(record: Record) -> Record:
    """Return a record whose create is proven never to have been accepted."""
    return record.evolve(State.PENDING, failure=None, reserved_usd=None, doubted_at=None)


def absence_conclusive_at(record: Record, reconcile_after_s: float) -> float:
    """Return the moment (epoch seconds) from which the row's absence from the log is a proof."""
    return max(record.submitted_at or 0.0, record.doubted_at or 0.0) + reconcile_after_s
