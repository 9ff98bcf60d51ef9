"""A server of bare bytes: it reads a request and does exactly what the test says with the connection."""

from __future__ import annotations

import asyncio
import fcntl
import json
import struct
import termios
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from types import TracebackType


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it came: its first line, its headers (names in lower case), its body."""

    request_line: str
    headers: dict[str, str]
    body: bytes

    @property
    def target(self) -> str:
        return self.request_line.split()[1]


@dataclass(kw_only=True)
class LoopbackServer(ABC):
    """A server on this machine, spoken to in TLS if `tls` is given. With its block all connections end."""

    port: int = 0
    tls: ssl.SSLContext | None = None

    @abstractmethod
    async def handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What becomes of a connection; afterwards it is closed."""

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await stop_listening(self._server)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.abort_connections()  # a task that had not begun has closed nothing
        await asyncio.sleep(0)  # lets the transports close

    def abort_connections(self) -> None:
        """End every connection at once, without a word."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.ensure_future(self._run_connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.handle_connection(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)


async def stop_listening(server: asyncio.Server) -> None:
    """Close a server, but not between the loop's accepting a connection and the server's hearing of it.

    Nobody would close that one: Python 3.11 fails on it (`Server._attach`), and the warning of its socket
    comes whenever it is collected, within some other test.
    """
    loop = asyncio.get_running_loop()
    for socket in server.sockets:
        loop.remove_reader(socket.fileno())
    for _ in range(3):  # a task, its transport, the call of the server
        await asyncio.sleep(0)
    server.close()


@dataclass
class RawServer(LoopbackServer):
    """Answers each connection by `act`, after a whole request was read (or at once, if `early`)."""

    handler: Callable[[asyncio.StreamWriter], Awaitable[None]]
    before_request: bool = False
    requests: list[ReceivedRequest] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while not writer.is_closing():
            if self.before_request:
                await self.handler(writer)
                return
            self.requests.append(await _read_request(reader))
            await self.handler(writer)


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(head[0], headers, body)


def respond_with(
    status: int, body: bytes | dict[str, Any] = b"", **headers: str
) -> Callable[..., Awaitable[None]]:
    """Answer whole and keep the connection open; `_` in a header's name stands for `-`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"Content-Length": str(len(data))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(response_head(status, lines) + data)
        await writer.drain()

    return act


async def wait_delivered(writer: asyncio.StreamWriter) -> None:
    """Wait until the other end has all that was sent, so that no reset can overtake it."""
    socket = writer.get_extra_info("socket")
    while not writer.transport.is_closing():
        waiting = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        if not waiting and not writer.transport.get_write_buffer_size():
            return
        await asyncio.sleep(0.001)


def send_and_close(data: bytes, *, reset: bool = False) -> Callable[..., Awaitable[None]]:
    """Send these bytes and end the connection, properly or by a reset."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if reset:
            await wait_delivered(writer)
            writer.transport.abort()
        writer.close()

    return act


async def never_respond(_: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def hang_past_timeout(_: asyncio.StreamWriter) -> None:
    """Never answer, and let an hour go by on the loop's clock: whoever heard of the request gives it up."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + 3600.0  # type: ignore[method-assign]
    await asyncio.Event().wait()


def response_head(status: int, headers: dict[str, str]) -> bytes:
    """The head of an answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode("latin-1")
