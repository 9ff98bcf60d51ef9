"""Budgets that hold against the vendor's own book, and generations that are made again or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.sandbox import Fault
from tests.integration.engine_harness import PRICE_USD, EngineHarness, count_states, fast_sandbox_options

if TYPE_CHECKING:
    from pathlib import Path


def priced_harness(folder: Path, *faults: Fault, **options: object) -> EngineHarness:
    house = EngineHarness(folder, fast_sandbox_options(**options), *faults)
    house.price_of = lambda _: PRICE_USD
    return house


async def test_a_budget_is_used_and_never_exceeded(tmp_path: Path) -> None:
    async with priced_harness(tmp_path) as house:
        outcome = await house.run(12, concurrency=6, max_cost=1.3)
        assert count_states(outcome) == {State.DONE: 3, State.PENDING: 9}
        assert outcome.stop_reason is StopReason.BUDGET
        assert "1.30" in outcome.message
        assert house.sandbox_state.charged_usd == 1.2
        again = await house.run(concurrency=6, max_cost=1.3)
        assert again.stop_reason is StopReason.BUDGET
        assert house.sandbox_state.charged_usd == 1.2
        more = await house.run(concurrency=6, max_cost=12 * PRICE_USD)
        assert count_states(more) == {State.DONE: 12}


async def test_money_comes_back_when_a_generation_fails(tmp_path: Path) -> None:
    """The whole batch fits since failed ones are not charged, though not all of it at once."""
    async with priced_harness(tmp_path, Fault("error", share=0.5, times=1)) as house:
        outcome = await house.run(8, concurrency=8, max_cost=8 * PRICE_USD, generation_retries=3)
        assert count_states(outcome) == {State.DONE: 8}
        assert house.sandbox_state.charged_usd == pytest.approx(8 * PRICE_USD)


async def test_a_refused_row_costs_no_budget(tmp_path: Path) -> None:
    async with priced_harness(tmp_path, Fault("bad-request", match="number 0.")) as house:
        outcome = await house.run(4, concurrency=4, max_cost=3 * PRICE_USD)
        assert count_states(outcome) == {State.DONE: 3, State.FAILED: 1}
        assert outcome.stop_reason is None


@pytest.mark.parametrize("fault", ["completed-without-url", "cdn-corrupt"])
async def test_what_was_charged_without_a_video_counts_as_spent(tmp_path: Path, fault: str) -> None:
    async with priced_harness(tmp_path, Fault(fault)) as house:
        outcome = await house.run(6, concurrency=1, max_cost=3 * PRICE_USD)
        assert count_states(outcome)[State.FAILED] == 3
        assert outcome.stop_reason is StopReason.BUDGET
        assert house.sandbox_state.charged_usd == pytest.approx(3 * PRICE_USD)
        await house.run(concurrency=1, max_cost=3 * PRICE_USD)
        assert house.sandbox_state.charged_usd == pytest.approx(3 * PRICE_USD)


async def test_a_row_in_doubt_holds_its_money(tmp_path: Path) -> None:
    """It may be paid: the budget has room for two, and the doubtful one is one of them."""
    async with priced_harness(tmp_path, Fault("cut-accepted", match="number 0."), log_rows="never") as house:
        outcome = await house.run(
            4, concurrency=2, max_cost=2 * PRICE_USD, reconcile_after=600, reconcile_wait=0.1
        )
        assert count_states(outcome) == {State.IN_DOUBT: 1, State.DONE: 1, State.PENDING: 2}
        assert house.sandbox_state.charged_usd <= 2 * PRICE_USD
        again = await house.run(
            concurrency=4, max_cost=2 * PRICE_USD, reconcile_after=600, reconcile_wait=0.1
        )
        assert count_states(again)[State.PENDING] == 2


async def test_a_row_of_unknown_price_is_refused_under_a_budget_and_names_the_way_out(tmp_path: Path) -> None:
    async with priced_harness(tmp_path) as house:
        house.price_of = lambda record: None if record.id == "row-1" else PRICE_USD
        outcome = await house.run(3, max_cost=5.0)
        assert count_states(outcome) == {State.DONE: 2, State.PENDING: 1}
        [words] = outcome.unfinished.values()
        assert "--assume-price" in words
        assert outcome.stop_reason is not None
        assert house.sandbox_state.create_requests == 2


async def test_without_a_budget_prices_stop_nothing(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        outcome = await house.run(3)
        assert count_states(outcome) == {State.DONE: 3}
        assert {record.usd_spent for record in outcome.records} == {PRICE_USD}


@pytest.mark.parametrize("fault", ["error", "error-detail", "error-text"])
async def test_a_providers_fault_is_worth_as_many_more_generations_as_allowed(
    tmp_path: Path, fault: str
) -> None:
    async with priced_harness(tmp_path, Fault(fault, match="number 0.")) as house:
        outcome = await house.run(2, generation_retries=2)
        assert count_states(outcome) == {State.DONE: 1, State.FAILED: 1}
        failed = outcome.records[0]
        assert failed.failure is not None
        assert house.sandbox_state.create_requests == (4 if failed.failure.retryable else 2)
        assert failed.submission_no == house.sandbox_state.create_requests - 1
        assert (failed.usd_spent, failed.reserved_usd) == (None, None)
        assert house.count_paid() == 1


async def test_a_fault_that_passes_costs_nothing_but_time(tmp_path: Path) -> None:
    async with priced_harness(tmp_path, Fault("error", times=1)) as house:
        outcome = await house.run(3)
        assert count_states(outcome) == {State.DONE: 3}
        assert (house.sandbox_state.create_requests, house.count_paid()) == (6, 3)
        assert {record.faults for record in outcome.records} == {1}


async def test_content_that_was_refused_is_not_asked_for_again(tmp_path: Path) -> None:
    async with priced_harness(tmp_path, Fault("content-refusal", match="number 0.")) as house:
        outcome = await house.run(2, generation_retries=5)
        failure = outcome.records[0].failure
        assert failure is not None
        assert (failure.code, failure.retryable) == ("content_refused", False)
        assert house.sandbox_state.create_requests == 2


async def test_no_retries_means_none(tmp_path: Path) -> None:
    async with priced_harness(tmp_path, Fault("error")) as house:
        outcome = await house.run(2, generation_retries=0)
        assert count_states(outcome) == {State.FAILED: 2}
        assert house.sandbox_state.create_requests == 2


async def test_budget_held_by_in_doubt_row_is_waited_for(tmp_path: Path) -> None:
    """The create in doubt was never accepted: once that is proven, its money buys the last row."""
    async with priced_harness(tmp_path, Fault("cut-before", match="number 0.", times=1)) as house:
        outcome = await house.run(3, concurrency=3, max_cost=3 * PRICE_USD, reconcile_after=1.0)
        assert count_states(outcome) == {State.DONE: 3}
        assert house.sandbox_state.charged_usd == pytest.approx(3 * PRICE_USD)


async def test_row_waits_for_in_doubt_row_that_holds_the_last_budget(tmp_path: Path) -> None:
    async with priced_harness(tmp_path, Fault("cut-before", match="number 0.", times=1)) as house:
        outcome = await house.run(3, concurrency=1, max_cost=2 * PRICE_USD, reconcile_after=1.0)
        assert count_states(outcome) == {State.DONE: 2, State.PENDING: 1}
        assert outcome.stop_reason is StopReason.BUDGET
        assert house.sandbox_state.charged_usd == pytest.approx(2 * PRICE_USD)
