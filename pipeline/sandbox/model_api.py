"""The public calls about models: list, card, prices, deprecations, metrics, and each model's OpenAPI."""

from __future__ import annotations

import hashlib
import math
from datetime import date
from typing import TYPE_CHECKING, Any, Final, get_args

from aiohttp import web

from pipeline.sandbox import clock
from pipeline.sandbox.catalog import MODELS, find_model
from pipeline.sandbox.faults.injector import FaultPoint, RequestContext
from pipeline.sandbox.lifecycle import RetirementStatus
from pipeline.sandbox.openapi import GENERATIONS_PATH, openapi_document
from pipeline.sandbox.responses import JSON_CONTENT_TYPE, error_response, json_response
from pipeline.sandbox.state import Status

if TYPE_CHECKING:
    from pipeline.sandbox.catalog import Model
    from pipeline.sandbox.service import VendorService

METRICS_WINDOW_S: Final = 300.0
PERCENTILES: Final = (50, 90, 95, 99)


class ModelApi:
    """The handlers of everything that anybody may read about models, without a key."""

    def __init__(self, service: VendorService) -> None:
        self._service = service

    async def models(self, request: web.Request) -> web.Response:
        wanted = request.query.get("id")
        include = set(request.query.get("include", "").split(","))
        found = [one for one in MODELS if wanted is None or wanted == one.id or wanted in one.aliases]
        listed = [one for one in found if self._is_listed(one)]
        entries = [self._model_entry(request, one, include) for one in listed]
        return self._respond(request, {"object": "list", "data": entries})

    async def card(self, request: web.Request) -> web.Response:
        """One model, also one that is no longer listed."""
        model = find_model(request.match_info["id"])
        if model is None:
            return error_response(request, 404, "Model was not found")
        return self._respond(request, self._model_entry(request, model, {"pricing", "capabilities"}))

    async def docs(self, request: web.Request) -> web.Response:
        model = find_model(request.query.get("model", ""))
        if model is None:
            return error_response(request, 404, "Model was not found")
        return self._respond(request, openapi_document(model, _base_url(request)))

    async def deprecations(self, request: web.Request) -> web.Response:
        status, since = request.query.get("status"), request.query.get("since", "")
        if status is not None and status not in get_args(RetirementStatus):
            return error_response(
                request, 400, f"status must be one of: {', '.join(get_args(RetirementStatus))}"
            )
        try:
            first = date.fromisoformat(since) if since else date.min
        except ValueError:
            return error_response(request, 400, "since must be a date like 2026-10-01")
        entries = [
            one.entry(find_model(one.model))
            for one in self._service.retired.values()
            if status in (None, one.status) and date.fromisoformat(one.deprecated_on) >= first
        ]
        # `generated_at` is left out of the ETag: the same entries have the same tag, whenever they are read.
        made = {"generated_at": self._service.clock.timestamp(clock.now())}
        response = self._respond(request, {"object": "list", "data": entries}, made)
        response.headers["Cache-Control"] = "public, max-age=300"
        return response

    async def metrics(self, _request: web.Request) -> web.Response:
        """Percentiles of how long the generations took that completed within the last five minutes."""
        since = clock.now() - METRICS_WINDOW_S
        durations: dict[str, list[float]] = {}
        for one in self._service.state.generations:
            if one.status is Status.COMPLETED and one.finishes_at >= since:
                durations.setdefault(one.model, []).append(one.render_s * self._service.options.speed * 1000)
        data = [
            {"id": model, "duration_ms": {f"p{share}": _percentile(found, share) for share in PERCENTILES}}
            for model, found in durations.items()
        ]
        return json_response({"object": "list", "window_seconds": METRICS_WINDOW_S, "data": data})

    def _is_listed(self, model: Model) -> bool:
        retirement = self._service.retired.get(model.id)
        return retirement is None or retirement.is_listed

    def _respond(
        self, request: web.Request, body: dict[str, Any], untagged: dict[str, Any] | None = None
    ) -> web.Response:
        """`body` with a weak ETag, 304 to a client that has it, or what a fault of the catalogue wants."""
        fault = self._service.injector.pick(FaultPoint.CATALOG, RequestContext(request.path, request.path))
        if fault is not None:
            return error_response(request, round(fault.number(500)), "The catalogue is not available")
        tagged = json_response(body)
        data = tagged.body if isinstance(tagged.body, bytes) else b""
        etag = f'W/"{hashlib.sha256(data).hexdigest()[:24]}"'
        if etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers={"ETag": etag, "Content-Type": JSON_CONTENT_TYPE})
        return json_response({**body, **(untagged or {})}, headers={"ETag": etag})

    def _model_entry(self, request: web.Request, model: Model, include: set[str]) -> dict[str, Any]:
        docs = f"{_base_url(request)}/docs-json?model={model.id}&endpoint={GENERATIONS_PATH}"
        entry: dict[str, Any] = {
            "id": model.id,
            "object": "model",
            "type": "video",
            "aliases": list(model.aliases),
            "info": {"name": model.title, "developer": model.id.partition("/")[0], "docsJson": docs},
            "endpoints": [GENERATIONS_PATH],
        }
        if "pricing" in include:
            entry["pricing"] = self._pricing(model)
        if "capabilities" in include:
            entry["capabilities"] = ["image-to-video" if model.requires("image_url") else "video"]
        return entry

    def _pricing(self, model: Model) -> dict[str, Any]:
        pricing: dict[str, Any] = {"kind": model.pricing, "currency": "USD"}
        match model.pricing:
            case "fixed":
                unit = {"name": "video", "measure": "generation", "price": model.fixed_usd, "per": 1}
                return {**pricing, "units": [unit]}
            case "variants":
                options = self._service.options
                prices = {"720p": options.price_720p_usd, "1080p": options.price_1080p_usd}
                variants = [
                    {"when": {"resolution": name}, "price": price, "unit": "second", "per": 1}
                    for name, price in prices.items()
                ]
                return {**pricing, "dimensions": ["resolution"], "variants": variants}
            case "variable":
                return pricing


def _base_url(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


def _percentile(values: list[float], share: int) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered), math.ceil(len(ordered) * share / 100)) - 1], 1)
