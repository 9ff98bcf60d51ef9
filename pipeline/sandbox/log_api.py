"""`GET /v2/logs`: one row for each request of the asking key, newest first.

Facts: the vendor's OpenAPI of the call. A window is required, and is either `period` or `start` with `end`;
the rows are those of the asking key unless a management key names another by its prefix; every row has an
`inference_id`, that of a refused create too, which the status call does not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any, Final

from pipeline.sandbox import clock
from pipeline.sandbox.call import require_call
from pipeline.sandbox.catalog import find_model
from pipeline.sandbox.faults.injector import FaultPoint, RequestContext
from pipeline.sandbox.keys import prefix_id
from pipeline.sandbox.responses import error_response, int_query_param, json_response, to_credits
from pipeline.sandbox.state import Generation, RefusedCreate, Status

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.faults.handlers import FaultHandlers
    from pipeline.sandbox.faults.injector import Fault
    from pipeline.sandbox.service import VendorService

MAX_WINDOW: Final = timedelta(days=92)
MAX_MODELS: Final = 50
PERIOD_PATTERN: Final = re.compile(r"([1-9][0-9]{0,3})([hd])")
ROW_STATUSES: Final = frozenset({"succeeded", "failed"})
ROW_FAULTS: Final = frozenset({"log-frozen", "log-lagging", "log-behind", "log-forked", "log-retention"})

Entry = Generation | RefusedCreate


class ForbiddenError(Exception):
    """The key may not see what it asks for."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a call asks for; times are seconds since the epoch by the vendor's clock."""

    since: float
    until: float
    limit: int
    offset: int
    models: frozenset[str]
    statuses: frozenset[str]

    @classmethod
    def parse(cls, request: web.Request, now_s: float) -> LogQuery:
        """Raises `ValueError` for what the vendor answers with 400."""
        since, until = _parse_window(request, now_s)
        models, statuses = request.query.getall("model", []), request.query.getall("status", [])
        if len(models) > MAX_MODELS:
            raise ValueError(f"model can be given at most {MAX_MODELS} times")
        if not ROW_STATUSES.issuperset(statuses):
            raise ValueError(f"status must be one of the following values: {', '.join(sorted(ROW_STATUSES))}")
        limit = int_query_param(request, "limit", 50, 1, 100)
        offset = int_query_param(request, "offset", 0, 0, 10**9)
        known = (find_model(name) for name in models)
        wanted = {model.id for model in known if model is not None} | set(models)
        return cls(since, until, limit, offset, frozenset(wanted), frozenset(statuses))

    def matches(self, entry: Entry, created_s: float) -> bool:
        """Whether the filters let the entry through, which was made at `created_s` by the vendor's clock."""
        return (
            self.since <= created_s <= self.until
            and (not self.models or entry.model in self.models)
            and (not self.statuses or _row_status(entry) in self.statuses)
        )


