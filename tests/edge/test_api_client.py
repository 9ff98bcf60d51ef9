"""The client against bare sockets: what every answer, and every lack of one, proves."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.api import (
    Accepted,
    Api,
    ApiKey,
    CreateVerdict,
    Halted,
    LogPage,
    Look,
    LookTrouble,
    NotAccepted,
    Phase,
    Refused,
    Throttled,
    Unknown,
    client,
)
from pipeline.api.client import is_quota
from pipeline.errors import StopReason
from tests.edge.wires import Wire, hangs, raw, says, sends

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Act = Callable[[asyncio.StreamWriter], Awaitable[None]]

SECRET = "sk-hush-0123456789"
KEY = ApiKey(SECRET, "AIML_API_KEY")
BODY = json.dumps({"model": "m", "prompt": "Ünïcode 🎬"}, ensure_ascii=False)
GOOD = {"id": "a:b/c", "status": "queued", "video": None, "error": None}


def words_of(verdict: object) -> str:
    """All that a verdict says, for a look through it."""
    return repr(verdict)


async def create(act: Act, *, early: bool = False, timeout_s: float = 5.0) -> tuple[CreateVerdict, Wire]:
    async with Wire(act, early=early) as wire, Api(wire.url + "/v2/", KEY, timeout_s=timeout_s) as api:
        return await api.create(BODY, "vb.x.1"), wire


async def look(
    act: Act, generation_id: str = "g", *, timeout_s: float = 5.0
) -> tuple[Look | LookTrouble, Wire]:
    async with Wire(act) as wire, Api(wire.url, KEY, timeout_s=timeout_s) as api:
        return await api.look(generation_id), wire


def vendor(status: int, message: str) -> dict[str, Any]:
    return {"message": message, "path": "/v2", "requestId": "r", "statusCode": str(status), "timestamp": "t"}


TABLE: list[tuple[int, str, type, StopReason | str | None]] = [
    (200, "", Accepted, None),
    (201, "", Accepted, None),
    (202, "", Accepted, None),
    (400, "duration must be 4, 6 or 8", Refused, "refused"),
    (405, "no", Refused, "refused"),
    (409, "no", Refused, "refused"),
    (413, "too large", Refused, "refused"),
    (422, "prompt is too long", Refused, "refused"),
    (404, "Model x was not found", Refused, "not_found"),
    (401, "Invalid API key", Halted, StopReason.KEY),
    (402, "Payment required", Halted, StopReason.CREDITS),
    (403, "You've run out of credits", Halted, StopReason.CREDITS),
    (429, "Too many requests", Throttled, None),
    (429, "Too many generations at once", Throttled, None),
    (425, "Too early", Throttled, None),
    (429, "You have reached the free-tier limit of 10 requests for the hour", Halted, StopReason.QUOTA),
    (500, "Internal error", NotAccepted, None),
    (503, "Unavailable", NotAccepted, None),
    (502, "Bad gateway", Unknown, None),
    (504, "Gateway timeout", Unknown, None),
    (520, "Odd", Unknown, None),
    (408, "Request timeout", Unknown, None),
    (301, "", Halted, StopReason.UNREACHABLE),
    (307, "", Halted, StopReason.UNREACHABLE),
]


def detail_of(verdict: CreateVerdict) -> StopReason | str | None:
    match verdict:
        case Halted(reason=reason):
            return reason
        case Refused(failure=failure):
            return failure.code
        case _:
            return None


@pytest.mark.parametrize(("status", "message", "kind", "detail"), TABLE)
async def test_every_status_of_a_create(
    status: int, message: str, kind: type, detail: StopReason | str | None
) -> None:
    verdict, _ = await create(says(status, GOOD if status < 300 else vendor(status, message)))
    assert isinstance(verdict, kind)
    assert detail_of(verdict) == detail
    if status >= 400:
        assert message in words_of(verdict).replace("\\'", "'")
    if isinstance(verdict, NotAccepted):
        assert verdict.reached


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><h1>Sorry</h1></html>", b"\xff\xfe", b"[]", b'{"message": ["a", "b"]}', b"{" * 5000],
)
@pytest.mark.parametrize(
    ("status", "kind"), [(400, Refused), (429, Throttled), (500, NotAccepted), (502, Unknown)]
)
async def test_an_odd_body_changes_nothing_about_a_status(status: int, kind: type, body: bytes) -> None:
    verdict, _ = await create(says(status, body))
    assert isinstance(verdict, kind)
    words_of(verdict).encode()


CUT_STATUSES = [(s, k, d) for s, m, k, d in TABLE if s >= 300 and "free-tier" not in m]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("status", "kind", "detail"), CUT_STATUSES)
async def test_a_status_that_arrived_counts_although_its_body_was_cut(
    status: int, kind: type, detail: StopReason | str | None, reset: bool
) -> None:
    head = raw(status, {"Content-Type": "application/json", "Content-Length": "500"})
    verdict, _ = await create(sends(head + b'{"message": "half', reset=reset))
    assert isinstance(verdict, kind)
    assert detail_of(verdict) == detail


@pytest.mark.parametrize(
    ("payload", "identity"),
    [
        ({"id": "812d:google/veo", "status": "queued"}, "812d:google/veo"),
        ({"id": 4711, "status": "queued"}, "4711"),
        ({"generation_id": "-V1StGXR8_Z5", "status": "waiting"}, "-V1StGXR8_Z5"),
        ({"id": "x"}, "x"),
    ],
)
async def test_an_acceptance_is_read_with_its_id(payload: dict[str, Any], identity: str) -> None:
    verdict, _ = await create(says(200, payload, x_inference_id="another"))
    assert isinstance(verdict, Accepted)
    assert verdict.generation_id == identity


@pytest.mark.parametrize(
    "data",
    [
        raw(200, {"x-inference-id": "g-1", "Content-Length": "0"}),
        raw(201, {"x-inference-id": "g-1", "Content-Length": "9"}) + b"<!doctype",
        raw(200, {"x-inference-id": "g-1", "Content-Length": "2"}) + b"{}",
        raw(200, {"x-inference-id": "g-1", "Content-Length": "500"}) + b'{"id": "g',
        raw(200, {"x-inference-id": "g-1", "Transfer-Encoding": "chunked"}) + b'4\r\n{"id\r\n',
        raw(200, {"x-inference-id": "g-1", "Content-Encoding": "gzip", "Content-Length": "5"}) + b"plain",
        raw(204, {"x-inference-id": "g-1"}),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_the_header_saves_an_acceptance_whose_body_was_lost(data: bytes, reset: bool) -> None:
    verdict, _ = await create(sends(data, reset=reset))
    assert isinstance(verdict, Accepted)
    assert verdict.generation_id == "g-1"
    assert verdict.look.phase is Phase.UNKNOWN


UNKNOWNS = {
    "an empty 200": sends(raw(200, {"Content-Length": "0"})),
    "a 200 without an id": says(200, {"status": "queued"}),
    "a 200 of no JSON": says(200, b"<html>"),
    "a 200 cut in its body": sends(raw(200, {"Content-Length": "500"}) + b'{"id": "g'),
    "a 200 reset in its body": sends(raw(200, {"Content-Length": "500"}) + b'{"id": "g', reset=True),
    "a 200 of half characters": says(200, b'{"id": "\xff"}'),
    "a close without a word": sends(b""),
    "a reset without a word": sends(b"", reset=True),
    "half a status line": sends(b"HTTP/1.1 20"),
    "half a head": sends(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "no HTTP": sends(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "a head without an end": sends(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000),
}


@pytest.mark.parametrize("name", UNKNOWNS)
async def test_after_the_body_was_sent_silence_proves_nothing(name: str) -> None:
    verdict, wire = await create(UNKNOWNS[name])
    assert isinstance(verdict, Unknown), verdict
    assert verdict.message
    assert len(wire.heard) == 1


async def test_a_reset_before_the_body_was_read_proves_nothing_either() -> None:
    """How much the server has read nobody can know: the connection stood, so something may have arrived."""
    verdict, _ = await create(sends(b"", reset=True), early=True)
    assert isinstance(verdict, Unknown)


async def test_a_create_that_is_not_answered_in_time_is_unknown() -> None:
    verdict, wire = await create(hangs, timeout_s=0.3)
    assert isinstance(verdict, Unknown)
    assert "timed out" in verdict.message
    assert len(wire.heard) == 1


async def test_an_answer_that_does_not_end_in_time_counts_by_its_head() -> None:
    async def begins(writer: asyncio.StreamWriter) -> None:
        writer.write(raw(200, {"x-inference-id": "g-1", "Content-Length": "9"}))
        await hangs(writer)

    verdict, _ = await create(begins, timeout_s=0.3)
    assert isinstance(verdict, Accepted)


async def test_a_refused_connection_was_never_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with Api(f"http://127.0.0.1:{taken.getsockname()[1]}", KEY) as api:
            verdict = await api.create(BODY, "c")
            seen = await api.look("g")
            page = await api.log_page({"period": "24h"}, limit=1, offset=0)
            assert await api.balance() is None
    assert isinstance(verdict, NotAccepted)
    assert not verdict.reached
    assert api.base_url in verdict.message
    assert isinstance(seen, LookTrouble)
    assert isinstance(page, LookTrouble)
    assert seen.code == page.code == 0


async def test_a_name_that_does_not_exist_was_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with Api("http://api.no-such-vendor.invalid", KEY) as api:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
        verdict = await api.create(BODY, "c")
    assert isinstance(verdict, NotAccepted)
    assert not verdict.reached


async def test_tls_to_a_plain_port_was_never_sent() -> None:
    async with Wire(hangs) as wire, Api(f"https://127.0.0.1:{wire.port}", KEY, timeout_s=0.3) as api:
        hung = await api.create(BODY, "c")
    plain = Wire(sends(b"HTTP/1.1 400 Plain\r\n\r\n"), early=True)
    async with plain, Api(f"https://127.0.0.1:{plain.port}", KEY) as api:
        refused = await api.create(BODY, "c")
    for verdict in (hung, refused):
        assert isinstance(verdict, NotAccepted)
        assert not verdict.reached
    assert wire.heard == []


async def test_a_create_is_what_the_vendor_wants_to_see() -> None:
    verdict, wire = await create(says(200, GOOD))
    assert isinstance(verdict, Accepted)
    [heard] = wire.heard
    assert heard.line == "POST /v2/video/generations HTTP/1.1"
    assert heard.headers["authorization"] == f"Bearer {SECRET}"
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["x-client-request-id"] == "vb.x.1"
    assert heard.headers["user-agent"].startswith("veobatch/")
    assert json.loads(heard.body) == json.loads(BODY)


async def test_no_create_goes_over_a_connection_that_was_used() -> None:
    """A server may close a kept-alive connection at the moment of reuse, and then nobody knows."""
    async with Wire(says(200, GOOD)) as wire, Api(wire.url, KEY) as api:
        for _ in range(3):
            assert isinstance(await api.create(BODY, "c"), Accepted)
    assert (wire.connections, len(wire.heard)) == (3, 3)


async def test_a_create_is_never_sent_twice_by_itself() -> None:
    for act in UNKNOWNS.values():
        _, wire = await create(act)
        assert len(wire.heard) == 1


async def test_a_body_with_half_a_character_is_sent_without_it() -> None:
    async with Wire(says(200, GOOD)) as wire, Api(wire.url, KEY) as api:
        verdict = await api.create('{"prompt": "a\ud800b"}', "c")
    assert isinstance(verdict, Accepted)
    assert json.loads(wire.heard[0].body) == {"prompt": "a?b"}


async def test_looks_share_connections_and_survive_their_closing() -> None:
    async with Wire(says(200, GOOD)) as wire, Api(wire.url, KEY) as api:
        for _ in range(5):
            assert isinstance(await api.look("g"), Look)
        assert wire.connections == 1

    async def once(writer: asyncio.StreamWriter) -> None:
        await says(200, GOOD)(writer)
        writer.close()

    async with Wire(once) as wire, Api(wire.url, KEY) as api:
        for _ in range(5):
            assert isinstance(await api.look("g"), Look)
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

    _, wire = await look(says(200, GOOD), identity)
    [heard] = wire.heard
    parts = urlsplit(heard.target)
    assert parts.path == "/v2/video/generations"
    assert parse_qs(parts.query, keep_blank_values=True) == {
        "generation_id": [identity.replace("\ud800", "?")]
    }
    assert not any(char in heard.target for char in " #+")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 429, 500, 502, 503, 301])
async def test_a_look_that_was_refused_is_trouble_with_its_status(status: int) -> None:
    seen, _ = await look(says(status, vendor(status, "the words"), Retry_After="7", Location="/elsewhere"))
    assert seen == LookTrouble(status, f"HTTP {status}: the words", "7")


BLIND = {
    **{name: act for name, act in UNKNOWNS.items() if name != "a 200 without an id"},
    "chunks that are none": sends(raw(200, {"Transfer-Encoding": "chunked"}) + b"zz\r\n"),
    "gzip that is none": says(200, b"plain", Content_Encoding="gzip"),
    "an encoding nobody knows": says(200, b"plain", Content_Encoding="zstd"),
    "a list": says(200, b"[1]"),
    "deep nesting": says(200, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}


@pytest.mark.parametrize("name", BLIND)
async def test_a_look_that_saw_nothing_is_trouble_and_nothing_more(name: str) -> None:
    seen, _ = await look(BLIND[name])
    assert isinstance(seen, LookTrouble)
    assert seen.message
    assert len(seen.message) < 1000


async def test_a_look_that_hangs_ends_by_its_timeout() -> None:
    seen, _ = await look(hangs, timeout_s=0.3)
    assert seen == LookTrouble(0, "timed out")


@pytest.mark.parametrize("how", ["length", "chunks", "gzip", "liar"])
async def test_an_answer_larger_than_any_is_not_read_to_its_end(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 50_000)
    size = 1_000_000
    bodies = {
        "length": raw(200, {"Content-Length": str(size)}) + b" " * size,
        "chunks": raw(200, {"Transfer-Encoding": "chunked"}) + b"%x\r\n" % size + b" " * size,
        "gzip": raw(200, {"Content-Encoding": "gzip", "Connection": "close"}) + gzip.compress(b" " * size),
        "liar": raw(200, {"Connection": "close"}) + b" " * size,
    }
    seen, _ = await look(sends(bodies[how]))
    assert isinstance(seen, LookTrouble)
    assert "50000" in seen.message
    verdict, _ = await create(sends(bodies[how]))
    assert isinstance(verdict, Unknown)


async def test_a_compressed_answer_is_read() -> None:
    data = gzip.compress(
        json.dumps({"id": "g", "status": "completed", "video": {"url": "https://c/x"}}).encode()
    )
    seen, _ = await look(says(200, data, Content_Encoding="gzip", x_aimlapi_usd_spent="0.6"))
    assert isinstance(seen, Look)
    assert (seen.phase, seen.video_url, seen.usd_spent) == (Phase.COMPLETED, "https://c/x", 0.6)


async def test_the_key_goes_to_the_base_urls_host_and_nowhere_else() -> None:
    async with Wire(says(200, GOOD)) as elsewhere:
        location = f"http://127.0.0.2:{elsewhere.port}/v2/video/generations"
        for status in (301, 302, 303, 307, 308):
            async with Wire(says(status, b"", Location=location)) as wire, Api(wire.url, KEY) as api:
                verdict = await api.create(BODY, "c")
                seen = await api.look("g")
                page = await api.log_page({"period": "24h"}, limit=1, offset=0)
            assert isinstance(verdict, Halted)
            assert isinstance(seen, LookTrouble)
            assert isinstance(page, LookTrouble)
            assert {heard.headers["authorization"] for heard in wire.heard} == {f"Bearer {SECRET}"}
        assert elsewhere.heard == []


async def test_the_session_for_everything_else_carries_no_key() -> None:
    async with Wire(says(200, b"film", Set_Cookie="a=b")) as wire, Api(wire.url, KEY) as api:
        for _ in range(2):
            async with api.plain.get(wire.url + "/film.mp4") as response:
                assert await response.read() == b"film"
    for heard in wire.heard:
        assert SECRET not in repr(heard)
        assert "cookie" not in heard.headers


async def test_cookies_of_the_vendor_are_not_kept() -> None:
    async with Wire(says(200, GOOD, Set_Cookie="session=1")) as wire, Api(wire.url, KEY) as api:
        for _ in range(2):
            await api.look("g")
    assert all("cookie" not in heard.headers for heard in wire.heard)


ECHO = json.dumps({"message": f"Incorrect API key provided: {SECRET}", "error": {"message": SECRET}}).encode()


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 502])
async def test_a_vendor_that_repeats_the_key_does_not_make_us_say_it(status: int) -> None:
    verdict, _ = await create(says(status, ECHO))
    seen, _ = await look(says(status, ECHO))
    assert SECRET not in words_of(verdict)
    assert SECRET not in words_of(seen)


async def test_bytes_that_are_no_http_and_hold_the_key_do_not_make_us_say_it() -> None:
    act = sends(SECRET.encode() + b"\r\n\r\n")
    verdict, _ = await create(act)
    seen, _ = await look(act)
    assert SECRET not in words_of(verdict)
    assert SECRET not in words_of(seen)


async def test_an_inference_id_of_odd_bytes_can_be_looked_up() -> None:
    data = b"HTTP/1.1 200 OK\r\nx-inference-id: a\xffb\r\nContent-Length: 0\r\n\r\n"
    verdict, _ = await create(sends(data))
    assert isinstance(verdict, Accepted)
    verdict.generation_id.encode()
    seen, _ = await look(says(200, GOOD), verdict.generation_id)
    assert isinstance(seen, Look)


async def test_a_final_answer_to_a_create_is_read_as_one() -> None:
    done = {"id": "g", "status": "completed", "video": {"url": "https://c/x.mp4"}}
    verdict, _ = await create(says(201, done))
    assert isinstance(verdict, Accepted)
    assert verdict.look.phase is Phase.COMPLETED
    bad, _ = await create(says(200, {"status": "error", "error": {"message": "blocked by policy"}}))
    assert isinstance(bad, Refused)
    assert bad.failure.code == "content_refused"


async def test_the_log_is_asked_as_documented() -> None:
    rows = {"data": [{"client_request_id": "c", "inference_id": "g"}], "pagination": {"has_more": False}}
    async with Wire(says(200, rows)) as wire, Api(wire.url + "/v1", KEY) as api:
        page = await api.log_page(
            {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}, limit=9, offset=18
        )
    assert isinstance(page, LogPage)
    assert [row.inference_id for row in page.rows] == ["g"]
    target = wire.heard[0].target
    assert target.startswith("/v2/logs?start=2026-01-01T00%3A00%3A00Z&")
    assert target.endswith("&limit=9&offset=18")


@pytest.mark.parametrize(
    ("status", "body", "balance"),
    [
        (200, b'{"current_balance": 12.5, "currency": "USD"}', 12.5),
        (200, b'{"current_balance": 0}', 0.0),
        (200, b'{"current_balance": "12"}', None),
        (200, b'{"current_balance": true}', None),
        (200, b"{}", None),
        (200, b"<html>", None),
        (500, b"{}", None),
    ],
)
async def test_the_balance_is_a_number_or_nothing(status: int, body: bytes, balance: float | None) -> None:
    async with Wire(says(status, body)) as wire, Api(wire.url, KEY) as api:
        assert await api.balance() == balance


@pytest.mark.parametrize(
    ("words", "retry_after", "quota"),
    [
        ("You have reached the free-tier limit of 10 requests for the hour", None, True),
        ("Free tier exhausted", None, True),
        ("Your daily quota is used up", None, True),
        ("Limit of 100 generations per day reached", None, True),
        ("hourly limit exceeded", None, True),
        ("Too many requests", "3600", True),
        ("Too many requests", "600", True),
        ("Too many requests", "599", False),
        ("Too many requests", "5", False),
        ("Too many requests", "Wed, 21 Oct 2026 07:28:00 GMT", False),
        ("Too many requests", "9" * 400, True),
        ("Rate limit exceeded", None, False),
        ("Concurrency limit reached", None, False),
        ("", None, False),
        ("per day", None, False),
    ],
)
def test_a_quota_is_told_from_a_pace(words: str, retry_after: str | None, quota: bool) -> None:
    assert is_quota(words, retry_after) is quota


async def test_a_wait_that_was_asked_for_is_handed_on() -> None:
    verdict, _ = await create(says(429, vendor(429, "slow down"), Retry_After="12"))
    assert verdict == Throttled("HTTP 429: slow down", "12")
    quota, _ = await create(says(429, vendor(429, "free-tier limit for the hour"), Retry_After="1800"))
    assert isinstance(quota, Halted)
    assert quota.retry_after == "1800"


async def test_a_refused_key_names_the_variable_and_a_wrong_address_the_url() -> None:
    verdict, wire = await create(says(401, vendor(401, "no")))
    assert "AIML_API_KEY" in words_of(verdict)
    missing, wire = await create(says(404, vendor(404, "Cannot POST")))
    assert f"{wire.url}/v2/video/generations" in words_of(missing)
