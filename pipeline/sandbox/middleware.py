"""What every API request passes first: counting, the key, the rate limit, and the headers of every answer."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from math import ceil
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox.call import begin_call, current_call
from pipeline.sandbox.responses import error_response

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from pipeline.sandbox.call import Call
    from pipeline.sandbox.keys import KeyRing, KeyRule
    from pipeline.sandbox.service import VendorService

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ResponseSignal = Callable[[web.Request, web.StreamResponse], Awaitable[None]]

CORRELATION_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
PUBLIC_PATHS: Final = ("/", "/docs-json", "/v1/models", "/v1/models/deprecations", "/models/metrics")
PUBLIC_PREFIXES: Final = ("/images/", "/model/")
KEY_PATH: Final = "/v1/key"


def correlation_id(request: web.BaseRequest) -> str:
    """The client's own id if the vendor takes it; any other is dropped silently."""
    given = request.headers.get("X-Client-Request-Id", "")
    return given if CORRELATION_ID_PATTERN.fullmatch(given) else ""


class SlidingWindowLimit:
    """At most `max_requests` within `window_s` real seconds."""

    def __init__(self, max_requests: int, window_s: float) -> None:
        self._max_requests = max_requests
        self._window_s = window_s
        self._admitted_at: deque[float] = deque()

    def admit_delay_s(self) -> float:
        """0, and the request is counted, if it may pass; else the seconds until one may."""
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
        call = begin_call(service.clock.now(), service.options.error_shape)
        stopped = _early_rejection(request, call, service, rate_limit, log_limit)
        return stopped if stopped is not None else await _call_handler(request, handler)

    return middleware


def make_header_signal(service: VendorService) -> ResponseSignal:
    """Add what every answer carries just before it is sent, in pieces or whole."""

    async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = service.clock.http_date()
        if (call := current_call()) is not None:
            response.headers.setdefault("x-request-id", call.request_id)
            if echo := correlation_id(request):
                response.headers["x-client-request-id"] = echo

    return add_headers


def _early_rejection(
    request: web.Request,
    call: Call,
    service: VendorService,
    rate_limit: SlidingWindowLimit | None,
    log_limit: SlidingWindowLimit,
) -> web.Response | None:
    if request.path in PUBLIC_PATHS or request.path.startswith(PUBLIC_PREFIXES):
        return None
    rejection = _check_key(request, call, service)
    if rejection is not None:
        return rejection
    wait_s = rate_limit.admit_delay_s() if rate_limit is not None else 0.0
    if wait_s == 0 and request.path == "/v2/logs":
        wait_s = log_limit.admit_delay_s()
    if wait_s > 0:
        headers = {"Retry-After": str(max(1, ceil(wait_s)))}
        return error_response(request, 429, "Too many requests, slow down.", headers)
    return None


def _check_key(request: web.Request, call: Call, service: VendorService) -> web.Response | None:
    """401 for an unknown key, 403 for a disabled one, for which only `GET /v1/key` works."""
    key = find_key(request, service.keys)
    status, message = 0, ""
    if isinstance(key, str):
        status, message = 401, key
    elif key.disabled and request.path != KEY_PATH:
        status, message = 403, "This API key is disabled."
    else:
        call.key = key
        return None
    if request.method == "POST":
        service.state.rejected[status] += 1
    return error_response(request, status, message)


def find_key(request: web.BaseRequest, keys: KeyRing) -> KeyRule | str:
    """The key of the request, or why it is not let in."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        return "Unauthorized: send 'Authorization: Bearer <YOUR_AIMLAPI_KEY>'."
    rule = keys.find(given.strip())
    return rule if rule is not None else "Unauthorized: this key is not valid."


async def _call_handler(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status == 404:
            return error_response(request, 404, f"Cannot {request.method} {request.path}")
        return error_response(request, error.status, error.reason)
