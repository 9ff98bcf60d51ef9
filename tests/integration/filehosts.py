"""CDNs that misbehave, one class for each way, on real sockets. A plain `Host` behaves."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.integration.wires import Loopback, arrived

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass
class Ask:
    """One request: its path with query, its headers (names in lower case), and where to write."""

    path: str
    headers: dict[str, str]
    writer: asyncio.StreamWriter

    @property
    def first(self) -> int:
        """The first byte asked for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@dataclass
class Host(Loopback):
    """Serves one file properly: ETag, ranges, If-Range. `faults` is how often a subclass misbehaves."""

    data: bytes
    faults: int = 1
    content_type: str = "video/mp4"
    etag: str = ""
    last_modified: str = ""
    asked: list[Ask] = field(default_factory=list)
    sent_bytes: int = 0

    async def __aenter__(self) -> Self:
        self.etag = self.etag or f'"{hashlib.sha256(self.data).hexdigest()[:16]}"'
        return await super().__aenter__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/film.mp4?signature=s3cret"

    async def answer(self, ask: Ask) -> None:
        """What this host does with a request; subclasses differ here, as long as `faults` last."""
        await self.behave(ask)

    def misbehaves(self) -> bool:
        self.faults -= 1
        return self.faults >= 0

    async def behave(self, ask: Ask, *, most: int | None = None, cut: bool = False) -> None:
        """Serve what was asked for; only `most` bytes of it, then reset the connection if `cut`."""
        start = ask.first
        wanted = ask.headers.get("if-range")
        if wanted is not None and wanted not in (self.etag, self.last_modified):
            start = 0
        if start >= len(self.data):
            await self.reply(ask, 416, {"Content-Range": f"bytes */{len(self.data)}"}, b"")
            return
        part = self.data[start:]
        headers = {"Content-Length": str(len(part)), "ETag": self.etag, "Accept-Ranges": "bytes"}
        if self.last_modified:
            headers["Last-Modified"] = self.last_modified
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        await self.reply(ask, 206 if start else 200, headers, part if most is None else part[:most], cut=cut)

    async def reply(
        self, ask: Ask, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False
    ) -> None:
        lines = {"Content-Type": self.content_type, "Connection": "close"} | headers
        if "Transfer-Encoding" not in lines:
            lines.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        ask.writer.write(f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body)
        await ask.writer.drain()
        self.sent_bytes += len(body)
        if cut:
            await arrived(ask.writer)
            ask.writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        ask = Ask(head[0].split()[1], {name.lower(): value.strip() for name, _, value in pairs}, writer)
        self.asked.append(ask)
        await self.answer(ask)


class Cuts(Host):
    """Cuts every transfer after a tenth of the file, until the end."""

    async def answer(self, ask: Ask) -> None:
        await self.behave(
            ask, most=len(self.data) // 10 + 1, cut=len(self.data) - ask.first > len(self.data) // 10 + 1
        )


