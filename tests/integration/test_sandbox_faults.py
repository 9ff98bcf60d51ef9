"""Every fault by its name, as a client on a bare socket sees it; one without a test here fails the suite."""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from pipeline.sandbox import FAULTS, Fault, Sandbox
from pipeline.sandbox.faults import FaultPoint
from pipeline.sandbox.faults.status_changes import BAD_URLS
from tests.crash.batches import wait_until
from tests.integration.raw_client import (
    AUTH_HEADERS,
    GENERATIONS_PATH,
    RawResponse,
    ResponseEnding,
    create,
    get_status,
    instant_render_options,
    send_request,
    video_url,
)
from tests.integration.test_sandbox_misleading import LOG_URL, LOG_VIEWS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SHORT_TIMEOUT_S: Final = 0.3
HTML: Final = b"<!doctype html>"


def is_json(answer: RawResponse) -> bool:
    try:
        json.loads(answer.body)
    except ValueError:
        return False
    return True


def was_triggered(sandbox: Sandbox, name: str) -> Callable[[], bool]:
    return lambda: sandbox.state.triggered[name] > 0


CREATES: Final[dict[str, tuple[ResponseEnding, int, bool]]] = {
    "bad-request": ("whole", 400, False),
    "unprocessable": ("whole", 422, False),
    "unauthorized": ("whole", 401, False),
    "out-of-credits": ("whole", 403, False),
    "key-disabled": ("whole", 403, False),
    "key-scope": ("whole", 403, False),
    "key-limit": ("whole", 403, False),
    "firewall": ("whole", 403, False),
    "refused": ("whole", 409, False),
    "error-accepted": ("whole", 409, True),
    "id-of-another": ("whole", 200, True),
    "huge-header": ("whole", 200, True),
    "odd-head": ("whole", 200, True),
    "not-found": ("whole", 404, False),
    "throttled": ("whole", 429, False),
    "quota": ("whole", 429, False),
    "server-error": ("whole", 500, False),
    "unavailable": ("whole", 503, False),
    "gateway-lost": ("whole", 502, False),
    "gateway-accepted": ("whole", 502, True),
    "cut-before": ("reset", 0, False),
    "cut-accepted": ("reset", 0, True),
    "cut-inside-answer": ("cut", 200, True),
    "garbage": ("whole", 200, True),
    "html": ("whole", 200, True),
    "empty": ("whole", 200, True),
    "no-id": ("whole", 200, True),
    "hang": ("silent", 0, False),
    "hang-accepted": ("silent", 0, True),
    "slow-answer": ("silent", 0, True),
}
"""How each create ends for the client, its status, and whether the vendor accepted it."""


def fault_names(*points: FaultPoint) -> set[str]:
    return {kind.name for kind in FAULTS.values() if kind.point in points}


def test_every_fault_has_its_test() -> None:
    assert set(CREATES) == fault_names(FaultPoint.CREATE)
    assert set(STATUSES) == fault_names(FaultPoint.STATUS)
    assert set(ENDS) == fault_names(FaultPoint.GENERATION)
    assert set(DOWNLOADS) == fault_names(FaultPoint.CDN)
    assert LOG_ROWS | set(LOGS) | set(LOG_VIEWS) == fault_names(FaultPoint.LOG_ROW, FaultPoint.LOG_CALL)
    tested = {"account-error", "transactions-frozen", "catalog-error"}  # in test_sandbox_account
    assert tested == fault_names(FaultPoint.ACCOUNT, FaultPoint.CATALOG)


@pytest.mark.parametrize("name", CREATES)
async def test_a_create_fault_is_triggered_once_and_the_state_is_true(name: str) -> None:
    end, code, accepted = CREATES[name]
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name, match="cat", times=1, value=30 if name == "slow-answer" else None))
        correlation = {"X-Client-Request-Id": "job-1"}
        answer = await create(
            sandbox, correlation, SHORT_TIMEOUT_S if end == "silent" else 20, was_triggered(sandbox, name)
        )
        assert (answer.ending, answer.status) == (end, code)
        assert len(sandbox.state.find_by_correlation_id("job-1")) == int(accepted)
        assert sandbox.state.triggered == {name: 1}
        again = await create(sandbox, {"X-Client-Request-Id": "job-2"})
        assert (again.status, len(sandbox.state.find_by_correlation_id("job-2"))) == (200, 1)


@pytest.mark.parametrize("name", ["garbage", "html", "empty", "cut-inside-answer"])
async def test_an_unreadable_acceptance_is_unreadable(name: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name))
        assert not is_json(await create(sandbox))


