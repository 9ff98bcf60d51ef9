"""Answers that the vendor's schema forbids and a client survives, without paying twice."""

from __future__ import annotations

import pytest

from pipeline.client import Accepted, GenerationStatus, OutcomeUnknown, Rejected, StatusError
from tests.unit.mocked_vendor import BASE_URL, create, get_status, mocked_vendor


@pytest.mark.parametrize("status", ["completed", "complete", "succeeded"])
async def test_completed_without_id_is_outcome_unknown(status: str) -> None:
    """It was accepted, and will be charged: the log may know it by our correlation id."""
    verdict = await create(200, {"status": status, "video": None})
    assert isinstance(verdict, OutcomeUnknown), verdict


@pytest.mark.parametrize("status", ["error", "failed", "cancelled"])
async def test_ended_badly_without_an_id_is_a_refusal(status: str) -> None:
    verdict = await create(200, {"status": status, "error": {"name": "X", "message": "no such image"}})
    assert isinstance(verdict, Rejected), verdict
    assert "no such image" in verdict.failure.message


async def test_an_error_that_can_be_read_and_not_written_is_an_answer_all_the_same() -> None:
    for depth in range(960, 1000, 2):
        deep = b'{"id": "g", "status": "error", "error": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
        assert isinstance(await create(200, deep), Accepted | OutcomeUnknown)
        assert isinstance(await get_status(200, deep), GenerationStatus | StatusError)


async def test_truncated_log_is_an_error_and_proves_nothing() -> None:
    page = {"data": [], "pagination": {"limit": 100, "offset": 0, "total": 7, "has_more": True}}
    async with mocked_vendor() as vendor:
        vendor.add("GET", f"{BASE_URL}/v2/logs?period=24h&limit=100&offset=0", 200, page)
        found = await vendor.api.log_page({"period": "24h"}, limit=100, offset=0)
    assert isinstance(found, StatusError)
    assert "ends where it says that there is more" in found.message


async def test_a_balance_beyond_all_numbers_is_none() -> None:
    async with mocked_vendor() as vendor:
        vendor.add("GET", f"{BASE_URL}/v2/billing", 200, b'{"current_balance": 1' + b"0" * 400 + b"}")
        assert await vendor.api.balance() is None
