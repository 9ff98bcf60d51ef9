"""Creates whose answer was lost: found in the log, proven absent, or held in doubt. Never paid twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.errors import StopReason
from pipeline.events import Topic
from pipeline.model import State
from pipeline.sandbox import Fault
from tests.integration.engine_harness import EngineHarness, count_states, fast_sandbox_options, make_record

if TYPE_CHECKING:
    from pathlib import Path

ACCEPTED = [
    Fault("cut-accepted"),
    Fault("cut-inside-answer"),
    Fault("gateway-accepted", value=502),
    Fault("gateway-accepted", value=504),
    Fault("garbage"),
    Fault("html"),
    Fault("empty"),
    Fault("no-id"),
    Fault("hang-accepted"),
]
NOT_ACCEPTED = [
    Fault("cut-before"),
    Fault("gateway-lost", value=502),
    Fault("gateway-lost", value=504),
    Fault("hang"),
]


def once(fault: Fault, index: int) -> Fault:
    return Fault(fault.name, match=f"number {index}.", times=1, value=fault.value)


async def test_every_way_to_lose_an_answer_costs_no_row_and_no_second_payment(tmp_path: Path) -> None:
    faults = [once(fault, index) for index, fault in enumerate([*ACCEPTED, *NOT_ACCEPTED])]
    count = len(faults) + 2
    async with EngineHarness(tmp_path, fast_sandbox_options(), *faults) as house:
        outcome = await house.run(count, concurrency=8, reconcile_after=1.5, request_timeout=0.5)
        assert count_states(outcome) == {State.DONE: count}
        assert house.count_paid() == count
        assert {made.prompt for made in house.sandbox_state.generations} == {
            make_record(index).prompt for index in range(count)
        }
        assert outcome.stop_reason is None
        assert sum(house.sandbox_state.triggered[fault.name] for fault in {*faults}) >= len(faults)


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_gateways_error_that_names_the_accepted_generation_is_followed_up(
    tmp_path: Path, status: int
) -> None:
    fault = Fault("gateway-accepted", times=1, value=status, with_inference_id=True)
    async with EngineHarness(tmp_path, fast_sandbox_options(), fault) as house:
        outcome = await house.run(2)
        assert count_states(outcome) == {State.DONE: 2}
        assert house.count_paid() == house.sandbox_state.create_requests == 2
        assert house.sandbox_state.triggered["gateway-accepted"] == 2


async def test_an_error_that_names_a_generation_nobody_knows_is_tried_again(tmp_path: Path) -> None:
    fault = Fault("gateway-lost", times=1, value=503, with_inference_id=True)
    async with EngineHarness(tmp_path, fast_sandbox_options(), fault) as house:
        outcome = await house.run(1)
        assert count_states(outcome) == {State.DONE: 1}
        assert (house.count_paid(), house.sandbox_state.create_requests) == (1, 2)
        assert State.IN_DOUBT not in [after.state for _, after in house.observer.transitions]


async def test_in_doubt_row_waits_full_period_before_second_create(tmp_path: Path) -> None:
    """The row shows late; a create that came before it would be a second payment."""
    options = fast_sandbox_options(log_lag_s=150.0)  # a second and a half
    async with EngineHarness(tmp_path, options, Fault("cut-accepted", total=1)) as house:
        outcome = await house.run(1, reconcile_after=8.0)
        assert count_states(outcome) == {State.DONE: 1}
        assert house.sandbox_state.create_requests == 1


async def test_a_row_the_log_never_shows_is_held_and_the_rest_is_done(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(log_rows="never"), Fault("cut-accepted", match="number 1.")
    ) as house:
        outcome = await house.run(4, reconcile_after=600, reconcile_wait=0.3)
        assert count_states(outcome) == {State.DONE: 3, State.IN_DOUBT: 1}
        assert outcome.stop_reason is StopReason.IN_DOUBT
        assert [record.id for record in outcome.open_rows] == ["row-1"]
        assert house.sandbox_state.create_requests == 4
        assert any(event.topic is Topic.WAITING for event in house.observer.events)
        again = await house.run(reconcile_after=600, reconcile_wait=0.0)
        assert count_states(again)[State.IN_DOUBT] == 1
        assert house.sandbox_state.create_requests == 4


@pytest.mark.parametrize("trouble", ["log-error", "log-garbage", "log-throttled"])
async def test_a_log_that_cannot_be_read_proves_nothing(tmp_path: Path, trouble: str) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault(trouble), Fault("cut-before", match="number 0.")
    ) as house:
        outcome = await house.run(2, reconcile_after=0.1, reconcile_wait=0.5)
        assert count_states(outcome) == {State.DONE: 1, State.IN_DOUBT: 1}
        house.sandbox._injector.faults.clear()
        again = await house.run(reconcile_after=0.1, reconcile_wait=60)
        assert count_states(again) == {State.DONE: 2}
        assert house.count_paid() == 2


async def test_one_pass_serves_all_rows_in_doubt(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(log_rows="accepted"), Fault("cut-accepted", times=1)
    ) as house:
        outcome = await house.run(20, concurrency=20, reconcile_after=60, poll_interval=0.5)
        assert count_states(outcome) == {State.DONE: 20}
        assert house.sandbox_state.requests["GET", "/v2/logs"] < 15


async def test_a_run_waits_as_long_as_it_takes_and_says_so(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("hang", match="number 0.", times=1)
    ) as house:
        outcome = await house.run(2, reconcile_after=1.0, request_timeout=0.3)
        assert count_states(outcome) == {State.DONE: 2}
        assert "waiting for 1 row(s) in doubt" in house.observer.messages_text()
        assert "never accepted" in house.observer.messages_text()


async def test_a_generation_found_in_the_log_that_has_failed_is_generated_again(tmp_path: Path) -> None:
    faults = (Fault("cut-accepted", times=1), Fault("error", times=1))
    async with EngineHarness(tmp_path, fast_sandbox_options(), *faults) as house:
        outcome = await house.run(1, reconcile_after=60)
        assert count_states(outcome) == {State.DONE: 1}
        assert (len(house.sandbox_state.generations), house.count_paid()) == (2, 1)


async def test_in_doubt_rows_of_earlier_run_are_reconciled_by_next(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(log_lag_s=6000.0), Fault("cut-accepted", match="number 0.")
    ) as house:
        outcome = await house.run(2, reconcile_after=600, reconcile_wait=0.0)
        assert count_states(outcome) == {State.DONE: 1, State.IN_DOUBT: 1}
        for made in house.sandbox_state.generations:
            made.created_at -= 60.0  # a minute goes by
        again = await house.run(reconcile_after=600)
        assert count_states(again) == {State.DONE: 2}
        assert house.sandbox_state.create_requests == 2


async def test_a_run_that_may_not_wait_still_asks_once(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("log-error"), Fault("cut-accepted", match="number 0.")
    ) as house:
        outcome = await house.run(1, reconcile_after=600, reconcile_wait=0.0)
        assert count_states(outcome) == {State.IN_DOUBT: 1}
        house.sandbox._injector.faults.clear()
        again = await house.run(reconcile_after=600, reconcile_wait=0.0)
        assert count_states(again) == {State.DONE: 1}
        assert house.sandbox_state.create_requests == 1


async def test_recent_in_doubt_row_counts_as_in_flight(tmp_path: Path) -> None:
    """Its create may have been accepted: the vendor must not see more at once than was asked for."""
    options = fast_sandbox_options(durations="fixed:40")  # two fifths of a second, well within a young doubt
    async with EngineHarness(tmp_path, options, Fault("cut-accepted", share=0.4)) as house:
        outcome = await house.run(16, concurrency=4, reconcile_after=600)
        assert count_states(outcome) == {State.DONE: 16}
        assert house.sandbox_state.triggered["cut-accepted"] >= 2
        assert house.sandbox_state.peak_in_flight <= 4