async def test_a_throttle_may_say_how_long() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        for value in (None, 7, "date:60"):
            sandbox.add_fault(Fault("throttled", total=1, value=value))
        silent, seconds, date = [await create(sandbox) for _ in range(3)]
        assert "retry-after" not in silent.headers
        assert seconds.headers["retry-after"] == "7"
        wait = parsedate_to_datetime(date.headers["retry-after"]) - datetime.now(UTC)
        assert 30 < wait.total_seconds() <= 60


async def test_a_fault_does_not_help_a_bad_body_through() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("gateway-accepted"))
        assert (await create(sandbox, duration=5)).status == 400
        assert sandbox.state.generations == []


async def test_a_quota_names_its_hour() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("quota"))
        message = (await create(sandbox)).json()["message"]
        assert "free-tier limit" in message
        assert "for the hour" in message


STATUSES: Final[dict[str, tuple[ResponseEnding, int]]] = {
    "status-throttled": ("whole", 429),
    "status-error": ("whole", 500),
    "status-gateway": ("whole", 502),
    "status-reset": ("reset", 0),
    "status-cut": ("cut", 200),
    "status-garbage": ("whole", 200),
    "status-html": ("whole", 200),
    "status-empty": ("whole", 200),
    "status-hang": ("silent", 0),
    "status-unknown": ("whole", 200),
    "status-samples": ("whole", 200),
    "status-other-names": ("whole", 200),
    "status-not-found": ("whole", 404),
    "status-unauthorized": ("whole", 401),
    "status-flap": ("whole", 200),
    "status-other-id": ("whole", 200),
    "status-huge-header": ("whole", 200),
    "status-odd-head": ("whole", 200),
}


@pytest.mark.parametrize("name", STATUSES)
async def test_a_status_fault_is_triggered_once_and_changes_nothing(name: str) -> None:
    end, code = STATUSES[name]
    async with Sandbox(instant_render_options(durations="fixed:500")) as sandbox:
        sandbox.add_fault(Fault(name, times=1))
        made = (await create(sandbox)).json()
        answer = await get_status(
            sandbox, made["id"], SHORT_TIMEOUT_S if end == "silent" else 20, was_triggered(sandbox, name)
        )
        assert (answer.ending, answer.status) == (end, code)
        normal = (await get_status(sandbox, made["id"])).json()
        assert (normal["status"], normal["video"], normal["error"]) == ("waiting", None, None)


async def test_status_values_and_samples_while_rendering() -> None:
    async with Sandbox(instant_render_options(durations="fixed:500")) as sandbox:
        sandbox.add_fault(Fault("status-unknown", match="one", value="dreaming"))
        sandbox.add_fault(Fault("status-samples", match="two"))
        sandbox.add_fault(Fault("status-other-names", match="three"))
        body = [
            (await get_status(sandbox, (await create(sandbox, prompt=word)).json()["id"])).json()
            for word in ("one", "two", "three")
        ]
        assert body[0]["status"] == "dreaming"
        assert body[1]["status"] == "waiting"
        assert body[1]["video"]["url"].endswith(".mp4")
        assert body[1]["error"]["message"] == "string"
        assert body[2]["status"] in ("pending", "waiting")


async def test_other_names_for_the_end_are_final_ones() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("status-other-names"))
        sandbox.add_fault(Fault("error", match="dog"))
        cat = (await get_status(sandbox, (await create(sandbox, prompt="cat")).json()["id"])).json()
        dog = (await get_status(sandbox, (await create(sandbox, prompt="dog")).json()["id"])).json()
        assert cat["status"] in ("complete", "succeeded")
        assert cat["video"] is not None
        assert dog["status"] in ("failed", "cancelled")


