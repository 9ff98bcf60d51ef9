"""Owns the calls about money and models: log, billing, transactions, models, and each model's OpenAPI."""

from __future__ import annotations

import hashlib
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from pipeline.sandbox.answers import JSON, credits_of, iso, refusal, reply
from pipeline.sandbox.catalog import MODELS, find_model
from pipeline.sandbox.faults.injector import Stage, Subject
from pipeline.sandbox.openapi import openapi_of
from pipeline.sandbox.state import Status

if TYPE_CHECKING:
    from pipeline.sandbox.catalog import Model
    from pipeline.sandbox.faults.handlers import Players
    from pipeline.sandbox.service import Vendor
    from pipeline.sandbox.state import Generation

LONGEST_WINDOW: Final = timedelta(days=92)
PERIOD: Final = re.compile(r"([1-9][0-9]{0,3})([hd])")


class Accounts:
    """The handlers of everything that is not a generation or a page."""

    def __init__(self, vendor: Vendor, players: Players) -> None:
        self._vendor = vendor
        self._players = players

    async def logs(self, request: web.Request) -> web.StreamResponse:
        fault = self._vendor.desk.pick(Stage.LOG_CALL, Subject("log"))
        if fault is not None:
            return await self._players.log(request, fault)
        try:
            since, until = _window(request)
            limit, offset = _whole(request, "limit", 50, 1, 100), _whole(request, "offset", 0, 0, 10**9)
        except ValueError as error:
            return refusal(request, 400, str(error))
        rows = [one for one in self._rows() if since <= one.created_at <= until]
        page = [log_row(one) for one in rows[offset : offset + limit]]
        more = offset + limit < len(rows)
        return reply(
            {
                "data": page,
                "pagination": {"limit": limit, "offset": offset, "total": len(rows), "has_more": more},
            }
        )

    async def billing(self, _request: web.Request) -> web.Response:
        left_usd = self._vendor.options.balance_usd - self._vendor.book.charged_usd
        return reply({"current_balance": round(left_usd, 6), "currency": "USD"})

    async def transactions(self, request: web.Request) -> web.Response:
        try:
            limit = _whole(request, "limit", 50, 1, 100)
            cursor = _whole(request, "cursor", 0, 0, 10**9)
        except ValueError as error:
            return refusal(request, 400, str(error))
        charged = [one for one in self._vendor.book.generations if one.status is Status.COMPLETED]
        charged.sort(key=lambda one: one.finishes_at)
        page = charged[cursor : cursor + limit]
        following = str(cursor + limit) if cursor + limit < len(charged) else None
        return reply(
            {
                "data": [_transaction(one) for one in page],
                "next_cursor": following,
                "has_more": bool(following),
            }
        )

    async def models(self, request: web.Request) -> web.Response:
        wanted = request.query.get("id")
        include = set(request.query.get("include", "").split(","))
        found = [one for one in MODELS if wanted is None or wanted == one.id or wanted in one.aliases]
        base = f"{request.scheme}://{request.host}"
        return _tagged(
            request, {"object": "list", "data": [self._model(one, base, include) for one in found]}
        )

    async def docs(self, request: web.Request) -> web.Response:
        model = find_model(request.query.get("model", ""))
        if model is None:
            return refusal(request, 404, "There is no such model")
        return _tagged(request, openapi_of(model, f"{request.scheme}://{request.host}"))

    def _rows(self) -> list[Generation]:
        """The generations whose row shows by now, the newest first."""
        now = time.time()
        return [one for one in reversed(self._vendor.book.generations) if self._shows_at(one) <= now]

    def _shows_at(self, generation: Generation) -> float:
        options = self._vendor.options
        if options.log_rows == "never" or generation.fault("log-row-never") is not None:
            return float("inf")
        begins = generation.created_at if options.log_rows == "accepted" else generation.finishes_at
        late = generation.fault("log-row-late")
        extra_s = late.number(3600.0) if late is not None else 0.0
        return begins + self._vendor.real_s(options.log_lag_s + extra_s)

    def _model(self, model: Model, base: str, include: set[str]) -> dict[str, Any]:
        docs = f"{base}/docs-json?model={model.id}&endpoint=/v2/video/generations"
        entry: dict[str, Any] = {
            "id": model.id,
            "object": "model",
            "type": "video",
            "aliases": list(model.aliases),
            "info": {"name": model.title, "developer": model.id.partition("/")[0], "docsJson": docs},
            "endpoints": ["/v2/video/generations"],
        }
        if "pricing" in include:
            entry["pricing"] = self._pricing(model)
        if "capabilities" in include:
            entry["capabilities"] = ["image-to-video" if model.needs("image_url") else "video"]
        return entry

    def _pricing(self, model: Model) -> dict[str, Any]:
        match model.pricing:
            case "fixed":
                unit = {"name": "video", "measure": "generation", "price": model.fixed_usd, "per": 1}
                return {"kind": "fixed", "currency": "USD", "units": [unit]}
            case "variants":
                prices = {
                    "720p": self._vendor.options.price_720p_usd,
                    "1080p": self._vendor.options.price_1080p_usd,
                }
                variants = [
                    {"when": {"resolution": name}, "price": price, "unit": "second", "per": 1}
                    for name, price in prices.items()
                ]
                return {
                    "kind": "variants",
                    "currency": "USD",
                    "dimensions": ["resolution"],
                    "variants": variants,
                }
            case "variable":
                return {"kind": "variable", "currency": "USD"}


