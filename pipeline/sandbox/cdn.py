"""Owns the CDN: video files at their URLs, ranges, expiry, and the refusal of any key.

It runs on a port of its own, as a vendor's CDN runs on a host of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox.catalog import find_model
from pipeline.sandbox.faults.injector import Stage, Subject
from pipeline.sandbox.files import etag_of, send_file
from pipeline.sandbox.service import label_of, shape_of
from pipeline.sandbox.state import Status

if TYPE_CHECKING:
    from pipeline.sandbox.faults.handlers import Players
    from pipeline.sandbox.film import Shape, Studio
    from pipeline.sandbox.service import Vendor
    from pipeline.sandbox.state import Generation

FOLDER: Final = "/generations/sandbox/"
NUMBER: Final = re.compile(r"[0-9]{1,12}")


class Cdn:
    """Serves finished clips; `base` is its own URL, set once its port is known."""

    def __init__(self, vendor: Vendor, studio: Studio, players: Players) -> None:
        self.base = ""
        self._vendor = vendor
        self._studio = studio
        self._players = players
        self._secret = hashlib.sha256(f"sandbox/{vendor.options.seed}".encode()).digest()

    def warm(self, shape: Shape) -> None:
        self._studio.warm(shape)

    def url_of(self, generation: Generation) -> str:
        """Where the clip lies from now on; signed and bound to expire if the options say so."""
        path = f"{FOLDER}{generation.number}-{self._mark(generation)}.mp4"
        lifetime_s = self._vendor.options.url_lifetime_s
        if lifetime_s is None:
            return self.base + path
        until = f"{time.time() + self._vendor.real_s(lifetime_s):.3f}"
        signature = self._signature(path + until)
        query = f"X-Amz-Expires={lifetime_s:g}&X-Sandbox-Until={until}&X-Amz-Signature={signature}"
        return f"{self.base}{path}?{query}"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        book = self._vendor.book
        book.cdn_requests[request.method, request.path] += 1
        if "Authorization" in request.headers:
            book.leaked_keys.append(request.path)
            return web.Response(
                status=400, text="Only one auth mechanism allowed: this URL needs no Authorization."
            )
        generation = self._found(request)
        if generation is None:
            return web.Response(status=404, text="NoSuchKey")
        if not self._signed(request):
            return web.Response(status=403, text="AccessDenied: Request has expired")
        if request.method == "HEAD":
            return await self._answered(request, generation)
        generation.downloads += 1
        book.downloads += 1
        book.downloads_peak = max(book.downloads_peak, book.downloads)
        try:
            return await self._answered(request, generation)
        finally:
            book.downloads -= 1

    async def _answered(self, request: web.Request, generation: Generation) -> web.StreamResponse:
        subject = Subject(generation.id, generation.prompt, generation.correlation_id, generation.number + 1)
        fault = self._vendor.desk.pick(Stage.CDN, subject)
        data = await self._file(generation)
        if fault is not None:
            return await self._players.cdn(request, fault, data)
        return await send_file(request, data, etag_of(data), self._vendor.options.cdn_bytes_per_s)

    async def _file(self, generation: Generation) -> bytes:
        model = find_model(generation.model)
        assert model is not None  # noqa: S101
        shape = shape_of(model, generation.body, small=self._vendor.options.video == "small")
        return await self._studio.clip(shape, label_of(generation, shape))

    def _found(self, request: web.Request) -> Generation | None:
        number, _, signature = request.match_info["name"].removesuffix(".mp4").partition("-")
        generation = self._vendor.book.numbered(int(number)) if NUMBER.fullmatch(number) else None
        if generation is None:
            return None
        genuine = signature == self._mark(generation)
        return generation if genuine and generation.status is Status.COMPLETED else None

    def _signed(self, request: web.Request) -> bool:
        if self._vendor.options.url_lifetime_s is None:
            return True
        until = request.query.get("X-Sandbox-Until", "")
        given = request.query.get("X-Amz-Signature", "")
        genuine = hmac.compare_digest(given.encode(), self._signature(request.path + until).encode())
        return genuine and time.time() <= float(until)

    def _mark(self, generation: Generation) -> str:
        """Of what was asked for, too: ids are seeded, and an old URL must not find another batch's clip."""
        asked = [generation.id, generation.correlation_id, generation.body]
        return self._signature(json.dumps(asked, sort_keys=True))[:24]

    def _signature(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()
