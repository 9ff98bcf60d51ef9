"""Rows in doubt against the log: what each kind of row proves, which window is asked for, and the paging."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client import Api, ApiKey, LogRow
from pipeline.model import Record, State
from pipeline.reconcile.request_log import (
    DAY_S,
    MAX_WINDOW_S,
    LogPass,
    absence_conclusive_at,
    fetch_log,
    mark_never_accepted,
    reconcile_record,
    window,
)
from tests.unit.samples import record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = 1_800_000_000.0
IN_DOUBT_S = 100.0


def in_doubt_record(
    name: str = "row", *, submitted: float = NOW - 50, doubted: float | None = NOW - 40
) -> Record:
    return record(
        State.IN_DOUBT,
        name,
        correlation_id=f"c-{name}",
        submitted_at=submitted,
        doubted_at=doubted,
        reserved_usd=1.0,
        attempts=1,
    )


def log_pass_with(inference_id: str = "", *, succeeded: bool | None = None, complete: bool = True) -> LogPass:
    return LogPass({"c-row": LogRow("c-row", inference_id, succeeded=succeeded)}, complete)


ABSENT = LogPass({}, complete=True)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("succeeded", [True, False, None])
def test_a_row_with_a_generation_proves_acceptance(complete: bool, succeeded: bool | None) -> None:
    """Whether it worked is the status call's to say; a failed one is tracked as well."""
    seen = log_pass_with("g", succeeded=succeeded, complete=complete)
    after = reconcile_record(in_doubt_record(), seen, asked_at=NOW, reconcile_after_s=IN_DOUBT_S)
    assert after is not None
    assert (after.state, after.generation_id, after.accepted_at) == (State.GENERATING, "g", NOW - 50)
    assert (after.failure, after.reserved_usd, after.attempts) == (None, 1.0, 1)


