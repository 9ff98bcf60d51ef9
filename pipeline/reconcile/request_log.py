"""Reads the vendor's request log: overlapping pages, and what a pass has shown.

The log lists the requests of one key, newest first, and may come from replicas that are not equally far. So
each page begins with some rows of the page before it, and a pass in which they do not come back is not
complete. Times are epoch seconds on the vendor's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.client.log_responses import LOG_REQUEST_GAP_S
from pipeline.client.responses import StatusError
from pipeline.reconcile.log_windows import HOUR_S, PERIODS, Window, plan_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from pipeline.client import Api, LogRow

PAGE_ROWS: Final = 100
OVERLAP_ROWS: Final = 10
"""Rows that a page shares with the one before: a replica up to nine rows behind leaves no gap."""

MAX_PAGES: Final = 5000
LOG_REFUSED_STATUSES: Final = frozenset({401, 402, 403, 404, 405})


@dataclass(frozen=True, slots=True)
class AnonymousRow:
    """A request that the log shows without a correlation id; `at` None when its time cannot be read."""

    inference_id: str
    model: str
    at: float | None


@dataclass(frozen=True, slots=True)
class LogPass:
    """What one pass has shown. `rows` are those of our submissions, by correlation id.

    It is `complete` when every window was read to its end over pages that overlap. `refused` says that the
    key may not read the log. `oldest` and `newest` are the times of the outermost rows of anybody's;
    `other_generations` are the generations of requests that are not ours, `times` those of our submissions.
    """

    rows: Mapping[str, LogRow]
    complete: bool
    error: str = ""
    refused: bool = False
    key_id: str = ""
    api_url: str = ""
    windows: tuple[tuple[float, float], ...] = ()
    anonymous: tuple[AnonymousRow, ...] = ()
    oldest: float | None = None
    newest: float | None = None
    other_generations: frozenset[str] = frozenset()
    times: Mapping[str, float] = field(default_factory=dict)

    def generations_beside(self, correlation_id: str) -> frozenset[str]:
        """Return the generations that the log shows for any request but that of `correlation_id`."""
        ours = (row.inference_id for name, row in self.rows.items() if name != correlation_id)
        return self.other_generations.union(ours) - {""}

    def shows(self, correlation_id: str, generation_id: str) -> bool:
        """Return whether the log has a submission, by its name or, where that was dropped, its generation."""
        beside = {row.inference_id for row in self.anonymous} | self.generations_beside(correlation_id)
        return correlation_id in self.rows or generation_id in beside


@dataclass(frozen=True, slots=True)
class WholeLog:
    """Every row of the log since some moment; `error` says why it is not whole, if it is not."""

    rows: tuple[LogRow, ...]
    error: str = ""


@dataclass(slots=True)
class LogCollector:
    """Gathers a pass from its rows. `own_prefix` begins the correlation ids of this ledger.

    A time outside of the window that was asked for tells nothing, and is left out.
    """

    own_prefix: str
    window: tuple[float, float] = (-inf, inf)
    times: dict[str, float] = field(default_factory=dict)
    rows: dict[str, LogRow] = field(default_factory=dict)
    anonymous: list[AnonymousRow] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    oldest: float | None = None
    newest: float | None = None

    def add(self, rows: Iterable[LogRow]) -> None:
        for row in rows:
            at = self._time(row)
            if at is not None:
                self.oldest = at if self.oldest is None else min(at, self.oldest)
                self.newest = at if self.newest is None else max(at, self.newest)
            name = row.client_request_id
            if name.startswith(self.own_prefix):
                if at is not None:
                    self.times[name] = at
                if _is_preferred(row, self.rows.get(name)):
                    self.rows[name] = row
                continue
            # The vendor drops a correlation id that it does not like; such a row may be one of ours.
            if row.inference_id and not name and row.succeeded is not False:
                self.anonymous.append(AnonymousRow(row.inference_id, row.model, at))
            elif row.inference_id:
                self.others.add(row.inference_id)

    def _time(self, row: LogRow) -> float | None:
        at = parse_time(row.created)
        start, end = self.window
        return at if at is not None and start - HOUR_S <= at <= end + HOUR_S else None

    def finish(
        self,
        error: StatusError | None,
        api_url: str,
        key_id: str,
        windows: tuple[tuple[float, float], ...],
        *,
        ended_early: bool,
    ) -> LogPass:
        """Return the pass, which `error` cut short, or which `ended_early` since nothing more was wanted."""
        return LogPass(
            self.rows,
            complete=error is None and not ended_early,
            error=error.message if error is not None else "",
            refused=error is not None and error.http_status in LOG_REFUSED_STATUSES,
            key_id=key_id,
            api_url=api_url,
            windows=windows,
            anonymous=tuple(self.anonymous),
            oldest=self.oldest,
            newest=self.newest,
            other_generations=frozenset(self.others),
            times=self.times,
        )

    def has_settled(self, wanted: Collection[str]) -> bool:
        """Return whether every id of `wanted` is found with its generation, so that reading may end."""
        return all(name in self.rows and self.rows[name].inference_id for name in wanted)


def _is_preferred(row: LogRow, other: LogRow | None) -> bool:
    """Of several rows with one correlation id, prefer the one that names a generation that worked."""
    return other is None or (bool(row.inference_id), row.succeeded is not False) > (
        bool(other.inference_id),
        other.succeeded is not False,
    )


def parse_time(text: str) -> float | None:
    """Return an ISO 8601 time as epoch seconds, in UTC where it names no zone; None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


