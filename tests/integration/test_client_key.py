"""The key goes to the vendor alone, whatever the vendor does with it."""

from __future__ import annotations

from pipeline.client import AccountBlocked, Api, OutcomeUnknown, StatusError
from tests.integration.client_calls import BODY, KEY, QUEUED_RESPONSE, SECRET, create, get_status, text_of
from tests.integration.raw_server import RawServer, respond_with, send_and_close


async def test_the_key_goes_to_the_base_urls_host_and_nowhere_else() -> None:
    async with RawServer(respond_with(200, QUEUED_RESPONSE)) as elsewhere:
        location = f"http://127.0.0.2:{elsewhere.port}/v2/video/generations"
        for status in (301, 302, 303, 307, 308):
            async with (
                RawServer(respond_with(status, b"", Location=location)) as wire,
                Api(wire.url, KEY) as api,
            ):
                verdict = await api.create(BODY, "c")
                seen = await api.get_status("a:b/c")
                page = await api.log_page({"period": "24h"}, limit=1, offset=0)
            assert isinstance(verdict, OutcomeUnknown if status == 303 else AccountBlocked)
            assert isinstance(seen, StatusError)
            assert isinstance(page, StatusError)
            assert {heard.headers["authorization"] for heard in wire.requests} == {f"Bearer {SECRET}"}
        assert elsewhere.requests == []


async def test_the_session_for_everything_else_carries_no_key() -> None:
    async with RawServer(respond_with(200, b"film", Set_Cookie="a=b")) as wire, Api(wire.url, KEY) as api:
        for _ in range(2):
            async with api.keyless_session.get(wire.url + "/film.mp4") as response:
                assert await response.read() == b"film"
    for heard in wire.requests:
        assert SECRET not in repr(heard)
        assert "cookie" not in heard.headers


async def test_cookies_of_the_vendor_are_not_kept() -> None:
    async with (
        RawServer(respond_with(200, QUEUED_RESPONSE, Set_Cookie="session=1")) as wire,
        Api(wire.url, KEY) as api,
    ):
        for _ in range(2):
            await api.get_status("a:b/c")
    assert all("cookie" not in heard.headers for heard in wire.requests)


async def test_bytes_that_are_no_http_and_hold_the_key_do_not_make_us_say_it() -> None:
    act = send_and_close(SECRET.encode() + b"\r\n\r\n")
    verdict, _ = await create(act)
    seen, _ = await get_status(act)
    assert SECRET not in text_of(verdict)
    assert SECRET not in text_of(seen)