@pytest.mark.parametrize("complete", [True, False])
def test_a_failed_request_without_a_generation_was_never_accepted(complete: bool) -> None:
    seen = log_pass_with(succeeded=False, complete=complete)
    after = reconcile_record(in_doubt_record(), seen, asked_at=NOW, reconcile_after_s=1e9)
    assert after is not None
    assert (after.state, after.reserved_usd, after.failure, after.doubted_at) == (
        State.PENDING,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("succeeded", [True, None])
def test_a_row_without_a_generation_that_did_not_fail_proves_nothing(succeeded: bool | None) -> None:
    assert (
        reconcile_record(
            in_doubt_record(),
            log_pass_with(succeeded=succeeded),
            asked_at=NOW + 1e9,
            reconcile_after_s=IN_DOUBT_S,
        )
        is None
    )


def test_rows_of_others_prove_nothing() -> None:
    seen = LogPass({"c-other": LogRow("c-other", "g")}, complete=True)
    assert reconcile_record(in_doubt_record(), seen, asked_at=NOW, reconcile_after_s=IN_DOUBT_S) is None


@pytest.mark.parametrize(
    ("submitted", "doubted", "asked", "proven"),
    [
        (NOW - 500, NOW - IN_DOUBT_S, NOW, True),
        (NOW - 500, NOW - IN_DOUBT_S + 1, NOW, False),
        (NOW - IN_DOUBT_S, None, NOW, True),
        (NOW - IN_DOUBT_S + 1, None, NOW, False),
        (NOW - 500, NOW - 600, NOW, True),
    ],
)
def test_absence_is_a_proof_only_after_the_longest_time(
    submitted: float, doubted: float | None, asked: float, proven: bool
) -> None:
    row = in_doubt_record(submitted=submitted, doubted=doubted)
    after = reconcile_record(row, ABSENT, asked_at=asked, reconcile_after_s=IN_DOUBT_S)
    assert (after is not None) is proven
    assert (absence_conclusive_at(row, IN_DOUBT_S) <= asked) is proven
    if after is not None:
        assert after == mark_never_accepted(row)


def test_absence_from_half_a_log_proves_nothing() -> None:
    assert (
        reconcile_record(
            in_doubt_record(), LogPass({}, complete=False), asked_at=NOW + 1e9, reconcile_after_s=0
        )
        is None
    )


def test_a_row_that_was_never_dated_is_not_old() -> None:
    row = replace(in_doubt_record(doubted=None), submitted_at=None)
    assert reconcile_record(row, ABSENT, asked_at=NOW, reconcile_after_s=IN_DOUBT_S) is None


@given(age=st.floats(0, 400 * DAY_S))
def test_the_window_covers_the_oldest_row_as_far_as_the_log_reaches(age: float) -> None:
    asked = window(NOW - age, NOW)
    if "period" in asked:
        assert asked.keys() == {"period"}
        reach_s = {"24h": DAY_S, "7d": 7 * DAY_S}[asked["period"]]
        assert age < reach_s
        return
    start, end = (datetime.fromisoformat(asked[name]).timestamp() for name in ("start", "end"))
    assert end >= NOW
    assert end - start <= MAX_WINDOW_S + 1
    assert start <= max(NOW - age, NOW - MAX_WINDOW_S + 2 * 3600)


class FakeLog:
    """The vendor's log on a real socket: rows in pages as the test scripts it."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows
        self.requests: list[dict[str, str]] = []
        self.max_page_rows = 100
        self.pagination_fields: tuple[str, ...] = ("limit", "offset", "total", "has_more")
        self.errors: dict[int, web.Response] = {}

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(dict(request.query))
        trouble = self.errors.get(len(self.requests))
        if trouble is not None:
            return trouble
        limit, offset = min(int(request.query["limit"]), self.max_page_rows), int(request.query["offset"])
        page = self.rows[offset : offset + limit]
        facts = {
            "limit": limit,
            "offset": offset,
            "total": len(self.rows),
            "has_more": offset + limit < len(self.rows),
        }
        shown = {name: facts[name] for name in self.pagination_fields}
        return web.Response(text=json.dumps({"data": page, "pagination": shown}))


@asynccontextmanager
async def api_of(log: FakeLog) -> AsyncIterator[Api]:
    app = web.Application()
    app.router.add_get("/v2/logs", log.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with Api(f"http://127.0.0.1:{runner.addresses[0][1]}", ApiKey("secret", "VAR")) as api:
            yield api
    finally:
        await runner.cleanup()


def row(name: str, inference_id: str | None = None, status: str = "succeeded") -> dict[str, Any]:
    return {"client_request_id": f"c-{name}", "inference_id": inference_id, "status": status}


def others(count: int) -> list[dict[str, Any]]:
    return [row(f"other-{number}", f"o-{number}") for number in range(count)]


async def fetch_pass(log: FakeLog, *rows: Record) -> LogPass:
    async with api_of(log) as api:
        return await fetch_log(api, list(rows), NOW, gap_s=0.0)


async def test_one_pass_serves_all_rows_and_goes_to_the_end_for_one_that_is_missing() -> None:
    log = FakeLog([*others(120), row("a", "g-a"), *others(100), row("b", "g-b")])
    seen = await fetch_pass(log, in_doubt_record("a"), in_doubt_record("b"), in_doubt_record("missing"))
    assert seen.complete
    assert {name: entry.inference_id for name, entry in seen.rows.items()} == {"c-a": "g-a", "c-b": "g-b"}
    assert [asked["offset"] for asked in log.requests] == ["0", "100", "200"]
    assert {asked["period"] for asked in log.requests} == {"24h"}
    assert all(asked.keys() == {"period", "limit", "offset"} for asked in log.requests)


async def test_a_pass_ends_when_every_row_is_found() -> None:
    log = FakeLog([row("a", "g-a"), *others(300)])
    seen = await fetch_pass(log, in_doubt_record("a"))
    assert len(log.requests) == 1
    assert seen.rows["c-a"].inference_id == "g-a"


async def test_a_row_that_says_nothing_is_no_reason_to_stop_reading() -> None:
    """A create that was repeated by a proxy has two rows; the later page may hold the one that counts."""
    log = FakeLog([row("a", None), *others(150), row("a", "g-a")])
    seen = await fetch_pass(log, in_doubt_record("a"))
    assert seen.rows["c-a"].inference_id == "g-a"


@pytest.mark.parametrize("order", [1, -1])
async def test_of_several_rows_the_one_with_a_generation_that_worked_counts(order: int) -> None:
    rows = [row("a", None, "failed"), row("a", "g-lost", "failed"), row("a", "g-good", "succeeded")][::order]
    seen = await fetch_pass(FakeLog([*rows, *others(1)]), in_doubt_record("a"), in_doubt_record("missing"))
    assert seen.rows["c-a"].inference_id == "g-good"


@pytest.mark.parametrize("facts", [(), ("total",), ("has_more",), ("limit", "offset")])
@pytest.mark.parametrize("most", [7, 100])
async def test_pages_end_where_the_log_ends_however_it_is_told(facts: tuple[str, ...], most: int) -> None:
    """A page shorter than asked for is not the last one: the vendor may allow fewer rows."""
    log = FakeLog([*others(30), row("a", "g-a")])
    log.pagination_fields, log.max_page_rows = facts, most
    seen = await fetch_pass(log, in_doubt_record("a"), in_doubt_record("missing"))
    assert "c-a" in seen.rows
    assert seen.complete


LOG_ERRORS = [
    web.Response(status=500, text="oops"),
    web.Response(status=429, headers={"Retry-After": "9"}),
    web.Response(status=200, text="<html>"),
    web.Response(status=200, text='{"data": null, "warnings": []}'),
    web.Response(status=200, text="[]"),
    web.Response(status=302, headers={"Location": "https://elsewhere.example.com/"}),
]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("kind", range(len(LOG_ERRORS)))
async def test_a_log_that_cannot_be_read_to_its_end_proves_no_absence(kind: int, number: int) -> None:
    trouble = LOG_ERRORS[kind]
    log = FakeLog([row("a", "g-a"), *others(200)])
    log.errors[number] = web.Response(status=trouble.status, body=trouble.body, headers=trouble.headers)
    seen = await fetch_pass(log, in_doubt_record("a"), in_doubt_record("missing"))
    assert not seen.complete
    assert seen.error
    assert ("c-a" in seen.rows) is (number == 2)
    assert reconcile_record(in_doubt_record("missing"), seen, asked_at=NOW + 1e9, reconcile_after_s=0) is None


async def test_pages_of_junk_do_not_hold_the_pass_up() -> None:
    log = FakeLog([None, 3, "junk"] * 50 + [row("a", "g-a")])
    seen = await fetch_pass(log, in_doubt_record("a"), in_doubt_record("missing"))
    assert (seen.complete, len(log.requests)) == (True, 2)
    assert "c-a" in seen.rows


async def test_an_old_row_is_asked_for_by_its_dates() -> None:
    log = FakeLog([])
    await fetch_pass(log, in_doubt_record("a"), in_doubt_record("old", submitted=NOW - 30 * DAY_S))
    [asked] = log.requests
    assert asked.keys() == {"start", "end", "limit", "offset"}
    assert datetime.fromisoformat(asked["start"]).timestamp() <= NOW - 30 * DAY_S