async def read_window(
    api: Api,
    window: Window,
    take: Callable[[Sequence[LogRow]], bool],
    *,
    gap_s: float = LOG_REQUEST_GAP_S,
    key_prefix: str = "",
) -> StatusError | None:
    """Give `take` the rows of each page until it returns False or the log ends; never raises for the network.

    Returns the error that kept the reading from its end. Rows that two pages share come twice.
    """
    offset, last = 0, ""
    for number in range(MAX_PAGES):
        if number:
            await anyio.sleep(gap_s)
        page = await api.log_page(window.query, limit=PAGE_ROWS, offset=offset, key_prefix=key_prefix)
        if isinstance(page, StatusError):
            return page
        # The last row of the page before is missing here: others may be missing between the two.
        if last and all(_row_name(row) != last for row in page.rows):
            return StatusError(200, "two pages do not overlap: the log is behind in parts")
        if not take(page.rows) or not page.has_more:
            return None
        if page.row_count == 1:
            return StatusError(200, "its pages are too short to overlap")
        # New rows push older ones to later pages while they are read; the overlap finds them again.
        overlap = min(OVERLAP_ROWS, page.row_count // 2)
        last = _row_name(page.rows[-1]) if overlap and page.rows else ""
        offset += page.row_count - overlap
    return StatusError(200, f"more than {MAX_PAGES} pages")


def _row_name(row: LogRow) -> str:
    """Return what tells a row from others; the inference id is required of every row (vendor's schema)."""
    return row.inference_id or "|".join((row.request_id, row.client_request_id, row.created))


async def fetch_log(
    api: Api,
    windows: Sequence[Window],
    wanted: Collection[str],
    *,
    own_prefix: str,
    gap_s: float = LOG_REQUEST_GAP_S,
    key_id: str = "",
    key_prefix: str = "",
) -> LogPass:
    """Read every window until all ids of `wanted` are found, else to its end. Never raises for the network.

    `key_id` names the key whose requests are read; with `key_prefix`, a management key reads another's.
    """
    collected = LogCollector(own_prefix)
    ended_early = False

    def take(rows: Sequence[LogRow]) -> bool:
        nonlocal ended_early
        collected.add(rows)
        ended_early = bool(wanted) and collected.has_settled(wanted)
        return not ended_early

    error: StatusError | None = None
    # Windows of the past end before now; only the newest page shows whether the log still goes on.
    if not any("period" in window.query for window in windows):
        error = await _read_newest(api, collected, key_prefix)
    for number, window in enumerate(windows if error is None else ()):
        if number:
            await anyio.sleep(gap_s)
        collected.window = window.start, window.end
        error = await read_window(api, window, take, gap_s=gap_s, key_prefix=key_prefix)
        if error is not None or ended_early:
            break
    spans = tuple((window.start, window.end) for window in windows)
    return collected.finish(error, api.name, key_id, spans, ended_early=ended_early)


async def _read_newest(api: Api, collected: LogCollector, key_prefix: str) -> StatusError | None:
    """Read the log's first page, which shows whether the log goes on at all."""
    page = await api.log_page({"period": PERIODS[0][0]}, limit=PAGE_ROWS, offset=0, key_prefix=key_prefix)
    if isinstance(page, StatusError):
        return page
    collected.add(page.rows)
    return None


async def fetch_whole_log(
    api: Api, oldest: float, now: float, *, gap_s: float = LOG_REQUEST_GAP_S
) -> WholeLog:
    """Read every row since `oldest` (epoch seconds); never raises for the network."""
    rows: dict[str, LogRow] = {}

    def take(page: Sequence[LogRow]) -> bool:
        rows.update((_row_name(row), row) for row in page)
        return True

    for window in plan_windows([(oldest - HOUR_S, now + HOUR_S)], now):
        error = await read_window(api, window, take, gap_s=gap_s)
        if error is not None:
            return WholeLog(tuple(rows.values()), error.message)
    return WholeLog(tuple(rows.values()))
