"""CDNs that misbehave, one class for each way, on real sockets. A plain `Host` behaves."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tests.integration.raw_server import LoopbackServer, wait_delivered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass
class CdnRequest:
    """One request: its path with query, its headers (names in lower case), and where to write."""

    path: str
    headers: dict[str, str]
    writer: asyncio.StreamWriter

    @property
    def first_byte(self) -> int:
        """The first byte asked for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@dataclass
class FileHost(LoopbackServer):
    """Serves one file properly: ETag, ranges, If-Range. `faults` is how often a subclass misbehaves."""

    data: bytes
    faults: int = 1
    content_type: str = "video/mp4"
    etag: str = ""
    last_modified: str = ""
    requests: list[CdnRequest] = field(default_factory=list)
    sent_bytes: int = 0

    async def __aenter__(self) -> Self:
        self.etag = self.etag or f'"{hashlib.sha256(self.data).hexdigest()[:16]}"'
        return await super().__aenter__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/film.mp4?signature=s3cret"

    async def handle(self, request: CdnRequest) -> None:
        """What this host does with a request; subclasses differ here, as long as `faults` last."""
        await self.serve_file(request)

    def take_fault(self) -> bool:
        self.faults -= 1
        return self.faults >= 0

    async def serve_file(
        self, request: CdnRequest, *, max_bytes: int | None = None, cut: bool = False
    ) -> None:
        """Serve what was asked for; only `most` bytes of it, then reset the connection if `cut`."""
        start = request.first_byte
        wanted = request.headers.get("if-range")
        if wanted is not None and wanted not in (self.etag, self.last_modified):
            start = 0
        if start >= len(self.data):
            await self.send_response(request, 416, {"Content-Range": f"bytes */{len(self.data)}"}, b"")
            return
        part = self.data[start:]
        headers = {"Content-Length": str(len(part)), "ETag": self.etag, "Accept-Ranges": "bytes"}
        if self.last_modified:
            headers["Last-Modified"] = self.last_modified
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        await self.send_response(
            request, 206 if start else 200, headers, part if max_bytes is None else part[:max_bytes], cut=cut
        )

    async def send_response(
        self, request: CdnRequest, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False
    ) -> None:
        lines = {"Content-Type": self.content_type, "Connection": "close"} | headers
        if "Transfer-Encoding" not in lines:
            lines.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        request.writer.write(f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body)
        await request.writer.drain()
        self.sent_bytes += len(body)
        if cut:
            await wait_delivered(request.writer)
            request.writer.transport.abort()

    async def handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        ask = CdnRequest(
            head[0].split()[1], {name.lower(): value.strip() for name, _, value in pairs}, writer
        )
        self.requests.append(ask)
        await self.handle(ask)


class CutsEveryTransfer(FileHost):
    """Cuts every transfer after a tenth of the file, until the end."""

    async def handle(self, ask: CdnRequest) -> None:
        await self.serve_file(
            ask,
            max_bytes=len(self.data) // 10 + 1,
            cut=len(self.data) - ask.first_byte > len(self.data) // 10 + 1,
        )


