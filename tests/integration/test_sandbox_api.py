"""The sandbox's API without faults: answers, checks, statuses, log, billing, models."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest

from pipeline.sandbox import Fault, Sandbox, SandboxOptions
from tests.integration.raw_client import (
    AUTH_HEADERS,
    GENERATIONS_PATH,
    VALID_BODY,
    RawResponse,
    create,
    get_status,
    instant_render_options,
    send_request,
)

USAGE_SCHEMA = {
    "type": "object",
    "properties": {"credits_used": {"type": "number"}},
    "required": ["credits_used"],
}
GENERATION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "status": {"enum": ["waiting", "queued", "active", "generating", "completed", "error"]},
        "video": {
            "type": ["object", "null"],
            "properties": {"url": {"type": "string", "pattern": "^https?://"}},
            "required": ["url"],
        },
        "error": {
            "type": ["object", "null"],
            "properties": {"name": {"type": "string"}, "message": {"type": "string"}},
            "required": ["name", "message"],
        },
        "meta": {"type": ["object", "null"], "properties": {"usage": USAGE_SCHEMA}},
    },
    "required": ["id", "status"],
}
"""A generation, by the vendor's public OpenAPI and the statuses of its guides."""

ERROR_SCHEMA = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "minLength": 1},
        "path": {"type": "string", "pattern": "^/"},
        "requestId": {"type": "string", "minLength": 1},
        "statusCode": {"type": ["integer", "string"]},
        "timestamp": {"type": "string", "pattern": "^20.*Z$"},
    },
    "required": ["message", "path", "requestId", "statusCode", "timestamp"],
}


async def logs(sandbox: Sandbox, query: str = "") -> RawResponse:
    return await send_request(f"{sandbox.url}/v2/logs{query or '?period=24h'}", headers=AUTH_HEADERS)


async def test_a_generation_passes_through_its_statuses_to_a_video() -> None:
    async with Sandbox(instant_render_options(durations="fixed:1000")) as sandbox:
        made = (await create(sandbox)).json()
        jsonschema.validate(made, GENERATION_SCHEMA)
        assert made["status"] == "queued"
        seen = []
        for age_s in (0, 60, 150, 500, 2000):
            sandbox.state.generations[0].created_at = time.time() - age_s
            body = (await get_status(sandbox, made["id"])).json()
            jsonschema.validate(body, GENERATION_SCHEMA)
            seen.append(body["status"])
            assert (body["video"] is not None) == (body["status"] == "completed")
        assert seen == ["waiting", "queued", "active", "generating", "completed"]
        assert body["meta"]["usage"]["credits_used"] > 0
        assert body["video"]["url"].startswith(sandbox.cdn_url)


async def test_create_answers_with_the_correlation_headers_and_the_chosen_status() -> None:
    async with Sandbox(instant_render_options(create_status=201)) as sandbox:
        answer = await create(sandbox, {"X-Client-Request-Id": "run.1:row_2-3"})
        assert answer.status == 201
        assert answer.headers["x-inference-id"] == answer.json()["id"]
        assert answer.headers["x-client-request-id"] == "run.1:row_2-3"
        done = await get_status(sandbox, answer.json()["id"])
        assert float(done.headers["x-aimlapi-usd-spent"]) == pytest.approx(0.4)
        assert int(done.headers["x-aimlapi-credits-used"]) == done.json()["meta"]["usage"]["credits_used"]
        assert [one.id for one in sandbox.state.find_by_correlation_id("run.1:row_2-3")] == [
            answer.json()["id"]
        ]


