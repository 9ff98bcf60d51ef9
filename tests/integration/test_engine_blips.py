"""Refusals that pass: of all creates for some seconds, after others were accepted; of some rows' prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.client.create_result import CreateResponse, classify_create
from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.sandbox import Fault, Retirement
from pipeline.submit.refused_rows import MIN_ROWS
from tests.integration.engine_harness import (
    MODEL,
    PRICE_USD,
    EngineHarness,
    count_states,
    fast_sandbox_options,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.client import CreateResult
    from pipeline.engine import Engine
    from pipeline.model import Record


@pytest.mark.parametrize(
    ("status", "price_usd"),
    [(status, PRICE_USD) for status in (503, 405, 401, 403, 302)] + [(401, None)],
)
async def test_a_blip_in_front_of_the_api_does_not_end_the_night(
    tmp_path: Path, status: int, price_usd: float | None
) -> None:
    accepted, refused = 0, 0

    def refuse_some(engine: Engine) -> None:
        api = engine._run.deps.api
        create = api.create

        async def in_front(body: str, correlation_id: str) -> CreateResult:
            nonlocal accepted, refused
            if accepted >= 12 and refused < 6:
                refused += 1
                body_of_proxy = f"<html>default backend - {status}</html>".encode()
                return classify_create(CreateResponse(status, {}, body_of_proxy, api.base_url), "KEY")
            accepted += 1
            return await create(body, correlation_id)

        api.create = in_front  # type: ignore[method-assign]

    async with EngineHarness(tmp_path, fast_sandbox_options(balance_usd=100.0)) as house:
        house.price_of = lambda _: price_usd
        outcome = await house.run(24, on_start=refuse_some)
        assert count_states(outcome) == {State.DONE: 24}
        assert (refused, outcome.stop_reason) == (6, None)


@pytest.mark.parametrize(("concurrency", "bad"), [(1, 3), (20, 4)])
async def test_prompts_that_a_firewall_refuses_cost_their_rows(
    tmp_path: Path, concurrency: int, bad: int
) -> None:
    """The key works, and the account has enough: the others are done, also when the bad ones come first."""
    faults = [Fault("firewall", match=f"number {number}.") for number in range(bad)]
    async with EngineHarness(tmp_path, fast_sandbox_options(balance_usd=100.0), *faults) as house:
        house.price_of = lambda _: PRICE_USD
        outcome = await house.run(12, concurrency=concurrency, check=False)
        assert outcome.stop_reason in (None, StopReason.UNFINISHED)
        assert count_states(outcome)[State.DONE] == 12 - bad
        told = [failure.message for row in outcome.records if (failure := row.failure)]
        assert len(told) + len(outcome.unfinished) == bad
        assert all("403" in why for why in [*told, *outcome.unfinished.values()])


async def test_a_model_that_is_withdrawn_during_a_run_stops_it_at_once(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(balance_usd=100.0)) as house:

        def withdraw(after: Record) -> None:
            if house.observer.count_entered(State.GENERATING) == 3 and after.state is State.GENERATING:
                house.sandbox._service.retire(Retirement(MODEL, "withdrawn"))

        house.price_of, house.observer.transition_callback = (lambda _: PRICE_USD), withdraw
        outcome = await house.run(12, concurrency=1)
        assert outcome.stop_reason is StopReason.MODEL
        assert count_states(outcome) == {State.DONE: 3, State.PENDING: 9}
        assert house.sandbox_state.create_requests == 3 + MIN_ROWS


async def test_refusals_that_nothing_explains_and_that_last_are_no_matter_of_credits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.backoff.OUTAGE_LIMIT_S", 0.3)
    faults = [Fault("firewall", match=f"number {number}.") for number in range(4, 12)]
    async with EngineHarness(tmp_path, fast_sandbox_options(balance_usd=100.0), *faults) as house:
        house.price_of = lambda _: PRICE_USD
        outcome = await house.run(12)
        assert outcome.stop_reason is StopReason.UNREACHABLE
        assert "though others were accepted before: HTTP 403" in outcome.message
        assert count_states(outcome) == {State.DONE: 4, State.PENDING: 8}
