"""Owns the two calls about a generation, create and status, as an honest vendor answers them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from pipeline.sandbox.answers import generation_body, generation_headers, refusal, reply
from pipeline.sandbox.catalog import find_model
from pipeline.sandbox.faults.injector import Stage, Subject
from pipeline.sandbox.middleware import correlation_id
from pipeline.sandbox.service import shape_of
from pipeline.sandbox.state import Status

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.catalog import Model
    from pipeline.sandbox.cdn import Cdn
    from pipeline.sandbox.faults.handlers import Players
    from pipeline.sandbox.service import Vendor
    from pipeline.sandbox.state import Generation

PATH = "/v2/video/generations"


class Generations:
    """The handlers of `POST` and `GET /v2/video/generations`."""

    def __init__(self, vendor: Vendor, cdn: Cdn, players: Players) -> None:
        self._vendor = vendor
        self._cdn = cdn
        self._players = players

    async def create(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            return self._refuse(request, 400, "The request's body is not valid JSON.")
        if not isinstance(body, dict):
            return self._refuse(request, 400, "The request's body must be a JSON object.")
        subject = self._vendor.subject(body, correlation_id(request))
        fault = self._vendor.desk.pick(Stage.CREATE, subject)
        if fault is None:
            return self._decided(request, body, subject)

        def accept() -> web.Response:
            return self._decided(request, body, subject)

        return await self._players.create(request, fault, accept)

    async def status(self, request: web.Request) -> web.StreamResponse:
        wanted = request.query.get("generation_id")
        if not wanted:
            return refusal(request, 400, "generation_id is required")
        generation = self._vendor.find(wanted)
        if generation is None:
            return refusal(request, 404, f"Generation {wanted} was not found")
        generation.polls += 1
        subject = Subject(generation.id, generation.prompt, generation.correlation_id, generation.number + 1)
        fault = self._vendor.desk.pick(Stage.STATUS, subject)
        if fault is None:
            return self._told(generation)
        return await self._players.status(request, fault, lambda: self._told(generation))

    def _told(self, generation: Generation) -> web.Response:
        status = generation.status_at(time.time())
        url = self._cdn.url_of(generation) if status is Status.COMPLETED else None
        if generation.fault("completed-without-url") is not None:
            url = None
        body = generation_body(generation, status, url)
        return reply(body, 200, generation_headers(generation, status))

    def _decided(self, request: web.Request, body: dict[str, Any], subject: Subject) -> web.Response:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            return self._refuse(request, 400, "model is required and must be a string")
        model = find_model(name)
        if model is None:
            return self._refuse(request, 404, f"Model {name} was not found")
        problems = model.problems(body)
        if problems:
            return self._refuse(request, 400, "; ".join(problems))
        limited = self._limited(request, model, body)
        return limited if limited is not None else self._accepted(request, model, body, subject)

    def _limited(self, request: web.Request, model: Model, body: dict[str, Any]) -> web.Response | None:
        book, options = self._vendor.book, self._vendor.options
        left_usd = options.balance_usd - book.charged_usd - book.held_usd
        if left_usd + 1e-9 < self._vendor.price_usd(model, body):
            return self._refuse(request, 403, "You've run out of credits. Please top up your balance.")
        if options.concurrency_limit is not None and book.in_flight >= options.concurrency_limit:
            return self._refuse(request, 429, "Too many generations at once for this account.")
        return None

    def _accepted(
        self, request: web.Request, model: Model, body: dict[str, Any], subject: Subject
    ) -> web.Response:
        try:
            generation = self._vendor.accept(model, body, subject)
        except OSError as error:
            return self._refuse(request, 503, f"The sandbox cannot write its journal: {error.strerror}")
        self._cdn.warm(shape_of(model, body, small=self._vendor.options.video == "small"))
        answer = generation_body(generation, Status.QUEUED, None)
        return reply(
            answer, self._vendor.options.create_status, generation_headers(generation, Status.QUEUED)
        )

    def _refuse(self, request: web.Request, status: int, message: str) -> web.Response:
        self._vendor.book.rejected[status] += 1
        return refusal(request, status, message)
