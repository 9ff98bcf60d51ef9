"""Owns what every API request passes first: counting, the key, the pace, the correlation header."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from math import ceil
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox.answers import refusal

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from pipeline.sandbox.service import Vendor

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
OPEN: Final = ("/", "/docs-json", "/v1/models")
OPEN_PREFIX: Final = "/images/"


def correlation_id(request: web.BaseRequest) -> str:
    """The client's own id if it is one the vendor takes; any other is dropped without a word."""
    given = request.headers.get("X-Client-Request-Id", "")
    return given if CORRELATION_ID.fullmatch(given) else ""


class Pace:
    """A sliding window: at most `most` requests in `window_s` real seconds."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._passed: deque[float] = deque()

    def wait_s(self) -> float:
        """0 and counted if a request may pass now, else how many seconds until one may."""
        now = time.monotonic()
        while self._passed and self._passed[0] <= now - self._window_s:
            self._passed.popleft()
        if len(self._passed) >= self._most:
            return self._passed[0] + self._window_s - now
        self._passed.append(now)
        return 0.0


def make_gate(vendor: Vendor) -> Middleware:
    """The middleware in front of every API route."""
    rate = vendor.options.rate_limit
    pace = Pace(max(1, round(rate)), vendor.real_s(max(1.0, 1 / rate))) if rate is not None else None
    logs = Pace(vendor.options.log_rate_limit, vendor.real_s(60.0))

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        vendor.book.requests[request.method, request.path] += 1
        stopped = _stopped(request, vendor, pace, logs)
        response = stopped if stopped is not None else await _handled(request, handler)
        echo = correlation_id(request)
        if echo and not response.prepared:
            response.headers["x-client-request-id"] = echo
        return response

    return gate


def _stopped(request: web.Request, vendor: Vendor, pace: Pace | None, logs: Pace) -> web.Response | None:
    if request.path in OPEN or request.path.startswith(OPEN_PREFIX):
        return None
    if (problem := key_problem(request, vendor.options.key)) is not None:
        if request.method == "POST":
            vendor.book.rejected[401] += 1
        return refusal(request, 401, problem)
    wait_s = pace.wait_s() if pace is not None else 0.0
    if wait_s == 0 and request.path == "/v2/logs":
        wait_s = logs.wait_s()
    if wait_s > 0:
        return refusal(
            request, 429, "Too many requests, slow down.", {"Retry-After": str(max(1, ceil(wait_s)))}
        )
    return None


def key_problem(request: web.BaseRequest, key: str | None) -> str | None:
    """Why the request's key will not do, or None."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        return "Unauthorized: send 'Authorization: Bearer <YOUR_AIMLAPI_KEY>'."
    return None if key is None or given.strip() == key else "Unauthorized: this key is not valid."


async def _handled(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status == 404:
            return refusal(request, 404, f"Cannot {request.method} {request.path}")
        return refusal(request, error.status, error.reason)
