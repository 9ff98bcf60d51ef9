"""Carries out the faults of create, status and log calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from aiohttp import web

from pipeline.sandbox.call import require_call
from pipeline.sandbox.faults import broken_responses
from pipeline.sandbox.faults.download_handlers import serve_faulty_download
from pipeline.sandbox.responses import error_response, json_response, sample_objects, status_phrase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.faults.injector import Fault
    from pipeline.sandbox.state import Generation, SandboxState

NormalResponse = Callable[[], web.Response]

KEY_PROBLEMS: Final[Mapping[str, str]] = {
    "key-disabled": "This API key is disabled.",
    "key-scope": "This API key does not have the required scope: model:video.",
    "key-limit": "The spending limit of this API key is reached.",
}
"""The messages of the 403s that concern one key; `GET /v1/key` says which of them holds."""

REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    "bad-request": (400, "image_url must be a reachable image of 720p or more"),
    "unauthorized": (401, "Unauthorized"),
    "out-of-credits": (403, "You've run out of credits. Please top up your balance."),
    "not-found": (404, "Model was not found"),
    "throttled": (429, "Too many requests."),
    "quota": (429, "You've reached the free-tier limit of 10 requests for the hour."),
    "server-error": (500, "Internal server error"),
    **{name: (403, message) for name, message in KEY_PROBLEMS.items()},
}
STATUS_REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    "status-throttled": (429, "Too many requests."),
    "status-not-found": (404, "The generation was not found"),
    "status-unauthorized": (401, "Unauthorized"),
}
STATUS_ALIASES: Final[Mapping[str, tuple[str, str]]] = {
    "waiting": ("pending", "waiting"),
    "queued": ("pending", "processing"),
    "active": ("processing", "active"),
    "generating": ("processing", "pending"),
    "completed": ("complete", "succeeded"),
    "error": ("failed", "cancelled"),
}


class FaultHandlers:
    """Answers with faults; `shutdown` is set when the sandbox stops, and ends every answer that hangs."""

    def __init__(self, state: SandboxState) -> None:
        self.shutdown = asyncio.Event()
        self._state = state

    async def create(self, request: web.Request, fault: Fault, accept: NormalResponse) -> web.StreamResponse:
        """Answer a create with `fault`; `accept` handles it as a vendor without faults would."""
        if fault.name in KEY_PROBLEMS:
            self._state.key_problems[require_call().key.id] = fault.name
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
                return _gateway_page(fault, 502, _accepted().id)
            case "error-accepted":
                status = round(fault.number(409))
                return _identified(_error(request, fault, status), fault, _accepted().id)
            case "hang-accepted":
                return await broken_responses.hang(self.shutdown)
            case "slow-answer":
                await self._pause(fault.number(2.0))
                return response
            case "no-id":
                return json_response({"status": "queued"})
            case "id-of-another":
                return self._with_id_of_another(_accepted(), response)
            case "odd-head" | "huge-header":
                return broken_responses.with_odd_head(request, response, fault)
        return await _broken_response(request, fault.name, response)

    async def status(
        self, request: web.Request, fault: Fault, normal_response: NormalResponse
    ) -> web.StreamResponse:
        """Answer a status call with `fault`; `normal_response` makes the true answer."""
        if fault.name in STATUS_REFUSALS:
            status, message = STATUS_REFUSALS[fault.name]
            return error_response(request, status, message, _retry_after(fault), fault.shape)
        match fault.name:
            case "status-error":
                return _error(request, fault, round(fault.number(500)))
            case "status-gateway":
                return _gateway_page(fault, 502, request.query["generation_id"])
            case "status-hang":
                return await broken_responses.hang(self.shutdown)
            case "status-unknown" | "status-samples" | "status-other-names" | "status-flap":
                return _altered_status(fault, normal_response())
            case "status-odd-head" | "status-huge-header":
                return broken_responses.with_odd_head(request, normal_response(), fault)
        return await _broken_response(request, fault.name.removeprefix("status-"), normal_response())

    async def log(
        self, request: web.Request, fault: Fault, normal_response: NormalResponse
    ) -> web.StreamResponse:
        """Answer a log call with `fault`; `normal_response` makes the true answer."""
        match fault.name:
            case "log-garbage":
                return broken_responses.garbage_response()
            case "log-throttled":
                return error_response(request, 429, "Too many requests.", _retry_after(fault), fault.shape)
            case "log-forbidden":
                return error_response(request, 403, "This key may not read the log", shape=fault.shape)
            case "log-hang":
                return await broken_responses.hang(self.shutdown)
            case "log-odd-head" | "log-huge-header":
                return broken_responses.with_odd_head(request, normal_response(), fault)
        return _error(request, fault, round(fault.number(500)))

    async def cdn(self, request: web.Request, fault: Fault, data: bytes) -> web.StreamResponse:
        """Answer a download with `fault`; `data` is the true file."""
        return await serve_faulty_download(request, fault, data, self.shutdown)

    def _with_id_of_another(self, generation: Generation, response: web.Response) -> web.Response:
        body = json.loads(response.body if isinstance(response.body, bytes) else b"{}")
        other_id = self._state.neighbour(generation).id
        body["id"] = other_id
        return json_response(body, response.status, {"x-inference-id": other_id})

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.shutdown.wait(), seconds)
        except TimeoutError:
            return


def _accepted() -> Generation:
    """The generation that the current create has made."""
    accepted = require_call().accepted
    assert accepted is not None  # noqa: S101  # every other answer was returned before
    return accepted


def _rejected_create(request: web.Request, fault: Fault) -> web.Response | None:
    """The answer to a create that is not accepted, or None for a fault that comes after the acceptance."""
    if fault.name in REFUSALS:
        status, message = REFUSALS[fault.name]
        message = fault.text(message) if fault.name == "bad-request" else message
        return error_response(request, status, message, _retry_after(fault), fault.shape)
    match fault.name:
        case "unprocessable":
            problem = {"loc": ["body", "prompt"], "msg": "prompt is too long", "type": "value_error"}
            return json_response({"detail": [problem]}, 422)
        case "refused":
            return _error(request, fault, round(fault.number(409)))
        case "firewall":
            return _firewall_response(request, fault)
        case "unavailable":
            return broken_responses.gateway_page(503)
        case "gateway-lost":
            return _gateway_page(fault, 502, str(uuid4()))
        case "cut-before":
            return broken_responses.reset_connection(request)
    return None


def _firewall_response(request: web.Request, fault: Fault) -> web.Response:
    if fault.value == "json":
        return error_response(request, 403, "Request blocked", shape=fault.shape)
    return broken_responses.html_page(403, "Request blocked")


def _error(request: web.Request, fault: Fault, status: int) -> web.Response:
    message = status_phrase(status)
    return error_response(request, status, message, shape=fault.shape)


def _gateway_page(fault: Fault, status: int, inference_id: str) -> web.Response:
    page = broken_responses.gateway_page(round(fault.number(status)))
    return _identified(page, fault, inference_id)


def _identified(response: web.Response, fault: Fault, inference_id: str) -> web.Response:
    if fault.with_inference_id:
        response.headers["x-inference-id"] = inference_id
    return response


def _retry_after(fault: Fault) -> dict[str, str]:
    return broken_responses.retry_after_headers(fault) if fault.name.endswith("throttled") else {}


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
    raise AssertionError(f"no handler for {kind}")


def _altered_status(fault: Fault, response: web.Response) -> web.Response:
    body: dict[str, Any] = json.loads(response.body if isinstance(response.body, bytes) else b"{}")
    final = body["status"] in ("completed", "error")
    match fault.name:
        case "status-unknown" if not final:
            body["status"] = fault.text("reticulating")
        case "status-samples" if not final:
            body["video"], body["error"] = sample_objects(empty=fault.value == "empty")
        case "status-flap":
            error = {"name": "internal_error", "message": "The provider lost this generation."}
            body |= {"status": "error", "video": None, "error": error, "meta": None}
            return json_response(
                body, response.status, {"x-inference-id": response.headers["x-inference-id"]}
            )
        case "status-other-names":
            names = STATUS_ALIASES[body["status"]]
            body["status"] = names[len(str(body.get("id", body.get("generation_id")))) % len(names)]
    return json_response(body, response.status, _vendor_headers(response))


def _vendor_headers(response: web.Response) -> Mapping[str, str]:
    return {name: value for name, value in response.headers.items() if name.lower().startswith("x-")}
