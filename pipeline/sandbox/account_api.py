"""Owns the calls about money and models: log, billing, transactions, models, and each model's OpenAPI."""

from __future__ import annotations

import hashlib
import re
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from pipeline.sandbox.catalog import MODELS, find_model
from pipeline.sandbox.faults.injector import FaultPoint, RequestContext
from pipeline.sandbox.openapi import openapi_document
from pipeline.sandbox.responses import (
    JSON_CONTENT_TYPE,
    error_response,
    iso_timestamp,
    json_response,
    to_credits,
)
from pipeline.sandbox.state import Status

if TYPE_CHECKING:
    from pipeline.sandbox.catalog import Model
    from pipeline.sandbox.faults.handlers import FaultHandlers
    from pipeline.sandbox.service import VendorService
    from pipeline.sandbox.state import Generation

MAX_LOG_WINDOW: Final = timedelta(days=92)
PERIOD_PATTERN: Final = re.compile(r"([1-9][0-9]{0,3})([hd])")


class AccountApi:
    """The handlers of everything that is not a generation or a page."""

    def __init__(self, service: VendorService, handlers: FaultHandlers) -> None:
        self._service = service
        self._handlers = handlers

    async def logs(self, request: web.Request) -> web.StreamResponse:
        fault = self._service.injector.pick(FaultPoint.LOG_CALL, RequestContext("log"))
        if fault is not None:
            return await self._handlers.log(request, fault)
        try:
            since, until = _parse_window(request)
            limit, offset = (
                _int_query_param(request, "limit", 50, 1, 100),
                _int_query_param(request, "offset", 0, 0, 10**9),
            )
        except ValueError as error:
            return error_response(request, 400, str(error))
        rows = [one for one in self._visible_generations() if since <= one.created_at <= until]
        page = [log_row(one) for one in rows[offset : offset + limit]]
        more = offset + limit < len(rows)
        return json_response(
            {
                "data": page,
                "pagination": {"limit": limit, "offset": offset, "total": len(rows), "has_more": more},
            }
        )

    async def billing(self, _request: web.Request) -> web.Response:
        left_usd = self._service.options.balance_usd - self._service.state.charged_usd
        return json_response({"current_balance": round(left_usd, 6), "currency": "USD"})

    async def transactions(self, request: web.Request) -> web.Response:
        try:
            limit = _int_query_param(request, "limit", 50, 1, 100)
            cursor = _int_query_param(request, "cursor", 0, 0, 10**9)
        except ValueError as error:
            return error_response(request, 400, str(error))
        charged = [one for one in self._service.state.generations if one.status is Status.COMPLETED]
        charged.sort(key=lambda one: one.finishes_at)
        page = charged[cursor : cursor + limit]
        next_cursor = str(cursor + limit) if cursor + limit < len(charged) else None
        return json_response(
            {
                "data": [_transaction(one) for one in page],
                "next_cursor": next_cursor,
                "has_more": bool(next_cursor),
            }
        )

    async def models(self, request: web.Request) -> web.Response:
        wanted = request.query.get("id")
        include = set(request.query.get("include", "").split(","))
        found = [one for one in MODELS if wanted is None or wanted == one.id or wanted in one.aliases]
        base = f"{request.scheme}://{request.host}"
        return _with_etag(
            request, {"object": "list", "data": [self._model_entry(one, base, include) for one in found]}
        )

    async def docs(self, request: web.Request) -> web.Response:
        model = find_model(request.query.get("model", ""))
        if model is None:
            return error_response(request, 404, "There is no such model")
        return _with_etag(request, openapi_document(model, f"{request.scheme}://{request.host}"))

    def _visible_generations(self) -> list[Generation]:
        """The generations whose row shows by now, the newest first."""
        now = time.time()
        return [one for one in reversed(self._service.state.generations) if self._visible_at(one) <= now]

    def _visible_at(self, generation: Generation) -> float:
        options = self._service.options
        if options.log_rows == "never" or generation.find_fault("log-row-never") is not None:
            return float("inf")
        visible_from = generation.created_at if options.log_rows == "accepted" else generation.finishes_at
        delay_fault = generation.find_fault("log-row-late")
        extra_s = delay_fault.number(3600.0) if delay_fault is not None else 0.0
        return visible_from + self._service.to_real_s(options.log_lag_s + extra_s)

    def _model_entry(self, model: Model, base: str, include: set[str]) -> dict[str, Any]:
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
            entry["capabilities"] = ["image-to-video" if model.requires("image_url") else "video"]
        return entry

    def _pricing(self, model: Model) -> dict[str, Any]:
        match model.pricing:
            case "fixed":
                unit = {"name": "video", "measure": "generation", "price": model.fixed_usd, "per": 1}
                return {"kind": "fixed", "currency": "USD", "units": [unit]}
            case "variants":
                prices = {
                    "720p": self._service.options.price_720p_usd,
                    "1080p": self._service.options.price_1080p_usd,
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
        "created": iso_timestamp(generation.created_at),
        "status": "failed" if generation.status is Status.ERROR else "succeeded",
        "origin": "api",
        "model": generation.model,
        "cost": {"usd": usd, "credits": to_credits(usd)},
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
        "created_at": iso_timestamp(generation.finishes_at),
    }


def _parse_window(request: web.Request) -> tuple[float, float]:
    """The window that `period` or `start` and `end` ask for, in seconds since the epoch."""
    period, start, end = (request.query.get(name) for name in ("period", "start", "end"))
    if period is not None and (start is not None or end is not None):
        raise ValueError("period and start/end must not be used together")
    if start is not None or end is not None:
        return _parse_start_end(start, end)
    match = PERIOD_PATTERN.fullmatch(period if period is not None else "24h")
    span = timedelta(hours=int(match[1]) * (24 if match[2] == "d" else 1)) if match else None
    if span is None or span > MAX_LOG_WINDOW:
        raise ValueError("period must look like 24h or 7d and be at most 92 days")
    return time.time() - span.total_seconds(), float("inf")


def _parse_start_end(start: str | None, end: str | None) -> tuple[float, float]:
    if start is None or end is None:
        raise ValueError("start and end must be used together")
    try:
        since, until = (datetime.fromisoformat(text) for text in (start, end))
    except ValueError as error:
        raise ValueError("start and end must be ISO 8601 times") from error
    since, until = (one if one.tzinfo else one.replace(tzinfo=UTC) for one in (since, until))
    if not timedelta(0) <= until - since <= MAX_LOG_WINDOW:
        raise ValueError("start must come before end, by at most 92 days")
    return since.timestamp(), until.timestamp()


def _int_query_param(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}")
    return int(text)


def _with_etag(request: web.Request, body: dict[str, Any]) -> web.Response:
    """`body` with an ETag, or 304 to someone who has it already."""
    response = json_response(body)
    data = response.body if isinstance(response.body, bytes) else b""
    etag = f'W/"{hashlib.sha256(data).hexdigest()[:24]}"'
    if etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers={"ETag": etag, "Content-Type": JSON_CONTENT_TYPE})
    response.headers["ETag"] = etag
    return response
