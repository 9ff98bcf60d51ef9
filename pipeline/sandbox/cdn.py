"""The CDN: video files at their URLs, ranges, expiry, and 400 for a request that carries a key.

It has a port of its own, as a vendor's CDN has a host of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox import clock
from pipeline.sandbox.catalog import find_model
from pipeline.sandbox.faults.injector import FaultPoint
from pipeline.sandbox.file_response import etag_of, send_file
from pipeline.sandbox.service import clip_count, clip_label, clip_shape, context_of
from pipeline.sandbox.state import Status

if TYPE_CHECKING:
    from pipeline.sandbox.faults.handlers import FaultHandlers
    from pipeline.sandbox.service import VendorService
    from pipeline.sandbox.state import Generation
    from pipeline.sandbox.video import ClipRenderer

CLIP_PATH_PREFIX: Final = "/generations/sandbox/"
NUMBER_PATTERN: Final = re.compile(r"([0-9]{1,12})(?:\.([1-9]))?")


class Cdn:
    """Serves finished clips; `base_url` is set once its port is known."""

    def __init__(self, service: VendorService, renderer: ClipRenderer, handlers: FaultHandlers) -> None:
        self.base_url = ""
        self._service = service
        self._renderer = renderer
        self._handlers = handlers
        self._secret = hashlib.sha256(f"sandbox/{service.options.seed}".encode()).digest()

    def url_of(self, generation: Generation, index: int = 0) -> str:
        """The URL of the generation's clip of that index; signed, and it expires, if the options say so."""
        clip = f"{generation.number}.{index}" if index else str(generation.number)
        path = f"{CLIP_PATH_PREFIX}{clip}-{self._clip_token(generation)}.mp4"
        lifetime_s = self._service.options.url_lifetime_s
        if lifetime_s is None:
            return self.base_url + path
        until = f"{clock.now() + self._service.to_real_s(lifetime_s):.3f}"
        signature = self._sign(path + until)
        query = f"X-Amz-Expires={lifetime_s:g}&X-Sandbox-Until={until}&X-Amz-Signature={signature}"
        return f"{self.base_url}{path}?{query}"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        state = self._service.state
        state.cdn_requests[request.method, request.path] += 1
        if "Authorization" in request.headers:
            state.leaked_keys.append(request.path)
            return web.Response(
                status=400, text="Only one auth mechanism allowed: this URL needs no Authorization."
            )
        generation, index = self._find_clip(request)
        if generation is None:
            return web.Response(status=404, text="NoSuchKey")
        if not self._url_is_valid(request):
            return web.Response(status=403, text="AccessDenied: Request has expired")
        if request.method == "HEAD":
            return await self._send_clip(request, generation, index)
        generation.downloads += 1
        state.active_downloads += 1
        state.peak_downloads = max(state.peak_downloads, state.active_downloads)
        try:
            return await self._send_clip(request, generation, index)
        finally:
            state.active_downloads -= 1

    async def _send_clip(
        self, request: web.Request, generation: Generation, index: int
    ) -> web.StreamResponse:
        fault = self._service.injector.pick(FaultPoint.CDN, context_of(generation))
        data = await self._clip_bytes(generation, index)
        if fault is not None:
            return await self._handlers.cdn(request, fault, data)
        return await send_file(request, data, etag_of(data), self._service.options.cdn_bytes_per_s)

    async def _clip_bytes(self, generation: Generation, index: int) -> bytes:
        model = find_model(generation.model)
        assert model is not None  # noqa: S101
        shape = clip_shape(model, generation.body, small=self._service.options.video == "small")
        return await self._renderer.clip(shape, clip_label(generation, shape, index))

    def _find_clip(self, request: web.Request) -> tuple[Generation | None, int]:
        clip, _, signature = request.match_info["name"].removesuffix(".mp4").partition("-")
        match = NUMBER_PATTERN.fullmatch(clip)
        generation = self._service.state.find_by_number(int(match[1])) if match else None
        if match is None or generation is None or signature != self._clip_token(generation):
            return None, 0
        index = int(match[2] or 0)
        exists = generation.status is Status.COMPLETED and index < clip_count(generation.faults)
        return (generation if exists else None), index

    def _url_is_valid(self, request: web.Request) -> bool:
        if self._service.options.url_lifetime_s is None:
            return True
        until = request.query.get("X-Sandbox-Until", "")
        given = request.query.get("X-Amz-Signature", "")
        genuine = hmac.compare_digest(given.encode(), self._sign(request.path + until).encode())
        return genuine and clock.now() <= float(until)

    def _clip_token(self, generation: Generation) -> str:
        """Covers the request, too: ids are seeded, and an old URL must not find another batch's clip."""
        signed_fields = [generation.id, generation.correlation_id, generation.body]
        return self._sign(json.dumps(signed_fields, sort_keys=True))[:24]

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()
