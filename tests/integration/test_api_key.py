"""The key goes to the vendor alone, whatever the vendor does with it."""

from __future__ import annotations

import json

import pytest

from pipeline.client import Api, Halted, LookTrouble
from tests.integration.clients import BODY, GOOD, KEY, SECRET, create, look, words_of
from tests.integration.wires import Wire, says, sends


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
