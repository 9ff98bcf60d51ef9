"""The rest of a body, block by block: from the socket straight into memory, or through aiohttp's parser.

A body that is sent as it is, with its length, leaves nothing to parse: the socket is read into the very block
that is hashed and written. The parser would copy each byte once more, and hand out 256 KiB at a time.
"""

from __future__ import annotations

import asyncio
import mmap
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
import anyio

from pipeline.download.guarded_session import READ_BUFFER_BYTES
from pipeline.download.resumable_get import BODY_ERRORS

if TYPE_CHECKING:
    from pipeline.download.resumable_get import OpenBody

BLOCK_BYTES: Final = 2 * 1024 * 1024
"""What is gathered before threads hash and write it: at 64 KiB the hand-over costs more than the write."""


MAX_SPARE_BLOCKS: Final = 16
_spare_blocks: list[memoryview] = []
"""Memory of bodies that came whole: on a busy machine new pages cost more than receiving into them."""


class BodySource(Protocol):
    """What follows the head of one body. `failure` says why it ended too early."""

    failure: Exception | None

    @property
    def ended(self) -> bool:
        """Return whether there is nothing more to take."""

    async def take(self, wait_s: float) -> list[bytes | memoryview]:
        """Return about a block of what has come; less after `wait_s` seconds, or at the end of the body.

        The bytes stay as they are until the next call; the next block may be received meanwhile.
        """

    def release(self) -> None:
        """Give back the memory of a body that has ended well, once all of it is written."""


def open_source(body: OpenBody) -> BodySource:
    """Return the cheapest way to read on. Nothing else may read from the body afterwards."""
    connection = body.response.connection
    transport = None if connection is None else connection.transport
    if transport is None or not _needs_no_parser(body):
        return ParsedSource(body)
    return DirectSource(body.response, transport)


def _needs_no_parser(body: OpenBody) -> bool:
    headers, content = body.response.headers, body.response.content
    return (
        body.validators.resumable  # not compressed
        and "Transfer-Encoding" not in headers
        and headers.get("Content-Length", "").isdecimal()
        and content.exception() is None
        and not content.is_eof()
    )


class ParsedSource:
    """A body in chunks, compressed, or without a length; or one that is here already."""

    def __init__(self, body: OpenBody) -> None:
        self._body = body
        self.ended = False
        self.failure: Exception | None = None

    async def take(self, wait_s: float) -> list[bytes | memoryview]:
        chunks: list[bytes | memoryview] = []
        missing_bytes = BLOCK_BYTES
        with anyio.move_on_after(wait_s):
            try:
                while missing_bytes > 0 and not self.ended:
                    chunk = await self._body.response.content.readany()
                    chunks.append(chunk)
                    missing_bytes -= len(chunk)
                    self.ended = not chunk
            except BODY_ERRORS as error:
                chunks.append(self._body.read_buffered())
                self.ended, self.failure = True, error
        return chunks

    def release(self) -> None:
        """There is none to give back."""


class DirectSource(asyncio.BufferedProtocol):
    """Takes a connection over from aiohttp, and receives the rest of its one body.

    Two blocks by turns: while one is written, the other is filled. Once both are full, nothing is read.
    """

    def __init__(self, response: aiohttp.ClientResponse, transport: asyncio.Transport) -> None:
        self.failure: Exception | None = None
        self._first = self._read_parsed(response.content)
        self._missing_bytes = int(response.headers["Content-Length"]) - response.content.total_bytes
        self._blocks = [_take_block(), _take_block()]
        self._filled = 0
        self._filled_or_stopped = asyncio.Event()
        self._transport, self._aiohttp = transport, transport.get_protocol()
        if not self._stopped:
            transport.set_protocol(self)

    def _read_parsed(self, content: aiohttp.StreamReader) -> bytes:
        """Return what aiohttp has received. Reading all of it ends its pause: nothing stays unparsed."""
        parsed = b""
        try:
            while chunk := content.read_nowait():
                parsed += chunk
        except BODY_ERRORS as error:
            self.failure = error
        return parsed

    @property
    def _stopped(self) -> bool:
        return self.failure is not None or self._missing_bytes == 0

    @property
    def ended(self) -> bool:
        return self._stopped and self._filled == 0

    async def take(self, wait_s: float) -> list[bytes | memoryview]:
        if not self._stopped:
            with anyio.move_on_after(wait_s):
                await self._filled_or_stopped.wait()
        chunks: list[bytes | memoryview] = [self._first, self._blocks[0][: self._filled]]
        self._blocks.reverse()
        self._first, self._filled = b"", 0
        if not self._stopped:
            self._filled_or_stopped.clear()
            self._transport.resume_reading()
        return chunks

    def release(self) -> None:
        # Never after an error: a thread that nobody waits for any more may still write from a block.
        if self.ended and self.failure is None and len(_spare_blocks) < MAX_SPARE_BLOCKS:
            _spare_blocks.extend(self._blocks)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes belong, and never more room than the body needs."""
        # Eight sockets with a whole block each would keep the loop busy for 20 ms.
        return self._blocks[0][self._filled : self._filled + min(READ_BUFFER_BYTES, self._missing_bytes)]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._missing_bytes -= nbytes
        if self._filled == len(self._blocks[0]) or self._stopped:
            self._transport.pause_reading()
            self._filled_or_stopped.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note a cut; aiohttp, which owns the connection, has to learn of its end, too."""
        if not self._stopped:
            self.failure = exc or aiohttp.ClientPayloadError("the connection was closed")
        self._filled_or_stopped.set()
        self._aiohttp.connection_lost(exc)


def _take_block() -> memoryview:
    try:
        return _spare_blocks.pop()
    except IndexError:
        # Not a bytearray: the kernel provides pages as they are filled, not 2 MiB of zeros at once (3 ms).
        return memoryview(mmap.mmap(-1, BLOCK_BYTES))
