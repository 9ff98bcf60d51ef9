"""HTTP/1.1 on bare asyncio streams: a server that can misbehave down to the byte.

It owns sockets, listening and being gone; what is answered is its handler's matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.integration.raw_server import stop_listening

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

HOST = "127.0.0.1"
_LINGER_OFF = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived. Header names are in lower case, `target` is the request line's, undecoded."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


class Exchange:
    """One request and the wire on which it may be answered, well or badly."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.writer = writer

    async def send(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        content_length: int | None = None,
    ) -> None:
        """Answer; `announced` lies about the length of the body."""
        self.send_head(
            status, {"Content-Length": str(len(body) if content_length is None else content_length)}, headers
        )
        self.writer.write(body)
        await self.writer.drain()

    def send_head(self, status: int, *groups: Mapping[str, str] | None) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Date: {formatdate(usegmt=True)}"]
        lines += [f"{name}: {value}" for group in groups if group for name, value in group.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def send_json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        await self.send(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def close(self) -> None:
        """End the connection in good order, whatever was promised."""
        self.writer.close()

    def reset(self) -> None:
        """End the connection with a RST: what was not read is lost."""
        peer = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        self.writer.transport.abort()


class HttpServer:
    """Listens on loopback; may go away in mid-sentence and come back on the same port."""

    def __init__(self, handler: Callable[[Exchange], Awaitable[None]]) -> None:
        self._handler = handler
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    async def open(self) -> None:
        listener = await asyncio.start_server(self._on_connection, HOST, self.port, backlog=512)
        self.port = listener.sockets[0].getsockname()[1]
        self._listener = listener

    async def close(self) -> None:
        """Refuse new connections and reset those that are open."""
        if self._listener is not None:
            await stop_listening(self._listener)
            self._listener = None
        for writer in self._writers:
            Exchange(_NO_REQUEST, writer).reset()
        self._writers.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # lets the transports close

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        task = asyncio.ensure_future(self._serve_connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing() and (request := await _read_request(reader)) is not None:
                await self._handler(Exchange(request, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = [line.split(":", 1) for line in rest if line]
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


_NO_REQUEST = Request("", "", {}, b"")