def log_row(generation: Generation) -> dict[str, Any]:
    """One row of the log."""
    usd = generation.charged_usd
    return {
        "created": iso(generation.created_at),
        "status": "failed" if generation.status is Status.ERROR else "succeeded",
        "origin": "api",
        "model": generation.model,
        "cost": {"usd": usd, "credits": credits_of(usd)},
        "tokens": None,
        "request_id": generation.request_id,
        "inference_id": generation.id,
        "client_request_id": generation.correlation_id or None,
    }


def _transaction(generation: Generation) -> dict[str, Any]:
    return {
        "id": f"txn-{generation.request_id}",
        "type": "charge",
        "amount": -generation.price_usd,
        "currency": "USD",
        "reference_id": generation.id,
        "created_at": iso(generation.finishes_at),
    }


def _window(request: web.Request) -> tuple[float, float]:
    """The window that `period` or `start` and `end` ask for, in seconds since the epoch."""
    period, start, end = (request.query.get(name) for name in ("period", "start", "end"))
    if period is not None and (start is not None or end is not None):
        raise ValueError("period and start/end must not be used together")
    if start is not None or end is not None:
        return _explicit(start, end)
    match = PERIOD.fullmatch(period if period is not None else "24h")
    span = timedelta(hours=int(match[1]) * (24 if match[2] == "d" else 1)) if match else None
    if span is None or span > LONGEST_WINDOW:
        raise ValueError("period must look like 24h or 7d and be at most 92 days")
    return time.time() - span.total_seconds(), float("inf")


def _explicit(start: str | None, end: str | None) -> tuple[float, float]:
    if start is None or end is None:
        raise ValueError("start and end must be used together")
    try:
        since, until = (datetime.fromisoformat(text) for text in (start, end))
    except ValueError as error:
        raise ValueError("start and end must be ISO 8601 times") from error
    since, until = (one if one.tzinfo else one.replace(tzinfo=UTC) for one in (since, until))
    if not timedelta(0) <= until - since <= LONGEST_WINDOW:
        raise ValueError("start must come before end, by at most 92 days")
    return since.timestamp(), until.timestamp()


def _whole(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}")
    return int(text)


def _tagged(request: web.Request, body: dict[str, Any]) -> web.Response:
    """`body` with an ETag, or 304 to someone who has it already."""
    answer = reply(body)
    data = answer.body if isinstance(answer.body, bytes) else b""
    etag = f'W/"{hashlib.sha256(data).hexdigest()[:24]}"'
    if etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers={"ETag": etag, "Content-Type": JSON})
    answer.headers["ETag"] = etag
    return answer