class EndsEarly(Host):
    """Closes properly, but before all that Content-Length promised was sent."""

    async def answer(self, ask: Ask) -> None:
        await self.behave(ask, most=len(self.data) // 2 if self.misbehaves() else None)


class Stalls(Host):
    """Sends a third and then nothing, with the connection open."""

    async def answer(self, ask: Ask) -> None:
        if not self.misbehaves():
            await self.behave(ask)
            return
        await self.behave(ask, most=len(self.data) // 3)
        await asyncio.Event().wait()


class Trickles(Host):
    """Sends a few bytes at a time, for ever."""

    async def answer(self, ask: Ask) -> None:
        if not self.misbehaves():
            await self.behave(ask)
            return
        await self.behave(ask, most=1000)
        for start in range(1000, len(self.data)):
            ask.writer.write(self.data[start : start + 1])
            await ask.writer.drain()
            await asyncio.sleep(0.05)


class Silent(Host):
    """Takes the request and never answers."""

    async def answer(self, ask: Ask) -> None:
        if self.misbehaves():
            await asyncio.Event().wait()
        await self.behave(ask)


class CutsFirst(Host):
    """Sends the head and resets the connection before the first byte."""

    async def answer(self, ask: Ask) -> None:
        cut = self.misbehaves()
        await self.behave(ask, most=0 if cut else None, cut=cut)


class Hesitates(Host):
    """Sends the head and then nothing, with the connection open."""

    async def answer(self, ask: Ask) -> None:
        if not self.misbehaves():
            await self.behave(ask)
            return
        await self.behave(ask, most=0)
        await asyncio.Event().wait()


class Shrinks(Host):
    """Cuts the first transfer near the end, then has a shorter file."""

    async def answer(self, ask: Ask) -> None:
        if self.misbehaves():
            whole, self.data = self.data, self.data + bytes(1000)
            await self.behave(ask, most=len(whole) + 500)
            self.data = whole
        else:
            await self.behave(ask)


class Statuses(Host):
    """Answers with an error status first."""

    status = 500

    async def answer(self, ask: Ask) -> None:
        if self.misbehaves():
            await self.reply(ask, self.status, {}, b"no")
        else:
            await self.behave(ask)


class ShowsPages(Host):
    """Answers 200 with a web page."""

    async def answer(self, ask: Ask) -> None:
        if self.misbehaves():
            page = b"<!doctype html><title>Just a moment</title>" * 50
            await self.reply(ask, 200, {"Content-Type": "text/html"}, page)
        else:
            await self.behave(ask)


class SendsNothing(Host):
    """Answers 200 with an empty body."""

    async def answer(self, ask: Ask) -> None:
        if self.misbehaves():
            await self.reply(ask, 200, {}, b"")
        else:
            await self.behave(ask)


class SendsOther(Host):
    """Sends `other` instead of the file, whole and with status 200."""

    other = b""

    async def answer(self, ask: Ask) -> None:
        if self.misbehaves():
            await self.reply(ask, 200, {}, self.other)
        else:
            await self.behave(ask)


class Changes(Host):
    """Cuts the first transfer in the middle, then has another file under the same URL."""

    later = b""

    async def answer(self, ask: Ask) -> None:
        if self.misbehaves():
            await self.behave(ask, most=len(self.data) // 2, cut=True)
            self.data, self.etag = self.later, '"later"'
        else:
            await self.behave(ask)


class IgnoresIfRange(Changes):
    """Has another file, and sends a part of it all the same."""

    async def behave(self, ask: Ask, *, most: int | None = None, cut: bool = False) -> None:
        ask.headers.pop("if-range", None)
        await super().behave(ask, most=most, cut=cut)


class KnowsNoRanges(Host):
    """Cuts the first transfer, then answers every range with the whole file."""

    async def answer(self, ask: Ask) -> None:
        cut = self.misbehaves()
        ask.headers.pop("range", None)
        await self.behave(ask, most=len(self.data) // 2 if cut else None, cut=cut)


class SendsWrongRange(Host):
    """Cuts the first transfer, then answers with another part than the one asked for."""

    async def answer(self, ask: Ask) -> None:
        if not ask.first:
            cut = self.misbehaves()
            await self.behave(ask, most=len(self.data) // 2 if cut else None, cut=cut)
            return
        headers = {"Content-Range": f"bytes 0-9/{len(self.data)}", "ETag": self.etag}
        await self.reply(ask, 206, headers, self.data[:10])


class Compresses(Host):
    """Gzips although it was asked not to, and cuts the first answer in the middle."""

    async def answer(self, ask: Ask) -> None:
        body = gzip.compress(self.data)
        headers = {"Content-Encoding": "gzip", "ETag": self.etag, "Content-Length": str(len(body))}
        cut = self.misbehaves()
        await self.reply(ask, 200, headers, body[: len(body) // 2] if cut else body, cut=cut)


class Chunked(Host):
    """Sends without a length, in chunks; the first answer ends without the last chunk."""

    async def answer(self, ask: Ask) -> None:
        half = len(self.data) // 2
        parts = [self.data[:half]] if self.misbehaves() else [self.data[:half], self.data[half:], b""]
        body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
        await self.reply(ask, 200, {"Transfer-Encoding": "chunked"}, body)


class Redirects(Host):
    """Sends every request elsewhere; a path that begins with /film is served."""

    to = ""

    async def answer(self, ask: Ask) -> None:
        if ask.path.startswith("/film.mp4?real"):
            await self.behave(ask)
        else:
            await self.reply(ask, 302, {"Location": self.to}, b"")


class Expires(Host):
    """Answers 403 to every URL but the one that holds `fresh`."""

    status = 403

    async def answer(self, ask: Ask) -> None:
        if "fresh" in ask.path:
            await self.behave(ask)
        else:
            await self.reply(ask, self.status, {}, b"<Error>expired</Error>")


class Gauntlet(Host):
    """Puts every path through all faults, one after the other, each path in an order of its own."""

    async def answer(self, ask: Ask) -> None:
        left = self._left.setdefault(ask.path.partition("?")[0], self._faults(len(self._left)))
        if left:
            await left.pop()(ask)
        else:
            await self.behave(ask)

    async def __aenter__(self) -> Self:
        self._left: dict[str, list[Callable[[Ask], Awaitable[None]]]] = {}
        return await super().__aenter__()

    def _faults(self, number: int) -> list[Callable[[Ask], Awaitable[None]]]:
        faults: list[Callable[[Ask], Awaitable[None]]] = [
            self._cut,
            lambda ask: self.reply(ask, 403, {}, b"expired"),
            lambda ask: self.reply(ask, 404, {}, b"not yet"),
            self._cut,
            lambda ask: self.reply(ask, 500, {}, b"oops"),
            lambda ask: self.reply(ask, 200, {"Content-Type": "text/html"}, b"<html>"),
            lambda ask: self.reply(ask, 200, {}, self.data[: len(self.data) // 2]),
            lambda ask: self.reply(ask, 200, {}, bytes(len(self.data))),
            self._cut,
        ]
        return faults[number % 9 :] + faults[: number % 9]

    async def _cut(self, ask: Ask) -> None:
        await self.behave(ask, most=len(self.data) // 3, cut=True)
