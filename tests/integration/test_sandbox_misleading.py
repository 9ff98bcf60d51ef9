"""Faults that mislead a client about money: flaps, forks, wrong ids, late and strange URLs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest

from pipeline.sandbox import Fault, Sandbox
from pipeline.sandbox.faults.broken_responses import ODD_HEADS
from pipeline.sandbox.faults.status_changes import BAD_URLS
from tests.integration.raw_client import (
    AUTH_HEADERS,
    GENERATIONS_PATH,
    create,
    get_status,
    instant_render_options,
    send_request,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG_URL: Final = "/v2/logs?period=24h"
LOG_VIEWS: Final[dict[str, tuple[float | None, list[str]]]] = {
    "log-frozen": (None, []),
    "log-lagging": (None, []),
    "log-behind": (2, ["row-2", "row-1", "row-0"]),
    "log-forked": (1, ["row-4", "row-3", "row-1", "row-0"]),
    "log-retention": (0, []),
}
"""The fault's value, and the rows that a client then sees of `row-0` to `row-4` in pages of two."""


async def create_rows(sandbox: Sandbox, count: int) -> None:
    for number in range(count):
        await create(sandbox, {"X-Client-Request-Id": f"row-{number}"}, prompt=f"take {number}")


async def create_prompts(sandbox: Sandbox, prompts: Sequence[str]) -> list[str]:
    return [(await create(sandbox, prompt=prompt)).json()["id"] for prompt in prompts]


async def read_log(sandbox: Sandbox) -> list[str]:
    """The correlation ids of all rows, in pages of two."""
    seen: list[str] = []
    more = True
    while more:
        url = f"{sandbox.url}{LOG_URL}&limit=2&offset={len(seen)}"
        page = (await send_request(url, headers=AUTH_HEADERS)).json()
        seen += [row["client_request_id"] for row in page["data"]]
        more = page["pagination"]["has_more"] and page["data"]
    return seen


@pytest.mark.parametrize("name", LOG_VIEWS)
async def test_the_log_misleads_in_its_own_way(name: str) -> None:
    value, rows = LOG_VIEWS[name]
    async with Sandbox(instant_render_options()) as sandbox:
        await create_rows(sandbox, 5)
        assert await read_log(sandbox) == [f"row-{number}" for number in (4, 3, 2, 1, 0)]
        sandbox.add_fault(Fault(name, value=value))
        assert await read_log(sandbox) == rows


async def test_a_frozen_log_keeps_the_rows_that_it_had() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("log-frozen", value=1))
        await create_rows(sandbox, 3)
        assert await read_log(sandbox) == ["row-0"]


async def test_a_row_may_lack_the_id_of_the_client() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("log-row-anonymous"))
        await create_rows(sandbox, 1)
        (row,) = (await send_request(sandbox.url + LOG_URL, headers=AUTH_HEADERS)).json()["data"]
        assert (row["client_request_id"], row["inference_id"]) == (None, sandbox.state.generations[0].id)


async def statuses(sandbox: Sandbox, generation_id: str, count: int) -> list[tuple[str, bool]]:
    """Status and presence of a video in so many answers."""
    body = [(await get_status(sandbox, generation_id)).json() for _ in range(count)]
    return [(one["status"], one["video"] is not None) for one in body]


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("completed-late-url", 2, [("completed", False), ("completed", False), ("completed", True)]),
        ("error-then-completed", None, [("error", False), ("completed", True), ("completed", True)]),
        ("completed-then-error", None, [("completed", True), ("error", False), ("error", False)]),
    ],
)
async def test_the_end_changes_with_the_answers_and_is_charged_once(
    name: str, value: float | None, seen: list[tuple[str, bool]]
) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name, value=value))
        made = (await create(sandbox)).json()["id"]
        assert await statuses(sandbox, made, 3) == seen
        assert sandbox.state.charged_usd == pytest.approx(0.4)


async def test_an_error_may_be_wrong_once() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("status-flap", times=1))
        made = (await create(sandbox)).json()["id"]
        assert await statuses(sandbox, made, 2) == [("error", False), ("completed", True)]


async def test_an_answer_may_be_about_another_generation() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("status-other-id", match="dog"))
        cat, dog = await create_prompts(sandbox, ["a cat", "a dog"])
        body = [(await get_status(sandbox, one)).json() for one in (cat, dog)]
        assert body[0] == body[1]
        assert body[0]["id"] == cat


