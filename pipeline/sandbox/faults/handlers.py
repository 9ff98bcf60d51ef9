"""Carries out the faults of create, status and log calls: one function each way to misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pipeline.sandbox.faults import broken_responses
from pipeline.sandbox.faults.download_handlers import serve_faulty_download
from pipeline.sandbox.responses import error_response, json_response, sample_objects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.faults.injector import Fault

NormalResponse = Callable[[], web.Response]

STATUS_ALIASES = {
    "waiting": ("pending", "waiting"),
    "queued": ("pending", "processing"),
    "active": ("processing", "active"),
    "generating": ("processing", "pending"),
    "completed": ("complete", "succeeded"),
    "error": ("failed", "cancelled"),
}


class FaultHandlers:
    """Plays faults; `closing` is set when the sandbox goes down and ends every silence."""

    def __init__(self) -> None:
        self.shutdown = asyncio.Event()

    async def create(self, request: web.Request, fault: Fault, accept: NormalResponse) -> web.StreamResponse:
        """Answer a create as `fault` wants; `accept` gives the honest answer and books it."""
        rejection = _rejected_create(request, fault)
        if rejection is not None:
            return rejection
        if fault.name == "hang":
            return await broken_responses.hang(self.shutdown)
        response = accept()
        if response.status >= 300:
            return response
        match fault.name:
            case "gateway-accepted":
                return broken_responses.gateway_page(round(fault.number(502)))
            case "hang-accepted":
                return await broken_responses.hang(self.shutdown)
            case "slow-answer":
                await self._pause(fault.number(2.0))
                return response
            case "no-id":
                return json_response({"status": "queued"})
        return await _broken_response(request, fault.name, response)

    async def status(
        self, request: web.Request, fault: Fault, normal_response: NormalResponse
    ) -> web.StreamResponse:
        """Answer a status call as `fault` wants; `tell` is the honest answer."""
        match fault.name:
            case "status-throttled":
                return error_response(
                    request, 429, "Too many requests.", broken_responses.retry_after_headers(fault)
                )
            case "status-error":
                return error_response(request, round(fault.number(500)), "Internal server error")
            case "status-gateway":
                return broken_responses.gateway_page(round(fault.number(502)))
            case "status-not-found":
                return error_response(request, 404, "The generation was not found")
            case "status-unauthorized":
                return error_response(request, 401, "Unauthorized")
            case "status-hang":
                return await broken_responses.hang(self.shutdown)
            case "status-unknown" | "status-samples" | "status-other-names":
                return _altered_status(fault, normal_response())
        return await _broken_response(request, fault.name.removeprefix("status-"), normal_response())

    async def log(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        """Answer a log call as `fault` wants."""
        if fault.name == "log-garbage":
            return broken_responses.garbage_response()
        if fault.name == "log-throttled":
            return error_response(
                request, 429, "Too many requests.", broken_responses.retry_after_headers(fault)
            )
        return error_response(request, round(fault.number(500)), "The log is not available")

    async def cdn(self, request: web.Request, fault: Fault, data: bytes) -> web.StreamResponse:
        """Answer a download as `fault` wants; `data` is the honest file."""
        return await serve_faulty_download(request, fault, data, self.shutdown)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.shutdown.wait(), seconds)
        except TimeoutError:
            return


def _rejected_create(request: web.Request, fault: Fault) -> web.Response | None:
    match fault.name:
        case "bad-request":
            return error_response(
                request, 400, fault.text("image_url must be a reachable image of 720p or more")
            )
        case "unprocessable":
            problem = {"loc": ["body", "prompt"], "msg": "prompt is too long", "type": "value_error"}
            return json_response({"detail": [problem]}, 422)
        case "unauthorized":
            return error_response(request, 401, "Unauthorized")
        case "out-of-credits":
            return error_response(request, 403, "You've run out of credits. Please top up your balance.")
        case "not-found":
            return error_response(request, 404, "Model was not found")
        case "throttled":
            return error_response(
                request, 429, "Too many requests.", broken_responses.retry_after_headers(fault)
            )
        case "quota":
            return error_response(
                request, 429, "You've reached the free-tier limit of 10 requests for the hour."
            )
        case "server-error":
            return error_response(request, 500, "Internal server error")
        case "unavailable":
            return broken_responses.gateway_page(503)
        case "gateway-lost":
            return broken_responses.gateway_page(round(fault.number(502)))
        case "cut-before":
            return broken_responses.reset_connection(request)
    return None


async def _broken_response(request: web.Request, kind: str, response: web.Response) -> web.StreamResponse:
    match kind:
        case "cut-accepted" | "reset":
            return broken_responses.reset_connection(request)
        case "cut-inside-answer" | "cut":
            return await broken_responses.cut_response(request, response)
        case "garbage":
            return broken_responses.garbage_response()
        case "html":
            return broken_responses.html_page(200, "Just a moment...")
        case "empty":
            return web.Response(status=200)
    raise AssertionError(f"no one plays {kind}")


def _altered_status(fault: Fault, response: web.Response) -> web.Response:
    body: dict[str, Any] = json.loads(response.body if isinstance(response.body, bytes) else b"{}")
    final = body["status"] in ("completed", "error")
    match fault.name:
        case "status-unknown" if not final:
            body["status"] = fault.text("reticulating")
        case "status-samples" if not final:
            body["video"], body["error"] = sample_objects(empty=fault.value == "empty")
        case "status-other-names":
            names = STATUS_ALIASES[body["status"]]
            body["status"] = names[len(str(body.get("id", body.get("generation_id")))) % len(names)]
    return json_response(body, response.status, _vendor_headers(response))


def _vendor_headers(response: web.Response) -> Mapping[str, str]:
    return {name: value for name, value in response.headers.items() if name.lower().startswith("x-")}
