"""Where the clips lie: a session that the downloader takes for aiohttp's, with every way to fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from multidict import CIMultiDict

from tests.simulation.network import SimRequest
from tests.simulation.vendor import CDN, clip_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from tests.simulation.machine import Process

PAGE: Final = b"<!doctype html><title>denied</title>"
STATUSES: Final = {"503": 503, "403": 403, "404": 404, "410": 410}


class Body:
    """A body on its way: what `aiohttp.StreamReader` does that the downloader uses."""

    def __init__(self, chunks: list[bytes], *, end: str, chance: Random) -> None:
        self._chunks, self._end, self._chance = chunks, end, chance

    async def readany(self) -> bytes:
        if not self._chunks:
            return await self._finish()
        if self._chance.random() < 0.3 or self._end == "slow":
            await asyncio.sleep((4.0 if self._end == "slow" else 0.2) * self._chance.random())
        return self._chunks.pop(0)

    async def _finish(self) -> bytes:
        if self._end == "cut":
            raise aiohttp.ClientPayloadError("cut")
        if self._end == "stall":
            await asyncio.sleep(3600)
        return b""

    def set_exception(self, _: object) -> None:
        """Forget the error, as aiohttp's does for None."""

    def read_nowait(self) -> bytes:
        return b""


class CdnResponse:
    """What the downloader reads of an `aiohttp.ClientResponse`."""

    connection = None
    reason = ""

    def __init__(self, status: int, headers: dict[str, str], content: Body) -> None:
        self.status, self.headers, self.content = status, CIMultiDict(headers), content

    def close(self) -> None:
        """Nothing is open."""


class CdnSession:
    """A session without a key, for one process."""

    headers: Final[dict[str, str]] = {}
    auth = None

    def __init__(self, process: Process) -> None:
        self._world = process.world
        self._chance = self._world.chance.stream(f"cdn {process.number}")

    def get(self, url: Any, *, headers: Mapping[str, str], **_: Any) -> SimRequest:
        return SimRequest(self._get(str(url), headers))

    async def _get(self, url: str, headers: Mapping[str, str]) -> CdnResponse:
        kind = self._world.chance.draw("cdn")
        await asyncio.sleep(0.2 * self._chance.random())
        self._world.tell("GET", url, headers.get("Range"), kind)
        if kind == "refused":
            raise aiohttp.ClientConnectionError("refused")
        if kind in STATUSES:
            return CdnResponse(STATUSES[kind], {}, self._body([PAGE]))
        if kind == "page":
            return CdnResponse(200, {"Content-Type": "text/html"}, self._body([PAGE]))
        if kind == "redirect":
            return CdnResponse(302, {"Location": url}, self._body([]))
        if kind == "redirect to a private address":
            return CdnResponse(302, {"Location": "https://10.0.0.1/clip.mp4"}, self._body([]))
        return self._send(url, headers, kind)

    def _body(self, chunks: list[bytes], end: str = "") -> Body:
        return Body(chunks, end=end, chance=self._chance)

    def _send(self, url: str, headers: Mapping[str, str], kind: str) -> CdnResponse:
        name, number = url.removeprefix(CDN).partition("?")[0].removesuffix(".mp4").rsplit("/", 1)
        generation = self._world.book.by_url_name.get(name)
        if generation is None:
            return CdnResponse(404, {}, self._body([PAGE]))
        data, etag = clip_bytes(generation.id, int(number)), f'"{name}"'
        start = 0 if kind == "no ranges" else int(headers.get("Range", "bytes=0-")[6:-1])
        if kind == "changed file":
            etag, start = f'"{name}-{self._chance.random()}"', 0
        if start >= len(data):
            return CdnResponse(416, {"Content-Range": f"bytes */{len(data)}"}, self._body([]))
        sent = data[start:] if kind != "empty" else b""
        if kind == "damaged bytes":
            sent = bytes(len(sent))
            if start:
                generation.damaged[int(number)] = start
        answered = {"ETag": etag, "Content-Length": str(len(sent)), "Content-Type": "video/mp4"}
        if start:
            answered["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if kind in ("cut", "stall"):
            sent = sent[: self._chance.randrange(len(sent) + 1)]
        return CdnResponse(206 if start else 200, answered, self._body(self._chunks(sent), kind))

    def _chunks(self, data: bytes) -> list[bytes]:
        if len(data) < 2 or self._chance.random() < 0.7:
            return [data] if data else []
        at = self._chance.randrange(1, len(data))
        return [data[:at], data[at:]]
