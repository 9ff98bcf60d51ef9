"""The vendor's log, the balance, and the words that tell a quota from a pace."""

from __future__ import annotations

import pytest

from pipeline.client import Api, LogPage
from pipeline.client.create_result import is_quota
from tests.integration.client_calls import KEY
from tests.integration.raw_server import RawServer, respond_with


async def test_the_log_is_asked_as_documented() -> None:
    rows = {"data": [{"client_request_id": "c", "inference_id": "g"}], "pagination": {"has_more": False}}
    async with RawServer(respond_with(200, rows)) as wire, Api(wire.url + "/v1", KEY) as api:
        page = await api.log_page(
            {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}, limit=9, offset=18
        )
    assert isinstance(page, LogPage)
    assert [row.inference_id for row in page.rows] == ["g"]
    target = wire.requests[0].target
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
    async with RawServer(respond_with(status, body)) as wire, Api(wire.url, KEY) as api:
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
def test_quota_is_distinguished_from_rate_limit(words: str, retry_after: str | None, quota: bool) -> None:
    assert is_quota(words, retry_after) is quota
