"""How a body is read once its head is known, on a transport that a test feeds: no sockets."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict

from pipeline.download import body_sources
from pipeline.download.body_sources import BLOCK_BYTES, DirectSource, ParsedSource, open_source
from pipeline.download.guarded_session import READ_BUFFER_BYTES
from pipeline.download.response_headers import Validators
from pipeline.download.resumable_get import OpenBody

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.download.body_sources import BodySource

LENGTH = 3 * BLOCK_BYTES + 5


class FakeTransport:
    """Delivers bytes as a loop does: as long as reading is not paused, into the buffer it is given."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol: Any = protocol
        self.reading = True

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast("asyncio.BaseProtocol", self.protocol)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def deliver(self, data: bytes) -> bytes:
        """Return what was not taken."""
        while data and self.reading:
            buffer = self.protocol.get_buffer(-1)
            assert 0 < len(buffer) <= READ_BUFFER_BYTES
            taken = min(len(buffer), len(data))
            buffer[:taken] = data[:taken]
            self.protocol.buffer_updated(taken)
            data = data[taken:]
        return data


class AiohttpProtocol(BaseProtocol):
    """Stands for aiohttp's side of the connection."""

    lost: list[BaseException | None]

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = [exc]


def open_body(
    *, received: bytes = b"", ended: bool = False, resumable: bool = True, **headers: str
) -> tuple[OpenBody, FakeTransport, AiohttpProtocol]:
    """Return a body of which aiohttp has `received` something; header names have `_` for `-`."""
    protocol = AiohttpProtocol(asyncio.get_running_loop())
    content = aiohttp.StreamReader(protocol, 2**16)
    content.feed_data(received)
    if ended:
        content.feed_eof()
    transport = FakeTransport(protocol)
    response = SimpleNamespace(
        headers=CIMultiDict({name.replace("_", "-"): text for name, text in headers.items()}),
        content=content,
        connection=SimpleNamespace(transport=transport),
    )
    validators = Validators("http://cdn.test/clip.mp4", resumable=resumable)
    body = OpenBody(cast("aiohttp.ClientResponse", response), validators, 0, None, declared_page=False)
    return body, transport, protocol


def joined(chunks: Sequence[bytes | memoryview]) -> bytes:
    return b"".join(chunks)


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({"Content_Length": "9"}, DirectSource),
        ({}, ParsedSource),
        ({"Content_Length": "9", "Transfer_Encoding": "chunked"}, ParsedSource),
        ({"Content_Length": "9", "resumable": False}, ParsedSource),
        ({"Content_Length": "many"}, ParsedSource),
        ({"Content_Length": "4", "ended": True}, ParsedSource),
    ],
)
async def test_only_a_body_that_needs_no_parser_is_read_past_aiohttp(
    changes: dict[str, Any], source: Callable[..., BodySource]
) -> None:
    body, *_ = open_body(received=b"head", **changes)
    assert isinstance(open_source(body), cast("type", source))


async def test_a_connection_that_is_gone_leaves_what_aiohttp_has() -> None:
    body, *_ = open_body(received=b"head", ended=True, Content_Length="4")
    cast("Any", body.response).connection = None
    source = open_source(body)
    assert joined(await source.take(1)) == b"head"
    assert source.ended
    assert source.failure is None


async def test_every_byte_comes_once_and_the_next_block_fills_meanwhile() -> None:
    sent = Random(1).randbytes(LENGTH + 100)
    body, transport, _ = open_body(received=sent[:1000], Content_Length=str(LENGTH))
    source = open_source(body)
    # More than the body has is on the wire, and must never be asked for.
    rest, got = transport.deliver(sent[1000:]), b""
    while not source.ended:
        chunks = await source.take(60)
        rest = transport.deliver(rest)
        got += joined(chunks)
    assert got == sent[:LENGTH]
    assert rest == sent[LENGTH:]
    assert source.failure is None


async def test_nothing_is_read_while_both_blocks_are_full() -> None:
    body, transport, _ = open_body(Content_Length=str(LENGTH))
    source = open_source(body)
    rest = transport.deliver(bytes(LENGTH))
    assert len(rest) == LENGTH - BLOCK_BYTES
    await source.take(60)
    rest = transport.deliver(rest)
    assert len(rest) == LENGTH - 2 * BLOCK_BYTES
    assert not transport.reading


async def test_a_slow_line_hands_over_what_it_has_brought_and_goes_on() -> None:
    body, transport, _ = open_body(Content_Length="10")
    source = open_source(body)
    transport.deliver(b"01234")
    assert joined(await source.take(0)) == b"01234"
    assert joined(await source.take(0)) == b""
    ended = [source.ended]
    transport.deliver(b"56789")
    assert joined(await source.take(60)) == b"56789"
    assert [*ended, source.ended] == [False, True]


@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")])
async def test_a_cut_is_told_after_what_came_before_it_and_aiohttp_learns_of_it(
    error: ConnectionResetError | None,
) -> None:
    body, transport, protocol = open_body(received=b"ab", Content_Length="10")
    source = open_source(body)
    transport.deliver(b"cd")
    transport.protocol.connection_lost(error)
    ended = [source.ended]
    assert joined(await source.take(60)) == b"abcd"
    assert [*ended, source.ended] == [False, True]
    assert isinstance(source.failure, type(error) if error else aiohttp.ClientPayloadError)
    assert protocol.lost == [error]


async def test_a_connection_that_closes_after_the_last_byte_is_no_failure() -> None:
    body, transport, _ = open_body(Content_Length="3")
    source = open_source(body)
    transport.deliver(b"abc")
    transport.protocol.connection_lost(None)
    assert joined(await source.take(60)) == b"abc"
    assert source.failure is None
    assert source.ended


async def test_memory_is_used_again_only_after_a_body_that_came_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spare: list[memoryview] = []
    monkeypatch.setattr(body_sources, "_spare_blocks", spare)
    sent = Random(2).randbytes(10)
    for length, kept in ((20, 0), (10, 2), (10, 2)):
        body, transport, _ = open_body(Content_Length=str(length))
        source = open_source(body)
        transport.deliver(sent)
        transport.protocol.connection_lost(None)
        assert joined(await source.take(60)) == sent
        source.release()
        assert len(spare) == kept
