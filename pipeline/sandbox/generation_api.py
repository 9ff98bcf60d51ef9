"""The two calls about a generation, create and status, as a vendor without faults answers them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from pipeline.sandbox import clock
from pipeline.sandbox.call import require_call
from pipeline.sandbox.catalog import find_model
from pipeline.sandbox.faults.handlers import KEY_PROBLEMS
from pipeline.sandbox.faults.injector import FaultPoint, RequestContext
from pipeline.sandbox.faults.status_changes import apply_generation_faults
from pipeline.sandbox.middleware import correlation_id
from pipeline.sandbox.pictures import PictureRefusedError, with_small_pictures
from pipeline.sandbox.responses import error_response, generation_body, generation_headers, json_response
from pipeline.sandbox.service import clip_count, context_of
from pipeline.sandbox.state import FINAL_STATUSES, RefusedCreate, Status

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.catalog import Model
    from pipeline.sandbox.cdn import Cdn
    from pipeline.sandbox.faults.handlers import FaultHandlers
    from pipeline.sandbox.service import VendorService
    from pipeline.sandbox.state import Generation

UNLOGGED_STATUSES: Final = frozenset({401, 429})
"""Refusals that come before a request counts as an inference."""


class GenerationApi:
    """The handlers of `POST` and `GET /v2/video/generations`."""

    def __init__(self, service: VendorService, cdn: Cdn, handlers: FaultHandlers) -> None:
        self._service = service
        self._cdn = cdn
        self._handlers = handlers

    async def create(self, request: web.Request) -> web.StreamResponse:
        return self._log_refusal(request, await self._create(request))

    async def _create(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            return self._reject(request, 400, "The request's body is not valid JSON.")
        if not isinstance(body, dict):
            return self._reject(request, 400, "The request's body must be a JSON object.")
        try:
            fetches_links = self._service.options.fetch_images
            body = await with_small_pictures(body, fetches_links=fetches_links)
        except PictureRefusedError as error:
            return self._reject(request, 400, str(error))
        name = str(body.get("model") or "unknown")
        model = find_model(name)
        require_call().model = model.id if model is not None else name
        context = self._service.create_context(body, correlation_id(request))
        fault = self._service.injector.pick(FaultPoint.CREATE, context)
        if fault is None:
            return self._handle_create(request, body, context)
        return await self._handlers.create(
            request, fault, lambda: self._handle_create(request, body, context)
        )

    async def status(self, request: web.Request) -> web.StreamResponse:
        generation_id = request.query.get("generation_id")
        if not generation_id:
            return error_response(request, 400, "generation_id is required")
        generation = self._service.find(generation_id)
        if generation is None:
            return error_response(request, 404, f"Generation {generation_id} was not found")
        generation.polls += 1
        fault = self._service.injector.pick(FaultPoint.STATUS, context_of(generation))
        if fault is None:
            return self._status_response(generation)
        if fault.name == "status-other-id":
            return self._status_response(self._service.state.neighbour(generation))
        return await self._handlers.status(request, fault, lambda: self._status_response(generation))

    def _status_response(self, generation: Generation) -> web.Response:
        status = generation.status_at(clock.now())
        generation.final_polls += status in FINAL_STATUSES
        count = clip_count(generation.faults)
        urls = [self._cdn.url_of(generation, index) for index in range(count)]
        true_url = None if status is not Status.COMPLETED else urls[0] if count == 1 else urls
        status, url = apply_generation_faults(generation, status, true_url)
        body = generation_body(generation, status, url)
        return json_response(body, 200, generation_headers(generation, status))

    def _handle_create(
        self, request: web.Request, body: dict[str, Any], context: RequestContext
    ) -> web.Response:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            return self._reject(request, 400, "model is required and must be a string")
        model = find_model(name)
        retirement = self._service.retired.get(model.id if model is not None else name)
        if model is None or (retirement is not None and retirement.status == "withdrawn"):
            return self._reject(request, 404, f"Model {name} was not found")
        problems = model.validation_errors(body)
        if problems:
            return self._reject(request, 400, "; ".join(problems))
        limited = self._limit_rejection(request, self._service.price_usd(model, body))
        return limited if limited is not None else self._accept(request, model, body, context)

    def _limit_rejection(self, request: web.Request, price_usd: float) -> web.Response | None:
        state, options = self._service.state, self._service.options
        problem = self._service.key_problem(require_call().key, price_usd)
        if problem is not None:
            return self._reject(request, 403, KEY_PROBLEMS[problem])
        left_usd = options.balance_usd - state.charged_usd - state.reserved_usd
        if left_usd + 1e-9 < price_usd:
            return self._reject(request, 403, "You've run out of credits. Please top up your balance.")
        if options.concurrency_limit is not None and state.in_flight >= options.concurrency_limit:
            return self._reject(request, 429, "Too many generations at once for this account.")
        return None

    def _accept(
        self, request: web.Request, model: Model, body: dict[str, Any], context: RequestContext
    ) -> web.Response:
        call = require_call()
        try:
            generation = self._service.accept(model, body, context, call.key.id)
        except OSError as error:
            return self._reject(request, 503, f"The sandbox cannot write its journal: {error.strerror}")
        call.accepted = generation
        call.request_id = generation.request_id
        answer = generation_body(generation, Status.QUEUED, None)
        return json_response(
            answer, self._service.options.create_status, generation_headers(generation, Status.QUEUED)
        )

    def _reject(self, request: web.Request, status: int, message: str) -> web.Response:
        self._service.state.rejected[status] += 1
        return error_response(request, status, message)

    def _log_refusal(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """Give a create that the API itself refused its row in the log, and an id that leads nowhere.

        A gateway's page and an answer that breaks off come from in front of the API, and leave no row,
        unless the answer already has an inference id.
        """
        call = require_call()
        is_refusal = response.status >= 400 and response.status not in UNLOGGED_STATUSES
        announced = response.headers.get("x-inference-id", "")
        if not is_refusal or call.accepted is not None or response.prepared:
            return response
        if announced or response.content_type.endswith("json"):
            inference_id = announced or str(uuid4())
            response.headers["x-inference-id"] = inference_id
            name, now = correlation_id(request), clock.now()
            refused = RefusedCreate(inference_id, name, call.model, call.request_id, now, call.key.id)
            self._service.state.refused_creates.append(refused)
        return response
