"""The sandbox's log, keys, transactions, retired models, clock and error shapes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import jsonschema
import pytest

from pipeline.sandbox import Fault, KeyRule, Retirement, Sandbox
from tests.integration.raw_client import (
    GENERATIONS_PATH,
    VALID_BODY,
    RawResponse,
    create,
    get_status,
    instant_render_options,
    send_request,
)

OLD_KEY, NEW_KEY = "aaaaaaaa-old", "bbbbbbbb-new"
MANAGEMENT_KEY: Final = "sandbox-management-key"
VEO: Final = "google/veo-3.1-i2v-fast"

LOG_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["data", "pagination"],
    "properties": {
        "data": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    *("created", "status", "origin", "model", "cost", "tokens"),
                    *("request_id", "inference_id", "client_request_id"),
                ],
                "properties": {
                    "created": {"type": "string", "pattern": "^20.*Z$"},
                    "status": {"enum": ["succeeded", "failed"]},
                    "origin": {"enum": ["api", "playground"]},
                    "model": {"type": "string"},
                    "cost": {
                        "required": ["usd", "credits"],
                        "properties": {"usd": {"type": "number"}, "credits": {"type": "integer"}},
                    },
                    "tokens": {
                        "required": ["input", "output", "total"],
                        "additionalProperties": {"type": "integer"},
                    },
                    "request_id": {"type": ["string", "null"]},
                    "inference_id": {"type": "string", "minLength": 1},
                    "client_request_id": {"type": ["string", "null"]},
                },
            },
        },
        "pagination": {
            "required": ["limit", "offset", "total", "has_more"],
            "properties": {"total": {"type": "integer"}, "has_more": {"type": "boolean"}},
        },
    },
}
"""`GET /v2/logs` by the vendor's OpenAPI, November 2026."""

KEY_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "object",
            "required": ["disabled", "prefix", "created_at", "updated_at", "monthly_usage"],
            "properties": {
                "name": {"type": ["string", "null"]},
                "disabled": {"type": "boolean"},
                "prefix": {"type": "string", "maxLength": 8},
                "scopes": {"type": ["array", "null"], "items": {"pattern": "^model:"}},
                "limit": {
                    "type": ["object", "null"],
                    "properties": {
                        "retention": {"enum": ["no_reset", "day", "week", "month"]},
                        "threshold": {"type": "number"},
                    },
                },
                "monthly_usage": {"type": "number"},
            },
        }
    },
}
"""`GET /v1/key` by the vendor's OpenAPI, November 2026."""


async def get(sandbox: Sandbox, path: str, key: str = OLD_KEY, **headers: str) -> RawResponse:
    return await send_request(sandbox.url + path, headers={"Authorization": f"Bearer {key}", **headers})


async def create_as(sandbox: Sandbox, key: str, correlation_id: str = "row-1", **fields: Any) -> RawResponse:
    headers = {"Authorization": f"Bearer {key}", "X-Client-Request-Id": correlation_id}
    body = json.dumps({**VALID_BODY, **fields}).encode()
    return await send_request(sandbox.url + GENERATIONS_PATH, "POST", headers, body)


async def log_ids(sandbox: Sandbox, query: str = "", key: str = OLD_KEY) -> list[str | None]:
    answer = await get(sandbox, f"/v2/logs?period=24h{query}", key)
    jsonschema.validate(answer.json(), LOG_SCHEMA)
    return [row["client_request_id"] for row in answer.json()["data"]]


async def test_the_log_shows_the_requests_of_the_asking_key_only() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        await create_as(sandbox, OLD_KEY, "row-1")
        await create_as(sandbox, NEW_KEY, "row-2", prompt="Another one.")
        assert await log_ids(sandbox, key=OLD_KEY) == ["row-1"]
        assert await log_ids(sandbox, key=NEW_KEY) == ["row-2"]
        assert await log_ids(sandbox, "&key_prefix=bbbbbbbb", key=NEW_KEY) == ["row-2"]
        billing = [
            (await get(sandbox, "/v2/billing", key)).json()["current_balance"] for key in (OLD_KEY, NEW_KEY)
        ]
        assert billing == [pytest.approx(999.2)] * 2


