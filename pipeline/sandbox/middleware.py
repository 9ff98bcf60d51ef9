"""Owns what every API request passes first: counting, the key, the pace, the correlation header."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from math import ceil
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox.responses import error_response

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from pipeline.sandbox.service import VendorService

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CORRELATION_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
PUBLIC_PATHS: Final = ("/", "/docs-json", "/v1/models")
PUBLIC_PREFIX: Final = "/images/"


def correlation_id(request: web.BaseRequest) -> str:
    """The client's own id if it is one the vendor takes; any other is dropped without a word."""
    given = request.headers.get("X-Client-Request-Id", "")
    return given if CORRELATION_ID_PATTERN.fullmatch(given) else ""


class SlidingWindowLimit:
    """A sliding window: at most `most` requests in `window_s` real seconds."""

    def __init__(self, max_requests: int, window_s: float) -> None:
        self._max_requests = max_requests
        self._window_s = window_s
        self._admitted_at: deque[float] = deque()

    def admit_delay_s(self) -> float:
        """0 and counted if a request may pass now, else how many seconds until one may."""
        now = time.monotonic()
        while self._admitted_at and self._admitted_at[0] <= now - self._window_s:
            self._admitted_at.popleft()
        if len(self._admitted_at) >= self._max_requests:
            return self._admitted_at[0] + self._window_s - now
        self._admitted_at.append(now)
        return 0.0


def make_middleware(service: VendorService) -> Middleware:
    """The middleware in front of every API route."""
    rate = service.options.rate_limit
    rate_limit = (
        SlidingWindowLimit(max(1, round(rate)), service.to_real_s(max(1.0, 1 / rate)))
        if rate is not None
        else None
    )
    log_limit = SlidingWindowLimit(service.options.log_rate_limit, service.to_real_s(60.0))

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        service.state.requests[request.method, request.path] += 1
        stopped = _early_rejection(request, service, rate_limit, log_limit)
        response = stopped if stopped is not None else await _call_handler(request, handler)
        echo = correlation_id(request)
        if echo and not response.prepared:
            response.headers["x-client-request-id"] = echo
        return response

    return middleware


def _early_rejection(
    request: web.Request,
    service: VendorService,
    rate_limit: SlidingWindowLimit | None,
    log_limit: SlidingWindowLimit,
) -> web.Response | None:
    if request.path in PUBLIC_PATHS or request.path.startswith(PUBLIC_PREFIX):
        return None
    if (problem := auth_error(request, service.options.key)) is not None:
        if request.method == "POST":
            service.state.rejected[401] += 1
        return error_response(request, 401, problem)
    wait_s = rate_limit.admit_delay_s() if rate_limit is not None else 0.0
    if wait_s == 0 and request.path == "/v2/logs":
        wait_s = log_limit.admit_delay_s()
    if wait_s > 0:
        return error_response(
            request, 429, "Too many requests, slow down.", {"Retry-After": str(max(1, ceil(wait_s)))}
        )
    return None


def auth_error(request: web.BaseRequest, key: str | None) -> str | None:
    """Why the request's key will not do, or None."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        return "Unauthorized: send 'Authorization: Bearer <YOUR_AIMLAPI_KEY>'."
    return None if key is None or given.strip() == key else "Unauthorized: this key is not valid."


async def _call_handler(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status == 404:
            return error_response(request, 404, f"Cannot {request.method} {request.path}")
        return error_response(request, error.status, error.reason)
