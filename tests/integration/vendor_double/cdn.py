"""The double's CDN: films on a port of its own, under URLs that may expire, for anyone without a key."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from math import inf
from typing import TYPE_CHECKING

from tests.integration.vendor_double.http_server import Exchange, HttpServer, Request
from tests.integration.vendor_double.videos import make_video

if TYPE_CHECKING:
    from tests.integration.vendor_double.vendor import VendorDouble, VendorGeneration

_PATH = re.compile(r"/films/(\d+)/(\d+)\.mp4")
_RANGE = re.compile(r"bytes=(\d+)-")


class Cdn:
    """Serves the films of what the double made; counts how many it serves at once."""

    def __init__(self, vendor: VendorDouble) -> None:
        self._vendor = vendor
        self._issued: list[tuple[int, float]] = []
        self.server = HttpServer(self._answer)
        self.url_lifetime_s = inf
        self.bytes_per_s = inf
        self.padding = 0
        self.signature = ""
        self.requests: list[Request] = []
        self.requests_with_key: list[Request] = []
        self.active_requests = 0
        self.peak_requests = 0

    def issue_url(self, generation: VendorGeneration) -> str:
        """Hand out a fresh URL; it is good from now on for `url_life_s`."""
        self._issued.append((generation.number, time.time()))
        token = len(self._issued) - 1
        signature = self.signature or f"X-Amz-Signature=s3cr3t{token}"
        return f"{self.server.url}/films/{generation.number}/{token}.mp4?{signature}"

    def video_of(self, generation: VendorGeneration) -> bytes:
        return generation.script.video or make_video(generation.prompt, self.padding)

    @staticmethod
    def etag(whole: bytes) -> str:
        return f'"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}"'

    async def _answer(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        if "authorization" in exchange.request.headers:
            self.requests_with_key.append(exchange.request)
            await exchange.send(400, b"Only one auth mechanism allowed")
            return
        self.active_requests += 1
        self.peak_requests = max(self.peak_requests, self.active_requests)
        try:
            await self._serve_video(exchange)
        finally:
            self.active_requests -= 1

    async def _serve_video(self, exchange: Exchange) -> None:
        match = _PATH.fullmatch(exchange.request.path)
        if match is None:
            await exchange.send(404, b"no such film")
            return
        made, minted_at = self._vendor.generations[int(match[1])], self._issued[int(match[2])][1]
        if made.script.cdn:
            await made.script.cdn.pop(0)(exchange)
        elif time.time() - minted_at > self.url_lifetime_s:
            await exchange.send(403, b"<Error><Code>AccessDenied</Code></Error>")
        else:
            await self._send_file(exchange, self.video_of(made))

    async def _send_file(self, exchange: Exchange, whole: bytes) -> None:
        etag = self.etag(whole)
        headers = {"Content-Type": "video/mp4", "ETag": etag, "Accept-Ranges": "bytes"}
        asked = exchange.request.headers
        match = _RANGE.fullmatch(asked.get("range", ""))
        start = int(match[1]) if match and asked.get("if-range", etag) == etag else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        body = whole[start:]
        exchange.send_head(206 if start else 200, headers, {"Content-Length": str(len(body))})
        await self._send_slowly(exchange, body)

    async def _send_slowly(self, exchange: Exchange, body: bytes) -> None:
        """Send at a rate that may change while the file is on its way."""
        last = 0
        while (step := int(min(len(body), max(1, self.bytes_per_s / 20)))) < len(body) - last:
            exchange.writer.write(body[last : last + step])
            await exchange.writer.drain()
            last += step
            await asyncio.sleep(0.05)
        self.active_requests -= (
            1  # whoever has the last bytes may ask for another film before we are back here
        )
        try:
            exchange.writer.write(body[last:])
            await exchange.writer.drain()
        finally:
            self.active_requests += 1
