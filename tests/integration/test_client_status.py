"""A look against bare sockets: what was seen, or trouble and nothing more."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from pipeline.client import Api, GenerationStatus, OutcomeUnknown, Phase, StatusError, connection
from tests.integration.client_calls import (
    KEY,
    QUEUED_RESPONSE,
    UNREADABLE_RESPONSES,
    create,
    get_status,
)
from tests.integration.raw_server import (
    RawServer,
    hang_past_timeout,
    respond_with,
    response_head,
    send_and_close,
)

if TYPE_CHECKING:
    import asyncio


async def test_polls_share_connections_and_survive_their_closing() -> None:
    async with RawServer(respond_with(200, QUEUED_RESPONSE)) as wire, Api(wire.url, KEY) as api:
        for _ in range(5):
            assert isinstance(await api.get_status("a:b/c"), GenerationStatus)
        assert wire.connections == 1

    async def once(writer: asyncio.StreamWriter) -> None:
        await respond_with(200, QUEUED_RESPONSE)(writer)
        writer.close()

    async with RawServer(once) as wire, Api(wire.url, KEY) as api:
        for _ in range(5):
            assert isinstance(await api.get_status("a:b/c"), GenerationStatus)
        assert wire.connections == 5


IDS = [
    "812dcc2d-05ba-4ea4-bd79-062be27269c3:google/veo-3.1-i2v-fast",
    "../../x:a/b?c=%2e#d&e=f+g h",
    "-V1StGXR8_Z5",
    "ünïcode",
    "4711",
    "a\ud800b",
]


@pytest.mark.parametrize("identity", IDS)
async def test_an_id_reaches_the_vendor_as_it_was(identity: str) -> None:
    from urllib.parse import parse_qs, urlsplit

    _, wire = await get_status(respond_with(200, QUEUED_RESPONSE), identity)
    [heard] = wire.requests
    parts = urlsplit(heard.target)
    assert parts.path == "/v2/video/generations"
    assert parse_qs(parts.query, keep_blank_values=True) == {
        "generation_id": [identity.replace("\ud800", "?")]
    }
    assert not any(char in heard.target for char in " #+")


STATUS_FAILURES = {
    **{name: act for name, act in UNREADABLE_RESPONSES.items() if name != "a 200 without an id"},
    "chunks that are none": send_and_close(response_head(200, {"Transfer-Encoding": "chunked"}) + b"zz\r\n"),
    "gzip that is none": respond_with(200, b"plain", Content_Encoding="gzip"),
    "an encoding nobody knows": respond_with(200, b"plain", Content_Encoding="zstd"),
}


@pytest.mark.parametrize("name", STATUS_FAILURES)
async def test_unreadable_status_is_an_error_and_nothing_more(name: str) -> None:
    seen, _ = await get_status(STATUS_FAILURES[name])
    assert isinstance(seen, StatusError)
    assert seen.message
    assert len(seen.message) < 1000


async def test_hanging_poll_times_out() -> None:
    seen, _ = await get_status(hang_past_timeout)
    assert seen == StatusError(0, "timed out")


@pytest.mark.parametrize("how", ["length", "chunks", "gzip", "liar"])
async def test_an_answer_larger_than_any_is_not_read_to_its_end(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_RESPONSE_BYTES", 50_000)
    size = 1_000_000
    bodies = {
        "length": response_head(200, {"Content-Length": str(size)}) + b" " * size,
        "chunks": response_head(200, {"Transfer-Encoding": "chunked"}) + b"%x\r\n" % size + b" " * size,
        "gzip": response_head(200, {"Content-Encoding": "gzip", "Connection": "close"})
        + gzip.compress(b" " * size),
        "liar": response_head(200, {"Connection": "close"}) + b" " * size,
    }
    seen, _ = await get_status(send_and_close(bodies[how]))
    assert isinstance(seen, StatusError)
    assert "50000" in seen.message
    verdict, _ = await create(send_and_close(bodies[how]))
    assert isinstance(verdict, OutcomeUnknown)


async def test_a_compressed_answer_is_read() -> None:
    data = gzip.compress(
        json.dumps({"id": "g", "status": "completed", "video": {"url": "https://c/x"}}).encode()
    )
    seen, _ = await get_status(respond_with(200, data, Content_Encoding="gzip", x_aimlapi_usd_spent="0.6"))
    assert isinstance(seen, GenerationStatus)
    assert (seen.phase, seen.video_url, seen.usd_spent) == (Phase.COMPLETED, "https://c/x", 0.6)
