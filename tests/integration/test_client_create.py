"""A create against bare sockets: what every answer, and every lack of one, proves."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

import pytest

from pipeline.client import (
    Accepted,
    Api,
    OutcomeUnknown,
    Phase,
    RetryableRejection,
    StatusError,
)
from tests.integration.client_calls import (
    BODY,
    KEY,
    QUEUED_RESPONSE,
    SECRET,
    UNREADABLE_RESPONSES,
    create,
)
from tests.integration.raw_server import (
    RawServer,
    hang_past_timeout,
    never_respond,
    respond_with,
    response_head,
    send_and_close,
)
from tests.unit.test_client_answers import TABLE, detail_of

if TYPE_CHECKING:
    from pipeline.errors import StopReason

CUT_STATUSES = [(s, k, d) for s, m, k, d in TABLE if s >= 300 and "free-tier" not in m]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("status", "kind", "detail"), CUT_STATUSES)
async def test_a_status_that_arrived_counts_although_its_body_was_cut(
    status: int, kind: type, detail: StopReason | str | None, reset: bool
) -> None:
    head = response_head(status, {"Content-Type": "application/json", "Content-Length": "500"})
    verdict, _ = await create(send_and_close(head + b'{"message": "half', reset=reset))
    assert isinstance(verdict, kind)
    assert detail_of(verdict) == detail


@pytest.mark.parametrize(
    "data",
    [
        response_head(200, {"x-inference-id": "g-1", "Content-Length": "0"}),
        response_head(201, {"x-inference-id": "g-1", "Content-Length": "9"}) + b"<!doctype",
        response_head(200, {"x-inference-id": "g-1", "Content-Length": "2"}) + b"{}",
        response_head(200, {"x-inference-id": "g-1", "Content-Length": "500"}) + b'{"id": "g',
        response_head(200, {"x-inference-id": "g-1", "Transfer-Encoding": "chunked"}) + b'4\r\n{"id\r\n',
        response_head(200, {"x-inference-id": "g-1", "Content-Encoding": "gzip", "Content-Length": "5"})
        + b"plain",
        response_head(204, {"x-inference-id": "g-1"}),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_the_header_saves_an_acceptance_whose_body_was_lost(data: bytes, reset: bool) -> None:
    verdict, _ = await create(send_and_close(data, reset=reset))
    assert isinstance(verdict, Accepted)
    assert verdict.generation_id == "g-1"
    assert verdict.generation_status.phase is Phase.UNKNOWN


@pytest.mark.parametrize("name", UNREADABLE_RESPONSES)
async def test_no_response_after_body_was_sent_is_outcome_unknown(name: str) -> None:
    verdict, wire = await create(UNREADABLE_RESPONSES[name])
    assert isinstance(verdict, OutcomeUnknown), verdict
    assert verdict.message
    assert len(wire.requests) == 1


async def test_a_reset_before_the_body_was_read_proves_nothing_either() -> None:
    """How much the server has read nobody can know: the connection stood, so something may have arrived."""
    verdict, _ = await create(send_and_close(b"", reset=True), early=True)
    assert isinstance(verdict, OutcomeUnknown)


async def test_a_create_that_is_not_answered_in_time_is_unknown() -> None:
    verdict, wire = await create(hang_past_timeout)
    assert isinstance(verdict, OutcomeUnknown)
    assert "timed out" in verdict.message
    assert len(wire.requests) == 1


async def test_an_answer_that_does_not_end_in_time_counts_by_its_head() -> None:
    async def begins(writer: asyncio.StreamWriter) -> None:
        writer.write(response_head(200, {"x-inference-id": "g-1", "Content-Length": "9"}))
        await never_respond(writer)

    verdict, _ = await create(begins, timeout_s=0.3)
    assert isinstance(verdict, Accepted)


async def test_a_refused_connection_was_never_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with Api(f"http://127.0.0.1:{taken.getsockname()[1]}", KEY) as api:
            verdict = await api.create(BODY, "c")
            seen = await api.get_status("a:b/c")
            page = await api.log_page({"period": "24h"}, limit=1, offset=0)
            assert await api.balance() is None
    assert isinstance(verdict, RetryableRejection)
    assert not verdict.reached
    assert api.base_url in verdict.message
    assert isinstance(seen, StatusError)
    assert isinstance(page, StatusError)
    assert seen.http_status == page.http_status == 0


async def test_a_name_that_does_not_exist_was_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with Api("http://api.no-such-vendor.invalid", KEY) as api:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
        verdict = await api.create(BODY, "c")
    assert isinstance(verdict, RetryableRejection)
    assert not verdict.reached


async def test_tls_to_a_plain_port_was_never_sent() -> None:
    async with (
        RawServer(never_respond) as wire,
        Api(f"https://127.0.0.1:{wire.port}", KEY, timeout_s=0.3) as api,
    ):
        hung = await api.create(BODY, "c")
    plain = RawServer(send_and_close(b"HTTP/1.1 400 Plain\r\n\r\n"), before_request=True)
    async with plain, Api(f"https://127.0.0.1:{plain.port}", KEY) as api:
        refused = await api.create(BODY, "c")
    for verdict in (hung, refused):
        assert isinstance(verdict, RetryableRejection)
        assert not verdict.reached
    assert wire.requests == []


async def test_a_create_is_what_the_vendor_wants_to_see() -> None:
    verdict, wire = await create(respond_with(200, QUEUED_RESPONSE))
    assert isinstance(verdict, Accepted)
    [heard] = wire.requests
    assert heard.request_line == "POST /v2/video/generations HTTP/1.1"
    assert heard.headers["authorization"] == f"Bearer {SECRET}"
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["x-client-request-id"] == "vb.x.1"
    assert heard.headers["user-agent"].startswith("veobatch/")
    assert json.loads(heard.body) == json.loads(BODY)


async def test_no_create_goes_over_a_connection_that_was_used() -> None:
    """A server may close a kept-alive connection at the moment of reuse, and then nobody knows."""
    async with RawServer(respond_with(200, QUEUED_RESPONSE)) as wire, Api(wire.url, KEY) as api:
        for _ in range(3):
            assert isinstance(await api.create(BODY, "c"), Accepted)
    assert (wire.connections, len(wire.requests)) == (3, 3)


@pytest.mark.parametrize(
    "header", [b"X-Odd : 1", b"Content-Length: 2\r\nContent-Length: 2", b"no colon", b"X-\xe4: 1"]
)
async def test_an_answer_that_came_and_cannot_be_read_is_not_called_missing(header: bytes) -> None:
    """aiohttp reports it as an answer of status 400, which no server sent."""
    verdict, _ = await create(send_and_close(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n{}"))
    assert isinstance(verdict, OutcomeUnknown)
    assert verdict.message.startswith("the answer cannot be read: ")
    assert "400" not in verdict.message