class EndsEarly(FileHost):
    """Closes properly, but before all that Content-Length promised was sent."""

    async def handle(self, ask: CdnRequest) -> None:
        await self.serve_file(ask, max_bytes=len(self.data) // 2 if self.take_fault() else None)


class Stalls(FileHost):
    """Sends a third and then nothing, with the connection open."""

    async def handle(self, ask: CdnRequest) -> None:
        if not self.take_fault():
            await self.serve_file(ask)
            return
        await self.serve_file(ask, max_bytes=len(self.data) // 3)
        await asyncio.Event().wait()


class SendsTogether(FileHost):
    """Sends the second half once the other host has been asked, too."""

    other: SendsTogether

    async def __aenter__(self) -> Self:
        self.asked = asyncio.Event()
        return await super().__aenter__()

    async def handle(self, ask: CdnRequest) -> None:
        half = len(self.data) // 2
        self.asked.set()
        await self.serve_file(ask, max_bytes=half)
        await self.other.asked.wait()
        ask.writer.write(self.data[ask.first_byte + half :])
        await ask.writer.drain()


class SendsSlowly(FileHost):
    """Sends a few bytes at a time, for ever."""

    async def handle(self, ask: CdnRequest) -> None:
        if not self.take_fault():
            await self.serve_file(ask)
            return
        await self.serve_file(ask, max_bytes=1000)
        for start in range(1000, len(self.data)):
            ask.writer.write(self.data[start : start + 1])
            await ask.writer.drain()
            await asyncio.sleep(0.05)


class NeverResponds(FileHost):
    """Takes the request and never answers."""

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            await asyncio.Event().wait()
        await self.serve_file(ask)


class ResetsAfterHeaders(FileHost):
    """Sends the head and resets the connection before the first byte."""

    async def handle(self, ask: CdnRequest) -> None:
        cut = self.take_fault()
        await self.serve_file(ask, max_bytes=0 if cut else None, cut=cut)


class StallsAfterHeaders(FileHost):
    """Sends the head and then nothing, with the connection open."""

    async def handle(self, ask: CdnRequest) -> None:
        if not self.take_fault():
            await self.serve_file(ask)
            return
        await self.serve_file(ask, max_bytes=0)
        await asyncio.Event().wait()


class FileShrinks(FileHost):
    """Cuts the first transfer near the end, then has a shorter file."""

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            whole, self.data = self.data, self.data + bytes(1000)
            await self.serve_file(ask, max_bytes=len(whole) + 500)
            self.data = whole
        else:
            await self.serve_file(ask)


class ReturnsStatus(FileHost):
    """Answers with an error status first."""

    status = 500

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            await self.send_response(ask, self.status, {}, b"no")
        else:
            await self.serve_file(ask)


class ReturnsHtmlPage(FileHost):
    """Answers 200 with a web page."""

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            page = b"<!doctype html><title>Just a moment</title>" * 50
            await self.send_response(ask, 200, {"Content-Type": "text/html"}, page)
        else:
            await self.serve_file(ask)


class ReturnsEmptyBody(FileHost):
    """Answers 200 with an empty body."""

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            await self.send_response(ask, 200, {}, b"")
        else:
            await self.serve_file(ask)


class ReturnsOtherFile(FileHost):
    """Sends `other` instead of the file, whole and with status 200."""

    other = b""

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            await self.send_response(ask, 200, {}, self.other)
        else:
            await self.serve_file(ask)


class FileChanges(FileHost):
    """Cuts the first transfer in the middle, then has another file under the same URL."""

    new_data = b""

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            await self.serve_file(ask, max_bytes=len(self.data) // 2, cut=True)
            self.data, self.etag = self.new_data, '"later"'
        else:
            await self.serve_file(ask)


class IgnoresIfRange(FileChanges):
    """Has another file, and sends a part of it all the same."""

    async def serve_file(
        self, request: CdnRequest, *, max_bytes: int | None = None, cut: bool = False
    ) -> None:
        request.headers.pop("if-range", None)
        await super().serve_file(request, max_bytes=max_bytes, cut=cut)


class IgnoresRange(FileHost):
    """Cuts the first transfer, then answers every range with the whole file."""

    async def handle(self, ask: CdnRequest) -> None:
        cut = self.take_fault()
        ask.headers.pop("range", None)
        await self.serve_file(ask, max_bytes=len(self.data) // 2 if cut else None, cut=cut)


class SendsWrongRange(FileHost):
    """Cuts the first transfer, then answers with another part than the one asked for."""

    async def handle(self, ask: CdnRequest) -> None:
        if not ask.first_byte:
            cut = self.take_fault()
            await self.serve_file(ask, max_bytes=len(self.data) // 2 if cut else None, cut=cut)
            return
        headers = {"Content-Range": f"bytes 0-9/{len(self.data)}", "ETag": self.etag}
        await self.send_response(ask, 206, headers, self.data[:10])


class SendsSurplus(FileHost):
    """Cuts the first transfer, and sends a part with more behind it, as its length or in chunks."""

    chunked = False

    async def handle(self, ask: CdnRequest) -> None:
        if not ask.first_byte:
            cut = self.take_fault()
            await self.serve_file(ask, max_bytes=len(self.data) // 2 if cut else None, cut=cut)
            return
        headers = {"ETag": self.etag}
        headers["Content-Range"] = f"bytes {ask.first_byte}-{len(self.data) - 1}/{len(self.data)}"
        body = self.data[ask.first_byte :] + b"surplus"
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        await self.send_response(ask, 206, headers, body)


class SendsSurplusInChunks(SendsSurplus):
    chunked = True


class Compresses(FileHost):
    """Gzips although it was asked not to, and cuts the first answer in the middle."""

    async def handle(self, ask: CdnRequest) -> None:
        body = gzip.compress(self.data)
        headers = {"Content-Encoding": "gzip", "ETag": self.etag, "Content-Length": str(len(body))}
        cut = self.take_fault()
        await self.send_response(ask, 200, headers, body[: len(body) // 2] if cut else body, cut=cut)


class Chunked(FileHost):
    """Sends without a length, in chunks; the first answer ends without the last chunk."""

    async def handle(self, ask: CdnRequest) -> None:
        half = len(self.data) // 2
        parts = [self.data[:half]] if self.take_fault() else [self.data[:half], self.data[half:], b""]
        body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
        await self.send_response(ask, 200, {"Transfer-Encoding": "chunked"}, body)


class BreaksChunks(FileHost):
    """Sends in chunks, and a proxy writes an error page over the rest of the first answers."""

    async def handle(self, ask: CdnRequest) -> None:
        half = 100  # within the first bytes that are examined, and in one packet with the page
        body = f"{half:x}\r\n".encode() + self.data[:half] + b"\r\n"
        if self.take_fault():
            body += b"<html><h1>504 Gateway Timeout</h1></html>"
        else:
            body += f"{len(self.data) - half:x}\r\n".encode() + self.data[half:] + b"\r\n0\r\n\r\n"
        await self.send_response(ask, 200, {"Transfer-Encoding": "chunked"}, body)


class SendsLongHeaders(FileHost):
    """Sends one header of 12 kB and 300 others, and cuts the first answer."""

    async def handle(self, ask: CdnRequest) -> None:
        headers = {"Content-Security-Policy": "img-src " + "https://cdn.example " * 600}
        headers |= {f"X-Trace-{number}": "1" for number in range(300)}
        headers |= {"Content-Length": str(len(self.data))}
        cut = self.take_fault()
        await self.send_response(ask, 200, headers, self.data[:1000] if cut else self.data, cut=cut)


class SendsInvalidHeaders(FileHost):
    """Answers with headers that no parser accepts."""

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            await self.send_response(ask, 200, {"Content-Length": "minus one"}, self.data)
        else:
            await self.serve_file(ask)


class ReturnsUndeclaredPage(FileHost):
    """Answers 200 with a web page that is declared to be a video."""

    async def handle(self, ask: CdnRequest) -> None:
        if self.take_fault():
            page = b"\xef\xbb\xbf\n <!DOCTYPE html><title>Just a moment</title>" * 50
            await self.send_response(ask, 200, {"Content-Type": "video/mp4"}, page)
        else:
            await self.serve_file(ask)


class Redirects(FileHost):
    """Sends every request elsewhere; a path that begins with /film is served."""

    target = ""

    async def handle(self, ask: CdnRequest) -> None:
        if ask.path.startswith("/film.mp4?real"):
            await self.serve_file(ask)
        else:
            await self.send_response(ask, 302, {"Location": self.target}, b"")


class Expires(FileHost):
    """Answers 403 to every URL but the one that holds `fresh`."""

    status = 403

    async def handle(self, ask: CdnRequest) -> None:
        if "fresh" in ask.path:
            await self.serve_file(ask)
        else:
            await self.send_response(ask, self.status, {}, b"<Error>expired</Error>")


class EveryFault(FileHost):
    """Puts every path through all faults, one after the other, each path in an order of its own."""

    async def handle(self, ask: CdnRequest) -> None:
        left = self._remaining_faults.setdefault(
            ask.path.partition("?")[0], self._faults(len(self._remaining_faults))
        )
        if left:
            await left.pop()(ask)
        else:
            await self.serve_file(ask)

    async def __aenter__(self) -> Self:
        self._remaining_faults: dict[str, list[Callable[[CdnRequest], Awaitable[None]]]] = {}
        return await super().__aenter__()

    def _faults(self, number: int) -> list[Callable[[CdnRequest], Awaitable[None]]]:
        faults: list[Callable[[CdnRequest], Awaitable[None]]] = [
            self._cut,
            lambda ask: self.send_response(ask, 403, {}, b"expired"),
            lambda ask: self.send_response(ask, 404, {}, b"not yet"),
            self._cut,
            lambda ask: self.send_response(ask, 500, {}, b"oops"),
            lambda ask: self.send_response(ask, 200, {"Content-Type": "text/html"}, b"<html>"),
            lambda ask: self.send_response(ask, 200, {}, self.data[: len(self.data) // 2]),
            lambda ask: self.send_response(ask, 200, {}, bytes(len(self.data))),
            self._cut,
        ]
        return faults[number % 9 :] + faults[: number % 9]

    async def _cut(self, ask: CdnRequest) -> None:
        await self.serve_file(ask, max_bytes=len(self.data) // 3, cut=True)