@pytest.mark.parametrize("given", ["with space", "a/b", "é", "x" * 129, ""])
async def test_a_correlation_id_outside_the_alphabet_is_dropped_silently(given: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        answer = await create(sandbox, {"X-Client-Request-Id": given})
        assert answer.status == 200
        assert "x-client-request-id" not in answer.headers
        assert sandbox.state.generations[0].correlation_id == ""
        (row,) = (await logs(sandbox)).json()["data"]
        assert row["client_request_id"] is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt": None}, "prompt"),
        ({"image_url": "cat.jpg"}, "image_url"),
        ({"duration": 5}, "duration"),
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
    ],
)
async def test_a_bad_body_is_refused_with_the_field(fields: dict[str, Any], named: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        answer = await create(sandbox, **fields)
        assert answer.status == 400
        jsonschema.validate(answer.json(), ERROR_SCHEMA)
        assert named in answer.json()["message"]
        assert sandbox.state.generations == []
        assert sandbox.state.rejected == {400: 1}


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff"])
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        answer = await send_request(sandbox.url + GENERATIONS_PATH, "POST", AUTH_HEADERS, body)
        assert answer.status == 400
        jsonschema.validate(answer.json(), ERROR_SCHEMA)


async def test_what_does_not_exist_is_404() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        answers = [
            await create(sandbox, model="google/veo-99"),
            await get_status(sandbox, "no-such-id"),
            await send_request(sandbox.url + "/v1/video/generations", headers=AUTH_HEADERS),
        ]
        for answer in answers:
            assert answer.status == 404
            jsonschema.validate(answer.json(), ERROR_SCHEMA)


@pytest.mark.parametrize(
    ("key", "header", "expected"),
    [
        (None, None, 401),
        (None, "", 401),
        (None, "Bearer ", 401),
        (None, "Basic abc", 401),
        (None, "Bearer anything", 200),
        ("right", "Bearer wrong", 401),
        ("right", "Bearer right", 200),
    ],
)
async def test_the_key_is_checked(key: str | None, header: str | None, expected: int) -> None:
    async with Sandbox(instant_render_options(key=key)) as sandbox:
        sent = {} if header is None else {"Authorization": header}
        answer = await send_request(
            sandbox.url + GENERATIONS_PATH, "POST", sent, json.dumps(VALID_BODY).encode()
        )
        assert answer.status == expected
        assert len(sandbox.state.generations) == (1 if expected == 200 else 0)


@pytest.mark.parametrize("style", ["uuid-model", "uuid", "number", "integer", "token", "hostile"])
async def test_every_style_of_id_works(style: str) -> None:
    async with Sandbox(instant_render_options(id_style=style)) as sandbox:
        ids = [(await create(sandbox, prompt=f"take {take}")).json()["id"] for take in range(4)]
        assert len(set(ids)) == 4
        for one in ids:
            assert (await get_status(sandbox, one)).json()["id"] == one
        assert isinstance(ids[0], int) == (style == "integer")
        assert str(ids[0]).startswith("-") == (style == "token")


async def test_credits_run_out_and_are_charged_on_completion_only() -> None:
    async with Sandbox(SandboxOptions(durations="fixed:1000", balance_usd=1.0, video="small")) as sandbox:
        answers = [await create(sandbox, prompt=f"take {take}") for take in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 403]
        assert "credits" in answers[2].json()["message"]
        assert sandbox.state.charged_usd == 0
        billing = (await send_request(sandbox.url + "/v2/billing", headers=AUTH_HEADERS)).json()
        assert billing == {"current_balance": 1.0, "currency": "USD"}


async def test_failures_are_never_charged() -> None:
    async with Sandbox(instant_render_options(balance_usd=10.0)) as sandbox:
        sandbox.add_fault(Fault("error", match="dog"))
        await create(sandbox, prompt="a dog")
        await create(sandbox, prompt="a cat")
        assert [one.charged_usd for one in sandbox.state.generations] == [0.0, pytest.approx(0.4)]
        assert sandbox.state.charged_usd == pytest.approx(0.4)
        assert (await send_request(sandbox.url + "/v2/billing", headers=AUTH_HEADERS)).json()[
            "current_balance"
        ] == pytest.approx(9.6)
        assert [row["cost"]["usd"] for row in (await logs(sandbox)).json()["data"]] == [
            pytest.approx(0.4),
            0.0,
        ]
        assert [row["status"] for row in (await logs(sandbox)).json()["data"]] == ["succeeded", "failed"]


async def test_too_many_at_once_are_throttled_and_the_peak_is_recorded() -> None:
    async with Sandbox(SandboxOptions(durations="fixed:1000", concurrency_limit=2, video="small")) as sandbox:
        answers = [await create(sandbox, prompt=f"take {take}") for take in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert (sandbox.state.in_flight, sandbox.state.peak_in_flight) == (2, 2)


async def test_too_many_requests_are_throttled_with_a_hint() -> None:
    async with Sandbox(instant_render_options(rate_limit=3, speed=0.05)) as sandbox:
        answers = [await send_request(sandbox.url + "/v2/billing", headers=AUTH_HEADERS) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert 1 <= int(answers[3].headers["retry-after"]) <= 20


async def test_the_log_takes_so_many_requests_a_minute() -> None:
    async with Sandbox(instant_render_options(log_rate_limit=2)) as sandbox:
        assert [(await logs(sandbox)).status for _ in range(3)] == [200, 200, 429]
        assert (await send_request(sandbox.url + "/v2/billing", headers=AUTH_HEADERS)).status == 200


async def test_a_page_of_the_log_may_hold_fewer_rows_than_asked_for() -> None:
    async with Sandbox(instant_render_options(log_page_rows=2)) as sandbox:
        for take in range(3):
            await create(sandbox, prompt=f"take {take}")
        page = (await logs(sandbox, "?period=24h&limit=100")).json()
        assert len(page["data"]) == 2
        assert page["pagination"] == {"limit": 2, "offset": 0, "total": 3, "has_more": True}


async def test_the_log_is_paged_newest_first() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        ids = [
            (await create(sandbox, {"X-Client-Request-Id": f"job-{take}"})).json()["id"] for take in range(5)
        ]
        first = (await logs(sandbox, "?period=24h&limit=2")).json()
        last = (await logs(sandbox, "?period=24h&limit=2&offset=4")).json()
        assert [row["inference_id"] for row in first["data"]] == ids[:2:-1]
        assert first["pagination"] == {"limit": 2, "offset": 0, "total": 5, "has_more": True}
        assert [row["client_request_id"] for row in last["data"]] == ["job-0"]
        assert last["pagination"]["has_more"] is False


@pytest.mark.parametrize(
    "query",
    [
        "?limit=0", "?limit=101", "?limit=x", "?offset=-1", "?period=soon", "?period=93d",
        "?period=24h&start=2026-01-01T00:00:00Z", "?start=2026-01-01T00:00:00Z", "?start=x&end=y",
        "?start=2026-01-01T00:00:00Z&end=2026-04-10T00:00:00Z",
        "?start=2026-02-01T00:00:00Z&end=2026-01-01T00:00:00Z",
    ],
)  # fmt: skip
async def test_a_wrong_window_or_page_of_the_log_is_refused(query: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        answer = await logs(sandbox, query)
        assert answer.status == 400
        jsonschema.validate(answer.json(), ERROR_SCHEMA)


async def test_the_log_keeps_to_its_window() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        await create(sandbox)
        now = datetime.now(UTC)
        windows = [
            (now - timedelta(hours=1), now + timedelta(hours=1)),
            (now - timedelta(days=3), now - timedelta(days=2)),
        ]
        totals = []
        for start, end in windows:
            query = f"?start={quote(start.isoformat())}&end={quote(end.isoformat())}"
            totals.append((await logs(sandbox, query)).json()["pagination"]["total"])
        assert totals == [1, 0]


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, 1),
        ({"log_lag_s": 500.0}, 0),
        ({"log_rows": "never"}, 0),
        ({"durations": "fixed:500"}, 0),
        ({"durations": "fixed:500", "log_rows": "accepted"}, 1),
    ],
)
async def test_when_a_row_shows(options: dict[str, Any], rows: int) -> None:
    async with Sandbox(instant_render_options(**options)) as sandbox:
        await create(sandbox)
        assert (await logs(sandbox)).json()["pagination"]["total"] == rows


async def test_models_have_prices_of_three_kinds_and_an_etag() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        url = sandbox.url + "/v1/models?include=pricing,capabilities"
        answer = await send_request(url)
        models = {one["id"]: one for one in answer.json()["data"]}
        assert [one["pricing"]["kind"] for one in models.values()] == [
            "variants",
            "fixed",
            "variable",
            "variants",
        ]
        assert models["google/veo-3.1-i2v-fast"]["pricing"]["variants"][1] == {
            "when": {"resolution": "1080p"}, "price": 0.15, "unit": "second", "per": 1,
        }  # fmt: skip
        assert (await send_request(url, headers={"If-None-Match": answer.headers["etag"]})).status == 304
        alias = (await send_request(sandbox.url + "/v1/models?id=veo-3.1-i2v-fast")).json()["data"]
        assert [one["id"] for one in alias] == ["google/veo-3.1-i2v-fast"]
        assert "pricing" not in alias[0]
        assert (await send_request(sandbox.url + "/v1/models?id=nobody/none")).json()["data"] == []


async def test_the_models_openapi_agrees_with_its_checks() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        for model in (await send_request(sandbox.url + "/v1/models")).json()["data"]:
            answer = await send_request(model["info"]["docsJson"])
            post = answer.json()["paths"]["/v2/video/generations"]["post"]
            schema = post["requestBody"]["content"]["application/json"]["schema"]
            assert schema["properties"]["model"]["enum"] == [model["id"]]
            refused = await send_request(
                sandbox.url + GENERATIONS_PATH,
                "POST",
                AUTH_HEADERS,
                json.dumps({"model": model["id"]}).encode(),
            )
            assert refused.status == 400
            for name in schema["required"][1:]:
                assert name in refused.json()["message"]
            tag = {"If-None-Match": answer.headers["etag"]}
            assert (await send_request(model["info"]["docsJson"], headers=tag)).status == 304
        assert (await send_request(sandbox.url + "/docs-json?model=nobody/none")).status == 404


async def test_other_models_take_other_fields() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sketch = {"model": "sketch-t2v", "prompt": "A dune.", "seed": 4, "duration": 5}
        remix = {"model": "sandbox/remix-v2v", "video_url": "https://example.com/a.mp4"}
        for body in (sketch, remix):
            assert (
                await send_request(
                    sandbox.url + GENERATIONS_PATH, "POST", AUTH_HEADERS, json.dumps(body).encode()
                )
            ).status == 200
        assert sandbox.state.generations[0].price_usd == pytest.approx(0.35)


async def test_there_is_a_page_and_there_are_sample_images() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        page = await send_request(sandbox.url + "/")
        assert b"cdn-redirect-loop" in page.body
        picture = await send_request(sandbox.url + "/images/mona-lisa.jpg")
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.body[:3] == b"\xff\xd8\xff"


async def test_the_same_seed_gives_the_same_renderings() -> None:
    drawn = []
    for _ in range(2):
        async with Sandbox(SandboxOptions(seed=7, video="small")) as sandbox:
            for take in range(3):
                await create(sandbox, prompt=f"take {take}")
            drawn.append([(one.id, one.render_s) for one in sandbox.state.generations])
    assert drawn[0] == drawn[1]


def sample_script(base_url: str) -> dict[str, Any]:
    """The loop of the vendor's sample: create, then ask until the status is none of four."""

    def call(request: urllib.request.Request) -> dict[str, Any]:
        with urllib.request.urlopen(request, timeout=600) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
            return answer

    headers = {"Authorization": "Bearer sk-1", "Content-Type": "application/json"}
    url = base_url + GENERATIONS_PATH
    made = call(urllib.request.Request(url, json.dumps(VALID_BODY).encode(), headers))  # noqa: S310
    while True:
        body = call(urllib.request.Request(f"{url}?generation_id={quote(made['id'])}", headers=headers))  # noqa: S310
        if body["status"] not in ["waiting", "active", "queued", "generating"]:
            return body


async def test_a_plain_blocking_client_works_unchanged() -> None:
    async with Sandbox(SandboxOptions(durations="fixed:30", speed=100, video="small")) as sandbox:
        body = await asyncio.to_thread(sample_script, sandbox.url)
        assert body["status"] == "completed"
        assert (await send_request(body["video"]["url"])).body[4:8] == b"ftyp"