ENDS: Final[dict[str, Callable[[dict[str, Any]], bool]]] = {
    "error": lambda body: (
        body["status"] == "error" and bool(body["error"]["name"] and body["error"]["message"])
    ),
    "error-detail": lambda body: body["status"] == "error" and body["error"]["detail"][0]["msg"] != "",
    "error-text": lambda body: body["status"] == "error" and isinstance(body["error"], str),
    "content-refusal": lambda body: body["status"] == "error" and "safety" in body["error"]["message"],
    "completed-without-url": lambda body: body["status"] == "completed" and body["video"] is None,
    "completed-late-url": lambda body: body["status"] == "completed" and body["video"] is None,
    "error-then-completed": lambda body: body["status"] == "error" and body["error"]["name"] != "",
    "completed-then-error": lambda body: body["status"] == "completed" and body["video"]["url"] != "",
    "bad-url": lambda body: ":99999/" in body["video"]["url"],
    "video-list": lambda body: len({one["url"] for one in body["video"]}) == 2,
    "usd-missing": lambda body: body["meta"]["usage"]["credits_used"] > 0,
    "cost-missing": lambda body: body["meta"] is None,
    "id-as-generation-id": lambda body: "id" not in body and body["generation_id"] != "",
    "sample-objects": lambda body: body["status"] == "completed" and body["error"] is None,
    "never-finishes": lambda body: body["status"] == "generating",
    "slow": lambda body: body["status"] == "completed",
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_generation_ends_as_its_fault_says(name: str) -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name, match="cat", times=1))
        made = (await create(sandbox)).json()
        body = (await get_status(sandbox, made.get("id", made.get("generation_id")))).json()
        assert ENDS[name](body), body
        spared = (await create(sandbox, prompt="a dog")).json()
        assert (await get_status(sandbox, spared["id"])).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("value", "video"), [(None, {"url": "https://cdn.example.com/generations/sample.mp4"}), ("empty", {})]
)
async def test_sample_objects_show_from_create_on(value: str | None, video: dict[str, str]) -> None:
    async with Sandbox(instant_render_options(durations="fixed:500")) as sandbox:
        sandbox.add_fault(Fault("sample-objects", value=value))
        made = (await create(sandbox)).json()
        body = (await get_status(sandbox, made["id"])).json()
        assert made["video"] == body["video"] == video
        assert body["status"] == "waiting"


async def test_a_slow_generation_renders_so_much_longer() -> None:
    async with Sandbox(instant_render_options(durations="fixed:50", speed=5)) as sandbox:
        sandbox.add_fault(Fault("slow", match="cat", value=3))
        await create(sandbox)
        assert sandbox.state.generations[0].render_s == pytest.approx(30)


LOG_ROWS: Final = {"log-row-never", "log-row-late", "log-row-anonymous"}
LOGS: Final[dict[str, tuple[ResponseEnding, int]]] = {
    "log-error": ("whole", 500),
    "log-garbage": ("whole", 200),
    "log-throttled": ("whole", 429),
    "log-forbidden": ("whole", 403),
    "log-hang": ("silent", 0),
    "log-huge-header": ("whole", 200),
    "log-odd-head": ("whole", 200),
}


@pytest.mark.parametrize("name", LOGS)
async def test_a_log_fault_is_triggered_once(name: str) -> None:
    ending, status = LOGS[name]
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault(name, times=1))
        failed = await send_request(
            sandbox.url + LOG_URL,
            headers=AUTH_HEADERS,
            timeout_s=SHORT_TIMEOUT_S if ending == "silent" else 20,
            request_received=was_triggered(sandbox, name),
        )
        assert (failed.ending, failed.status) == (ending, status)
        assert is_json(failed) == (name not in ("log-garbage", "log-hang"))
        assert (await send_request(sandbox.url + LOG_URL, headers=AUTH_HEADERS)).json()["data"] == []


async def test_log_rows_may_never_show_or_late() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("log-row-never", match="one"))
        sandbox.add_fault(Fault("log-row-late", match="two"))
        for prompt in ("one", "two", "three"):
            await create(sandbox, prompt=prompt)
        rows = (await send_request(sandbox.url + LOG_URL, headers=AUTH_HEADERS)).json()["data"]
        assert [row["inference_id"] for row in rows] == [sandbox.state.generations[2].id]