async def test_another_keys_log_needs_the_management_key() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        await create_as(sandbox, OLD_KEY)
        assert (await get(sandbox, "/v2/logs?period=24h&key_prefix=aaaaaaaa", NEW_KEY)).status == 403
        assert await log_ids(sandbox, "&key_prefix=aaaaaaaa", MANAGEMENT_KEY) == ["row-1"]
        assert await log_ids(sandbox, key=MANAGEMENT_KEY) == []
        assert (await create_as(sandbox, MANAGEMENT_KEY)).status == 403


async def test_the_books_never_hold_a_key(tmp_path: Any) -> None:
    journal = tmp_path / "sandbox.jsonl"
    async with Sandbox(instant_render_options(journal=journal)) as sandbox:
        await create_as(sandbox, OLD_KEY)
    assert OLD_KEY[:8] not in journal.read_text()
    async with Sandbox(instant_render_options(journal=journal)) as sandbox:
        assert await log_ids(sandbox, key=OLD_KEY) == ["row-1"]
        assert await log_ids(sandbox, key=NEW_KEY) == []


async def test_rows_of_an_old_journal_show_to_every_key(tmp_path: Any) -> None:
    journal = tmp_path / "sandbox.jsonl"
    async with Sandbox(instant_render_options(journal=journal)) as sandbox:
        await create_as(sandbox, OLD_KEY)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line.pop("key_id", None)
    journal.write_text("\n".join(json.dumps(line, separators=(",", ":")) for line in lines) + "\n")
    async with Sandbox(instant_render_options(journal=journal)) as sandbox:
        assert sandbox.journal_warnings == ()
        assert await log_ids(sandbox, key=NEW_KEY) == ["row-1"]


@pytest.mark.parametrize(
    ("fault", "fields", "status"),
    [
        ("", {"duration": 5}, 400),
        ("", {"model": "nobody/none"}, 404),
        ("unprocessable", {}, 422),
        ("out-of-credits", {}, 403),
        ("server-error", {}, 500),
        ("refused", {}, 409),
    ],
)
async def test_a_refused_create_is_a_failed_row_whose_id_leads_nowhere(
    fault: str, fields: dict[str, Any], status: int
) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        if fault:
            sandbox.add_fault(Fault(fault))
        refused = await create_as(sandbox, OLD_KEY, **fields)
        assert refused.status == status
        (row,) = (await get(sandbox, "/v2/logs?period=24h")).json()["data"]
        assert (row["status"], row["cost"]) == ("failed", {"usd": 0.0, "credits": 0})
        assert row["inference_id"] == refused.headers["x-inference-id"]
        assert row["request_id"] == refused.headers["x-request-id"]
        assert (await get_status(sandbox, row["inference_id"])).status == 404


@pytest.mark.parametrize("fault", ["unauthorized", "throttled", "unavailable", "gateway-lost", "firewall"])
async def test_what_never_reached_the_api_leaves_no_row(fault: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(fault))
        await create_as(sandbox, OLD_KEY)
        assert await log_ids(sandbox) == []


async def test_a_failed_generation_is_a_failed_row_whose_status_says_why() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("content-refusal"))
        await create_as(sandbox, OLD_KEY)
        (row,) = (await get(sandbox, "/v2/logs?period=24h")).json()["data"]
        assert (row["status"], row["cost"]["usd"]) == ("failed", 0.0)
        assert (await get_status(sandbox, row["inference_id"])).json()["error"][
            "name"
        ] == "content_policy_violation"


async def test_the_log_is_filtered_by_model_and_status() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        await create_as(sandbox, OLD_KEY, "veo")
        await create_as(sandbox, OLD_KEY, "sketch", model="sketch-t2v", duration=5)
        await create_as(sandbox, OLD_KEY, "bad", model="veo-3.1-i2v-fast", duration=7)
        assert await log_ids(sandbox, f"&model={VEO}") == ["bad", "veo"]
        assert await log_ids(sandbox, "&model=veo-3.1-i2v-fast&model=sketch-t2v&status=succeeded") == [
            "sketch",
            "veo",
        ]
        assert await log_ids(sandbox, f"&model={VEO},sketch-t2v") == []
        assert await log_ids(sandbox, "&status=failed") == ["bad"]
        assert await log_ids(sandbox, "&status=failed&status=succeeded") == ["bad", "sketch", "veo"]