class LogApi:
    """The handler of `GET /v2/logs`."""

    def __init__(self, service: VendorService, handlers: FaultHandlers) -> None:
        self._service = service
        self._handlers = handlers

    async def logs(self, request: web.Request) -> web.StreamResponse:
        fault = self._service.injector.pick(FaultPoint.LOG_CALL, RequestContext("log"))
        if fault is not None and fault.name not in ROW_FAULTS:
            return await self._handlers.log(request, fault, lambda: self._page(request, None))
        return self._page(request, fault)

    def _page(self, request: web.Request, fault: Fault | None) -> web.Response:
        try:
            query = LogQuery.parse(request, self._service.clock.now())
            key = _asked_key_id(request)
        except ValueError as error:
            return error_response(request, 400, str(error))
        except ForbiddenError as error:
            return error_response(request, 403, str(error))
        entries = [one for one in self._entries() if not one.key_id or one.key_id.startswith(key)]
        if fault is not None:
            entries = self._alter(entries, fault, query.offset)
        offset_s = self._service.clock.offset_s
        found = [one for one in entries if query.matches(one, one.created_at + offset_s)]
        limit = min(query.limit, self._service.options.log_page_rows)
        page = [log_row(one, offset_s) for one in found[query.offset : query.offset + limit]]
        more = query.offset + limit < len(found)
        counts = {"limit": limit, "offset": query.offset, "total": len(found), "has_more": more}
        return json_response({"data": page, "pagination": counts})

    def _entries(self) -> list[Entry]:
        """All requests that the log shows by now, the newest first."""
        state, now_s = self._service.state, clock.now()
        entries: list[Entry] = [*state.generations, *state.refused_creates]
        visible = [one for one in entries if self._visible_at(one) <= now_s]
        return sorted(visible, key=lambda one: one.created_at, reverse=True)

    def _visible_at(self, entry: Entry) -> float:
        options = self._service.options
        lag_s = self._service.to_real_s(options.log_lag_s)
        if options.log_rows == "never":
            return inf
        if isinstance(entry, RefusedCreate):
            return entry.created_at + lag_s
        if entry.find_fault("log-row-never") is not None:
            return inf
        visible_from = entry.created_at if options.log_rows == "accepted" else entry.finishes_at
        late = entry.find_fault("log-row-late")
        extra_s = self._service.to_real_s(late.number(3600.0)) if late is not None else 0.0
        return visible_from + lag_s + extra_s

    def _alter(self, entries: list[Entry], fault: Fault, offset: int) -> list[Entry]:
        """The rows as a log shows them that is behind, or that forgets."""
        match fault.name:
            case "log-frozen":
                return entries[len(entries) - min(len(entries), round(fault.number(0))) :]
            case "log-lagging":
                newest_s = clock.now() - self._service.to_real_s(fault.number(3600))
                return [one for one in entries if self._visible_at(one) <= newest_s]
            case "log-behind":
                return entries[round(fault.number(5)) :]
            case "log-forked":
                return entries[round(fault.number(5)) :] if offset > 0 else entries
            case "log-retention":
                oldest_s = clock.now() - self._service.to_real_s(fault.number(86_400))
                return [one for one in entries if one.created_at >= oldest_s]
        raise AssertionError(f"{fault.name} is not a fault of the log's rows")


def _row_status(entry: Entry) -> str:
    failed = isinstance(entry, RefusedCreate) or entry.status is Status.ERROR
    return "failed" if failed else "succeeded"


def log_row(entry: Entry, clock_offset_s: float) -> dict[str, Any]:
    """One row, with every field that the vendor's schema requires. A failed request costs nothing."""
    usd, is_anonymous = 0.0, False
    if isinstance(entry, Generation):
        usd, is_anonymous = entry.charged_usd, entry.find_fault("log-row-anonymous") is not None
    return {
        "created": clock.iso_timestamp(entry.created_at + clock_offset_s),
        "status": _row_status(entry),
        "origin": "api",
        "model": entry.model,
        "cost": {"usd": usd, "credits": to_credits(usd)},
        "tokens": {"input": 0, "output": 0, "total": 0},
        "request_id": entry.request_id,
        "inference_id": entry.id,
        "client_request_id": None if is_anonymous else entry.correlation_id or None,
    }


def _asked_key_id(request: web.Request) -> str:
    """The beginning of the `key_id` of all rows that the call may see."""
    asking = require_call().key
    prefix = request.query.get("key_prefix")
    if prefix is None:
        return asking.id
    if prefix == asking.prefix:
        return asking.id
    if not asking.is_management:
        raise ForbiddenError("Listing the requests of a different key requires a management key")
    return prefix_id(prefix)


def _parse_window(request: web.Request, now_s: float) -> tuple[float, float]:
    """The window that `period` or `start` and `end` ask for."""
    period, start, end = (request.query.get(name) for name in ("period", "start", "end"))
    if (period is None) == (start is None and end is None):
        raise ValueError("Provide either period or both start and end, never both")
    if period is None:
        return _parse_start_end(start, end)
    match = PERIOD_PATTERN.fullmatch(period)
    span = timedelta(hours=int(match[1]) * (24 if match[2] == "d" else 1)) if match else None
    if span is None or span > MAX_WINDOW:
        raise ValueError("period must be a positive integer followed by h or d, at most 92 days")
    return now_s - span.total_seconds(), inf


def _parse_start_end(start: str | None, end: str | None) -> tuple[float, float]:
    if start is None or end is None:
        raise ValueError("start and end must be used together")
    try:
        since, until = (datetime.fromisoformat(text) for text in (start, end))
    except ValueError as error:
        raise ValueError("start and end must be ISO-8601 times") from error
    since, until = (one if one.tzinfo else one.replace(tzinfo=UTC) for one in (since, until))
    if not timedelta(0) <= until - since <= MAX_WINDOW:
        raise ValueError("end must not be earlier than start, and the window must not exceed 92 days")
    return since.timestamp(), until.timestamp()