async def _cut(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert answer.ending == "cut"
    assert answer.body == whole[: round(len(whole) * 0.25)]
    tail = await send_request(url, headers={"Range": f"bytes={len(answer.body)}-"})
    assert answer.body + tail.body == whole


async def _stall(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(
        url, timeout_s=SHORT_TIMEOUT_S, request_received=was_triggered(sandbox, "cdn-stall")
    )
    assert answer.ending == "silent"
    assert answer.body == whole[: round(len(whole) * 0.25)]


async def _trickle(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(
        url, timeout_s=SHORT_TIMEOUT_S, request_received=was_triggered(sandbox, "cdn-trickle")
    )
    assert answer.ending == "silent"
    assert len(answer.body) < 10


async def _wrong_length(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert answer.ending == "cut"
    assert answer.body == whole


async def _changed(sandbox: Sandbox, url: str, whole: bytes) -> None:
    changed, normal = await send_request(url), await send_request(url)
    assert len(changed.body) == len(whole)
    assert changed.body != whole
    assert changed.headers["etag"] != normal.headers["etag"]


async def _gzip(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == whole


async def _no_range(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url, headers={"Range": "bytes=10-"})
    assert (answer.status, answer.body) == (200, whole)
    assert "etag" not in answer.headers


async def _error(sandbox: Sandbox, url: str, whole: bytes) -> None:
    assert (await send_request(url)).status == 410


async def _html(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert answer.status == 200
    assert answer.body.startswith(HTML)


async def _empty(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert (answer.status, answer.body) == (200, b"")


async def _corrupt(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert (answer.status, len(answer.body)) == (200, len(whole))
    assert b"ftyp" not in answer.body


async def _reset(sandbox: Sandbox, url: str, whole: bytes) -> None:
    assert (await send_request(url)).ending == "reset"


async def _redirect(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert answer.status == 302
    assert (await send_request(sandbox.cdn_url + answer.headers["location"])).body == whole


async def _redirect_loop(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert sandbox.cdn_url + answer.headers["location"] == url


async def _redirect_private(sandbox: Sandbox, url: str, whole: bytes) -> None:
    assert (await send_request(url)).headers["location"].startswith("http://169.254.169.254/")


async def _redirect_bad(sandbox: Sandbox, url: str, whole: bytes) -> None:
    assert (await send_request(url)).headers["location"] == BAD_URLS["port"]


async def _chunk_broken(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert b"HTTP/1.1 502 Bad Gateway" in answer.body
    assert not answer.body.endswith(b"0\r\n\r\n")


async def _unchanged_body(sandbox: Sandbox, url: str, whole: bytes) -> None:
    assert (await send_request(url)).body == whole


async def _altered(sandbox: Sandbox, url: str, whole: bytes) -> None:
    answer = await send_request(url)
    assert (answer.ending, answer.status) == ("whole", 200)
    assert answer.body != whole
    assert answer.headers["etag"] != (await send_request(url)).headers["etag"]


DOWNLOADS: Final[dict[str, tuple[Callable[[Sandbox, str, bytes], Awaitable[None]], float | None]]] = {
    "cdn-cut": (_cut, 0.25),
    "cdn-stall": (_stall, 0.25),
    "cdn-trickle": (_trickle, 2),
    "cdn-wrong-length": (_wrong_length, None),
    "cdn-changed": (_changed, None),
    "cdn-gzip": (_gzip, None),
    "cdn-no-range": (_no_range, None),
    "cdn-error": (_error, 410),
    "cdn-html": (_html, None),
    "cdn-empty": (_empty, None),
    "cdn-corrupt": (_corrupt, None),
    "cdn-reset": (_reset, None),
    "cdn-redirect": (_redirect, None),
    "cdn-redirect-loop": (_redirect_loop, None),
    "cdn-redirect-private": (_redirect_private, None),
    "cdn-redirect-bad": (_redirect_bad, None),
    "cdn-chunk-broken": (_chunk_broken, None),
    "cdn-huge-header": (_unchanged_body, None),
    "cdn-odd-head": (_unchanged_body, None),
    "cdn-trailing-bytes": (_altered, None),
    "cdn-bad-metadata": (_altered, None),
    "cdn-turned": (_altered, None),
    "cdn-encrypted": (_altered, None),
    "cdn-no-index": (_altered, None),
}


@pytest.mark.parametrize("name", DOWNLOADS)
async def test_a_download_fault_is_triggered(name: str) -> None:
    check, value = DOWNLOADS[name]
    async with Sandbox(instant_render_options()) as sandbox:
        url = await video_url(sandbox)
        whole = (await send_request(url)).body
        sandbox.add_fault(Fault(name, times=1, value=value))
        await check(sandbox, url, whole)


async def test_silent_clients_do_not_keep_the_sandbox_open() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        sandbox.add_fault(Fault("hang"))
        waiting = asyncio.create_task(create(sandbox))
        await wait_until(lambda: bool(sandbox.state.triggered))
    assert (await waiting).status == 503


async def test_a_status_call_without_an_id_names_the_missing_parameter() -> None:
    async with Sandbox(instant_render_options()) as sandbox:
        assert (
            "generation_id"
            in (await send_request(sandbox.url + GENERATIONS_PATH, headers=AUTH_HEADERS)).json()["message"]
        )