@pytest.mark.parametrize(
    "query", ["", "?limit=5", "?period=24h&status=failed,succeeded", "?period=0h", "?period=1w"]
)
async def test_a_log_without_a_valid_window_or_filter_is_400(query: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        assert (await get(sandbox, f"/v2/logs{query}")).status == 400


async def test_transactions_come_newest_first_in_pages() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        made = [(await create_as(sandbox, OLD_KEY, prompt=f"take {n}")).json()["id"] for n in range(5)]
        seen: list[str] = []
        cursor = ""
        for _ in range(3):
            page = (await get(sandbox, f"/v2/billing/transactions?limit=2{cursor}")).json()
            seen += [row["reference_id"] for row in page["data"]]
            cursor = f"&cursor={page['pagination']['next_cursor']}"
        assert seen == made[::-1]
        assert page["pagination"]["next_cursor"] is None
        (last,) = page["data"]
        assert last["type"] == "MODEL_USAGE"
        assert last["amount"] == {"usd": pytest.approx(0.4), "credits": 800_000}
        assert (await get(sandbox, "/v2/billing/transactions?cursor=x")).status == 400


async def test_account_calls_fail_by_name() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        await create_as(sandbox, OLD_KEY)
        sandbox.add_fault(Fault("account-error", match="key", value=503))
        sandbox.add_fault(Fault("transactions-frozen"))
        sandbox.add_fault(Fault("catalog-error", match="deprecations"))
        statuses = [(await get(sandbox, path)).status for path in ("/v1/key", "/v2/billing", "/v1/models")]
        assert statuses == [503, 200, 200]
        assert (await get(sandbox, "/v2/billing/transactions")).json()["data"] == []
        assert (await get(sandbox, "/v1/models/deprecations")).status == 500


KEY_RULES: Final[dict[str, tuple[KeyRule, str, object]]] = {
    "disabled": (KeyRule(OLD_KEY, disabled=True), "disabled", True),
    "scope": (KeyRule(OLD_KEY, scopes=("model:chat",)), "scopes", ["model:chat"]),
    "limit": (
        KeyRule(OLD_KEY, limit_usd=0.3, retention="day"),
        "limit",
        {"retention": "day", "threshold": 0.3},
    ),
}


@pytest.mark.parametrize("name", KEY_RULES)
async def test_a_key_is_refused_for_the_reason_that_its_own_call_gives(name: str) -> None:
    rule, field, value = KEY_RULES[name]
    async with Sandbox(instant_render_options(keys=(rule, KeyRule(NEW_KEY)))) as sandbox:
        assert (await create_as(sandbox, OLD_KEY)).status == 403
        answer = await get(sandbox, "/v1/key")
        jsonschema.validate(answer.json(), KEY_SCHEMA)
        assert answer.json()["data"][field] == value
        assert (await create_as(sandbox, NEW_KEY)).status == 200
        assert (await create_as(sandbox, "unknown-key")).status == 401


async def test_a_keys_limit_counts_its_own_spending() -> None:
    rule = KeyRule(OLD_KEY, limit_usd=1.0, retention="month")
    async with Sandbox(instant_render_options(keys=(rule, KeyRule(NEW_KEY)))) as sandbox:
        statuses = [(await create_as(sandbox, OLD_KEY, prompt=f"take {n}")).status for n in range(3)]
        assert statuses == [200, 200, 403]
        assert (await create_as(sandbox, NEW_KEY)).status == 200
        assert (await get(sandbox, "/v1/key")).json()["data"]["monthly_usage"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("key-disabled", "disabled", True),
        ("key-scope", "scopes", ["model:chat"]),
        ("key-limit", "limit", {"retention": "day", "threshold": 0.0}),
    ],
)
async def test_the_keys_own_call_agrees_with_a_fault(name: str, field: str, value: object) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name, times=1))
        before = (await get(sandbox, "/v1/key")).json()["data"]
        assert (await create_as(sandbox, OLD_KEY)).status == 403
        during = (await get(sandbox, "/v1/key")).json()
        jsonschema.validate(during, KEY_SCHEMA)
        assert (await create_as(sandbox, OLD_KEY)).status == 200
        after = (await get(sandbox, "/v1/key")).json()["data"]
        assert during["data"][field] == value
        assert before[field] == after[field] != value


