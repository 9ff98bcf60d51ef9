"""Creates that meet a 404 on a cluster: an address or a model that is gone fails no row, as elsewhere."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.sandbox import Fault
from pipeline.submit.refused_rows import MIN_ROWS
from tests.integration.driver_harness import make_driver
from tests.integration.engine_harness import PRICE_USD, EngineHarness, fast_sandbox_options
from tests.integration.local_cluster import assert_paid_once

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.model import Record


@pytest.mark.parametrize("max_cost", [None, 3 * PRICE_USD])
async def test_an_address_that_is_wrong_fails_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_cost: float | None
) -> None:
    """With one slot, the coordinator hears of each failure before the next create leaves."""
    async with EngineHarness(tmp_path, fast_sandbox_options(), Fault("not-found")) as house:
        await house.add(6)
        run = await make_driver(
            house, monkeypatch, workers=1, concurrency=1, price=PRICE_USD, max_cost=max_cost
        )
        async with run.running():
            pass
        assert {row.state for row in run.outcome.records} == {State.PENDING}
        assert {row.state for row in await house.ledger.load()} == {State.PENDING}
        assert run.outcome.stop_reason is StopReason.MODEL
        assert house.sandbox_state.create_requests == MIN_ROWS


async def test_what_failed_at_one_worker_is_put_back_when_another_one_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(), Fault("not-found")) as house:
        await house.add(12)
        run = await make_driver(house, monkeypatch, workers=3, concurrency=3)
        async with run.running():
            pass
        assert {row.state for row in run.outcome.records} == {State.PENDING}
        assert {row.state for row in await house.ledger.load()} == {State.PENDING}
        assert run.outcome.stop_reason is StopReason.MODEL


async def test_rows_whose_own_fault_a_404_is_stay_failed_and_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [Fault("not-found", match=f"number {number}.") for number in (0, 3)]
    async with EngineHarness(tmp_path, fast_sandbox_options(), *faults) as house:
        await house.add(6)
        run = await make_driver(house, monkeypatch, workers=1, concurrency=1)
        async with run.running():
            pass
        assert count_states(run.outcome.records) == {State.DONE: 4, State.FAILED: 2}
        assert run.outcome.stop_reason is None
        assert_paid_once(house)


def count_states(records: tuple[Record, ...]) -> Counter[State]:
    return Counter(record.state for record in records)
