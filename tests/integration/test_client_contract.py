"""Answers that the vendor's schema forbids and a client survives, without paying twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.client import Accepted, Api, ApiKey, GenerationStatus, OutcomeUnknown, Rejected, StatusError
from tests.integration.raw_server import RawServer, respond_with

if TYPE_CHECKING:
    from pipeline.client import CreateResult

KEY = ApiKey("sk-hush-0123456789", "AIML_API_KEY")


async def create_with_answer(answer: dict[str, Any]) -> CreateResult:
    async with RawServer(respond_with(200, answer)) as wire, Api(wire.url, KEY, environ={}) as api:
        return await api.create("{}", "vb.x.1")


@pytest.mark.parametrize("status", ["completed", "complete", "succeeded"])
async def test_completed_without_id_is_outcome_unknown(status: str) -> None:
    """It was accepted, and will be charged: the log may know it by our correlation id."""
    verdict = await create_with_answer({"status": status, "video": None})
    assert isinstance(verdict, OutcomeUnknown), verdict


@pytest.mark.parametrize("status", ["error", "failed", "cancelled"])
async def test_ended_badly_without_an_id_is_a_refusal(status: str) -> None:
    verdict = await create_with_answer({"status": status, "error": {"name": "X", "message": "no such image"}})
    assert isinstance(verdict, Rejected), verdict
    assert "no such image" in verdict.failure.message


async def test_an_error_that_can_be_read_and_not_written_is_an_answer_all_the_same() -> None:
    async with RawServer(respond_with(200)) as wire, Api(wire.url, KEY, environ={}) as api:
        for depth in range(960, 1000, 2):
            deep = b'{"id": "g", "status": "error", "error": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
            wire.handler = respond_with(200, deep)
            assert isinstance(await api.create("{}", "vb.x.1"), Accepted | OutcomeUnknown)
            assert isinstance(await api.get_status("a:b/c"), GenerationStatus | StatusError)


async def test_truncated_log_is_an_error_and_proves_nothing() -> None:
    page = {"data": [], "pagination": {"limit": 100, "offset": 0, "total": 7, "has_more": True}}
    async with RawServer(respond_with(200, page)) as wire, Api(wire.url, KEY, environ={}) as api:
        found = await api.log_page({"period": "24h"}, limit=100, offset=0)
    assert isinstance(found, StatusError)
    assert "ends where it says that there is more" in found.message


async def test_a_balance_beyond_all_numbers_is_none() -> None:
    async with (
        RawServer(respond_with(200, b'{"current_balance": 1' + b"0" * 400 + b"}")) as wire,
        Api(wire.url, KEY, environ={}) as api,
    ):
        assert await api.balance() is None