async def test_two_creates_may_be_answered_with_one_id() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("id-of-another", match="dog"))
        cat, dog = await create(sandbox, prompt="a cat"), await create(sandbox, prompt="a dog")
        assert cat.json()["id"] == dog.json()["id"] == dog.headers["x-inference-id"]
        assert len({one.id for one in sandbox.state.generations}) == 2


async def test_each_clip_of_a_list_is_a_file_of_its_own_and_charged() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("video-list", value=3))
        answer = await get_status(sandbox, (await create(sandbox)).json()["id"])
        urls = [one["url"] for one in answer.json()["video"]]
        files = [(await send_request(url)).body for url in urls]
        assert len(set(files)) == 3
        assert float(answer.headers["x-aimlapi-usd-spent"]) == sandbox.state.charged_usd == pytest.approx(1.2)
        assert (await send_request(urls[2].replace("0.2-", "0.3-"))).status == 404


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("usd-missing", {"x-aimlapi-credits-used"}),
        ("cost-missing", set()),
        ("slow", {"x-aimlapi-credits-used", "x-aimlapi-usd-spent"}),
    ],
)
async def test_the_cost_may_be_missing(name: str, headers: set[str]) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name))
        answer = await get_status(sandbox, (await create(sandbox)).json()["id"])
        assert {one for one in answer.headers if one.startswith("x-aimlapi")} == headers


@pytest.mark.parametrize("name", BAD_URLS)
async def test_a_video_url_may_be_one_that_parsers_refuse(name: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("bad-url", value=name))
        body = (await get_status(sandbox, (await create(sandbox)).json()["id"])).json()
        assert body["video"]["url"] == BAD_URLS[name]


@pytest.mark.parametrize(
    ("name", "value"), [("gateway-accepted", 504), ("gateway-lost", 408), ("error-accepted", 460)]
)
@pytest.mark.parametrize("identified", [False, True])
async def test_a_gateway_may_name_the_inference(name: str, value: float, identified: bool) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name, value=value, with_inference_id=identified))
        answer = await create(sandbox)
        assert answer.status == value
        assert ("x-inference-id" in answer.headers) == identified
        if identified:
            known = (await get_status(sandbox, answer.headers["x-inference-id"])).status
            assert known == (404 if name == "gateway-lost" else 200)


@pytest.mark.parametrize("name", ["huge-header", "status-huge-header", "log-huge-header", "cdn-huge-header"])
async def test_one_header_is_larger_than_clients_take(name: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name))
        made = await create(sandbox)
        status = await get_status(sandbox, made.json()["id"])
        log = await send_request(sandbox.url + LOG_URL, headers=AUTH_HEADERS)
        video = await send_request(status.json()["video"]["url"])
        answers = (made, status, log, video)
        sizes = [len(answer.headers.get("content-security-policy", "")) for answer in answers]
        assert sum(size > 8190 for size in sizes) == 1


async def test_a_firewall_blocks_one_prompt_in_html_or_json() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("firewall", match="gun"))
        sandbox.add_fault(Fault("firewall", match="knife", value="json"))
        html, classic, spared = [await create(sandbox, prompt=prompt) for prompt in ("gun", "knife", "cat")]
        assert [html.status, classic.status, spared.status] == [403, 403, 200]
        assert html.headers["content-type"].startswith("text/html")
        assert classic.json()["statusCode"] == 403


async def test_a_fault_chooses_the_shape_of_its_error() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("server-error", match="cat", shape="problem"))
        sandbox.add_fault(Fault("server-error", match="dog"))
        cat, dog = await create(sandbox, prompt="a cat"), await create(sandbox, prompt="a dog")
        assert cat.headers["content-type"].startswith("application/problem+json")
        assert {"title", "status", "message", "instance", "requestId", "error"} == set(cat.json())
        assert {"message", "path", "requestId", "statusCode", "timestamp"} == set(dog.json())
        assert cat.json()["requestId"] == cat.headers["x-request-id"]


ODD_TEXTS: Final = {
    "many-headers": b"X-Trace-299: 299",
    "double-length": b"Content-Length",
    "space-before-colon": b"X-Odd : yes",
    "bytes-after": b"}\r\n\r\n",
    "bare-newlines": b"OK\n",
}


@pytest.mark.parametrize("kind", ODD_HEADS)
async def test_a_head_may_be_one_that_parsers_refuse(kind: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("status-odd-head", value=kind))
        made = (await create(sandbox)).json()["id"]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
        path = f"{GENERATIONS_PATH}?generation_id={quote(made, safe='')}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n".encode())
        received = await reader.read()
        writer.close()
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert received.count(ODD_TEXTS[kind]) == (2 if kind == "double-length" else 1)
        assert b'"status":"completed"' in received
