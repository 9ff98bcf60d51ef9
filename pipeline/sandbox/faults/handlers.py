"""Carries out the faults of create, status and log calls: one function each way to misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pipeline.sandbox.answers import refusal, reply, sample_objects
from pipeline.sandbox.faults import broken_responses
from pipeline.sandbox.faults.download import play_download

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.faults.injector import Fault

Honest = Callable[[], web.Response]

OTHER_NAMES = {
    "waiting": ("pending", "waiting"),
    "queued": ("pending", "processing"),
    "active": ("processing", "active"),
    "generating": ("processing", "pending"),
    "completed": ("complete", "succeeded"),
    "error": ("failed", "cancelled"),
}


class Players:
    """Plays faults; `closing` is set when the sandbox goes down and ends every silence."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()

    async def create(self, request: web.Request, fault: Fault, accept: Honest) -> web.StreamResponse:
        """Answer a create as `fault` wants; `accept` gives the honest answer and books it."""
        refused = _refused_create(request, fault)
        if refused is not None:
            return refused
        if fault.name == "hang":
            return await broken_responses.silence(self.closing)
        honest = accept()
        if honest.status >= 300:
            return honest
        match fault.name:
            case "gateway-accepted":
                return broken_responses.gateway(round(fault.number(502)))
            case "hang-accepted":
                return await broken_responses.silence(self.closing)
            case "slow-answer":
                await self._pause(fault.number(2.0))
                return honest
            case "no-id":
                return reply({"status": "queued"})
        return await _spoiled(request, fault.name, honest)

    async def status(self, request: web.Request, fault: Fault, tell: Honest) -> web.StreamResponse:
        """Answer a status call as `fault` wants; `tell` is the honest answer."""
        match fault.name:
            case "status-throttled":
                return refusal(request, 429, "Too many requests.", broken_responses.retry_after(fault))
            case "status-error":
                return refusal(request, round(fault.number(500)), "Internal server error")
            case "status-gateway":
                return broken_responses.gateway(round(fault.number(502)))
            case "status-not-found":
                return refusal(request, 404, "The generation was not found")
            case "status-unauthorized":
                return refusal(request, 401, "Unauthorized")
            case "status-hang":
                return await broken_responses.silence(self.closing)
            case "status-unknown" | "status-samples" | "status-other-names":
                return _reworded(fault, tell())
        return await _spoiled(request, fault.name.removeprefix("status-"), tell())

    async def log(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        """Answer a log call as `fault` wants."""
        if fault.name == "log-garbage":
            return broken_responses.garbage()
        if fault.name == "log-throttled":
            return refusal(request, 429, "Too many requests.", broken_responses.retry_after(fault))
        return refusal(request, round(fault.number(500)), "The log is not available")

    async def cdn(self, request: web.Request, fault: Fault, data: bytes) -> web.StreamResponse:
        """Answer a download as `fault` wants; `data` is the honest file."""
        return await play_download(request, fault, data, self.closing)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.closing.wait(), seconds)
        except TimeoutError:
            return


def _refused_create(request: web.Request, fault: Fault) -> web.Response | None:
    match fault.name:
        case "bad-request":
            return refusal(request, 400, fault.text("image_url must be a reachable image of 720p or more"))
        case "unprocessable":
            problem = {"loc": ["body", "prompt"], "msg": "prompt is too long", "type": "value_error"}
            return reply({"detail": [problem]}, 422)
        case "unauthorized":
            return refusal(request, 401, "Unauthorized")
        case "out-of-credits":
            return refusal(request, 403, "You've run out of credits. Please top up your balance.")
        case "not-found":
            return refusal(request, 404, "Model was not found")
        case "throttled":
            return refusal(request, 429, "Too many requests.", broken_responses.retry_after(fault))
        case "quota":
            return refusal(request, 429, "You've reached the free-tier limit of 10 requests for the hour.")
        case "server-error":
            return refusal(request, 500, "Internal server error")
        case "unavailable":
            return broken_responses.gateway(503)
        case "gateway-lost":
            return broken_responses.gateway(round(fault.number(502)))
        case "cut-before":
            return broken_responses.reset(request)
    return None


async def _spoiled(request: web.Request, way: str, honest: web.Response) -> web.StreamResponse:
    match way:
        case "cut-accepted" | "reset":
            return broken_responses.reset(request)
        case "cut-inside-answer" | "cut":
            return await broken_responses.cut(request, honest)
        case "garbage":
            return broken_responses.garbage()
        case "html":
            return broken_responses.html(200, "Just a moment...")
        case "empty":
            return web.Response(status=200)
    raise AssertionError(f"no one plays {way}")


def _reworded(fault: Fault, honest: web.Response) -> web.Response:
    body: dict[str, Any] = json.loads(honest.body if isinstance(honest.body, bytes) else b"{}")
    final = body["status"] in ("completed", "error")
    match fault.name:
        case "status-unknown" if not final:
            body["status"] = fault.text("reticulating")
        case "status-samples" if not final:
            body["video"], body["error"] = sample_objects(empty=fault.value == "empty")
        case "status-other-names":
            names = OTHER_NAMES[body["status"]]
            body["status"] = names[len(str(body.get("id", body.get("generation_id")))) % len(names)]
    return reply(body, honest.status, _own_headers(honest))


def _own_headers(response: web.Response) -> Mapping[str, str]:
    return {name: value for name, value in response.headers.items() if name.lower().startswith("x-")}
