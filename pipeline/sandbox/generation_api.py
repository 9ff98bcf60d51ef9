"""Owns the two calls about a generation, create and status, as an honest vendor answers them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from pipeline.sandbox.catalog import find_model
from pipeline.sandbox.faults.injector import FaultPoint, RequestContext
from pipeline.sandbox.middleware import correlation_id
from pipeline.sandbox.responses import error_response, generation_body, generation_headers, json_response
from pipeline.sandbox.service import clip_shape
from pipeline.sandbox.state import Status

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.catalog import Model
    from pipeline.sandbox.cdn import Cdn
    from pipeline.sandbox.faults.handlers import FaultHandlers
    from pipeline.sandbox.service import VendorService
    from pipeline.sandbox.state import Generation

GENERATIONS_PATH = "/v2/video/generations"


class GenerationApi:
    """The handlers of `POST` and `GET /v2/video/generations`."""

    def __init__(self, service: VendorService, cdn: Cdn, handlers: FaultHandlers) -> None:
        self._service = service
        self._cdn = cdn
        self._handlers = handlers

    async def create(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            return self._reject(request, 400, "The request's body is not valid JSON.")
        if not isinstance(body, dict):
            return self._reject(request, 400, "The request's body must be a JSON object.")
        context = self._service.create_context(body, correlation_id(request))
        fault = self._service.injector.pick(FaultPoint.CREATE, context)
        if fault is None:
            return self._handle_create(request, body, context)

        def accept() -> web.Response:
            return self._handle_create(request, body, context)

        return await self._handlers.create(request, fault, accept)

    async def status(self, request: web.Request) -> web.StreamResponse:
        generation_id = request.query.get("generation_id")
        if not generation_id:
            return error_response(request, 400, "generation_id is required")
        generation = self._service.find(generation_id)
        if generation is None:
            return error_response(request, 404, f"Generation {generation_id} was not found")
        generation.polls += 1
        context = RequestContext(
            generation.id, generation.prompt, generation.correlation_id, generation.number + 1
        )
        fault = self._service.injector.pick(FaultPoint.STATUS, context)
        if fault is None:
            return self._status_response(generation)
        return await self._handlers.status(request, fault, lambda: self._status_response(generation))

    def _status_response(self, generation: Generation) -> web.Response:
        status = generation.status_at(time.time())
        url = self._cdn.url_of(generation) if status is Status.COMPLETED else None
        if generation.find_fault("completed-without-url") is not None:
            url = None
        body = generation_body(generation, status, url)
        return json_response(body, 200, generation_headers(generation, status))

    def _handle_create(
        self, request: web.Request, body: dict[str, Any], context: RequestContext
    ) -> web.Response:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            return self._reject(request, 400, "model is required and must be a string")
        model = find_model(name)
        if model is None:
            return self._reject(request, 404, f"Model {name} was not found")
        problems = model.validation_errors(body)
        if problems:
            return self._reject(request, 400, "; ".join(problems))
        limited = self._limit_rejection(request, model, body)
        return limited if limited is not None else self._accept(request, model, body, context)

    def _limit_rejection(
        self, request: web.Request, model: Model, body: dict[str, Any]
    ) -> web.Response | None:
        state, options = self._service.state, self._service.options
        left_usd = options.balance_usd - state.charged_usd - state.reserved_usd
        if left_usd + 1e-9 < self._service.price_usd(model, body):
            return self._reject(request, 403, "You've run out of credits. Please top up your balance.")
        if options.concurrency_limit is not None and state.in_flight >= options.concurrency_limit:
            return self._reject(request, 429, "Too many generations at once for this account.")
        return None

    def _accept(
        self, request: web.Request, model: Model, body: dict[str, Any], context: RequestContext
    ) -> web.Response:
        try:
            generation = self._service.accept(model, body, context)
        except OSError as error:
            return self._reject(request, 503, f"The sandbox cannot write its journal: {error.strerror}")
        self._cdn.prewarm(clip_shape(model, body, small=self._service.options.video == "small"))
        answer = generation_body(generation, Status.QUEUED, None)
        return json_response(
            answer, self._service.options.create_status, generation_headers(generation, Status.QUEUED)
        )

    def _reject(self, request: web.Request, status: int, message: str) -> web.Response:
        self._service.state.rejected[status] += 1
        return error_response(request, status, message)