async def test_a_model_retires_in_three_ways() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        assert (await send_request(sandbox.url + "/v1/models/deprecations")).json()["data"] == []
        created, listed = [], []
        for retirement in (
            Retirement(VEO, "superseded", replaced_by="google/veo-4"),
            Retirement(VEO, "deprecated"),
            Retirement(VEO, "deprecated", shutdown_on="2026-12-31"),
            Retirement(VEO, "withdrawn", replaced_by="google/veo-4"),
        ):
            sandbox.retire(retirement)
            created.append((await create(sandbox)).status)
            listed.append(bool((await send_request(f"{sandbox.url}/v1/models?id={VEO}")).json()["data"]))
            assert (await send_request(f"{sandbox.url}/model/{VEO}")).json()["id"] == VEO
        assert created == [200, 200, 200, 404]
        assert listed == [True, True, False, False]


async def test_the_deprecation_feed_has_its_shape_filters_and_tag() -> None:
    retired = (
        Retirement(VEO, "withdrawn", replaced_by="google/veo-4"),
        Retirement("other/old", "deprecated"),
    )
    async with Sandbox(instant_render_options(retired=retired)) as sandbox:
        url = sandbox.url + "/v1/models/deprecations"
        answer = await send_request(url)
        assert set(answer.json()) == {"object", "generated_at", "data"}
        assert answer.json()["data"][0] == {
            "id": VEO,
            "aliases": ["veo-3.1-i2v-fast"],
            "status": "withdrawn",
            "deprecated_at": "2026-10-01T00:00:00.000Z",
            "shutdown_at": None,
            "replaced_by": "google/veo-4",
            "reason": "The provider has retired this model.",
        }
        assert answer.headers["etag"].startswith('W/"')
        assert (await send_request(url, headers={"If-None-Match": answer.headers["etag"]})).status == 304
        chosen = (await send_request(f"{url}?status=deprecated")).json()["data"]
        assert [one["id"] for one in chosen] == ["other/old"]
        assert (await send_request(f"{url}?since=2026-10-02")).json()["data"] == []
        assert [(await send_request(f"{url}?{query}")).status for query in ("status=x", "since=x")] == [
            400,
            400,
        ]


async def test_metrics_know_only_models_that_succeeded() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        url = sandbox.url + "/models/metrics"
        assert (await send_request(url)).json()["data"] == []
        await create(sandbox)
        (entry,) = (await send_request(url)).json()["data"]
        assert (entry["id"], set(entry["duration_ms"])) == (VEO, {"p50", "p90", "p95", "p99"})


async def test_every_answer_has_the_vendors_date_and_a_request_id() -> None:
    async with Sandbox(instant_render_options(clock_offset_s=7200.0)) as sandbox:
        made = await create(sandbox)
        answers = [made, await get(sandbox, "/nowhere"), await get_status(sandbox, made.json()["id"])]
        for answer in answers:
            ahead = parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)
            assert abs(ahead - timedelta(hours=2)) < timedelta(minutes=1)
            assert answer.headers["x-request-id"]
        (row,) = (await get(sandbox, "/v2/logs?period=24h", "some-key")).json()["data"]
        assert row["request_id"] == made.headers["x-request-id"]
        assert datetime.fromisoformat(row["created"]) - datetime.now(UTC) > timedelta(hours=1)
        start = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        end = (datetime.now(UTC) + timedelta(hours=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert await log_ids_between(sandbox, start, end) == 1


async def log_ids_between(sandbox: Sandbox, start: str, end: str) -> int:
    return len((await get(sandbox, f"/v2/logs?start={start}&end={end}", "some-key")).json()["data"])


async def test_retry_after_as_a_date_is_by_the_vendors_clock() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.set_clock_offset(-18_000)
        sandbox.add_fault(Fault("throttled", value="date:30"))
        headers = (await create(sandbox)).headers
        wait = parsedate_to_datetime(headers["retry-after"]) - parsedate_to_datetime(headers["date"])
        assert abs(wait.total_seconds() - 30) <= 1


@pytest.mark.parametrize("path", [GENERATIONS_PATH, "/nowhere", "/v2/logs"])
async def test_errors_of_the_other_shape(path: str) -> None:
    async with Sandbox(instant_render_options(error_shape="problem")) as sandbox:
        answer = await get(sandbox, path)
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["status"] == answer.status
        assert answer.json()["requestId"] == answer.headers["x-request-id"]
        assert answer.json()["error"]["name"]
