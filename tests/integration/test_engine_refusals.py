"""Creates that are refused: whose matter that is, what is tried again, and what the run says of it."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from pipeline.client.create_result import CreateResponse, classify_create
from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.sandbox import Fault
from pipeline.submit.account_refusals import MAX_REFUSALS
from pipeline.submit.refused_rows import MIN_ROWS
from tests.integration.engine_harness import (
    PRICE_USD,
    EngineHarness,
    count_states,
    fast_sandbox_options,
    make_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.client import CreateResult, StatusError
    from pipeline.engine import Engine
    from pipeline.model import Record

EXPLANATION_S = 0.15
OTHER_MODEL = "google/veo-3.0-i2v-fast"


def answer_slowly(engine: Engine) -> None:
    """Let the vendor take its time over what it is asked about the key and the account."""
    api = engine._run.deps.api
    get = api._get

    async def slow_get(path: str) -> bytes | StatusError:
        await anyio.sleep(EXPLANATION_S)
        return await get(path)

    api._get = slow_get  # type: ignore[method-assign]


@pytest.mark.parametrize("rows", [1, 4])
async def test_a_run_whose_last_rows_are_refused_waits_for_the_accounts_reason(
    tmp_path: Path, rows: int
) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(balance_usd=0.0)) as house:
        house.price_of = lambda _: PRICE_USD
        outcome = await house.run(rows, on_start=answer_slowly)
        assert outcome.stop_reason is StopReason.CREDITS
        assert "top it up" in outcome.message
        assert count_states(outcome) == {State.PENDING: rows}


async def test_a_last_row_that_the_account_can_pay_for_is_tried_as_often_as_promised(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(), Fault("firewall")) as house:
        house.price_of = lambda _: PRICE_USD
        outcome = await house.run([make_record(0)], on_start=answer_slowly)
        assert house.sandbox_state.create_requests == MAX_REFUSALS
        assert "the account works" in outcome.unfinished[outcome.records[0].key]
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert count_states(outcome) == {State.PENDING: 1}


async def test_a_row_whose_key_is_refused_twice_beside_others_is_tried_again(tmp_path: Path) -> None:
    fault = Fault("unauthorized", match="number 2.", times=2)
    async with EngineHarness(tmp_path, fast_sandbox_options(), fault) as house:
        house.price_of = lambda _: PRICE_USD
        outcome = await house.run(8, concurrency=2)
        assert house.sandbox_state.triggered["unauthorized"] == 2
        assert count_states(outcome) == {State.DONE: 8}


def two_models() -> tuple[list[Record], list[Record]]:
    """Return rows of a model whose creates are answered with 404, and rows of one that works."""
    gone = [replace(make_record(index, f"gone {index}."), model=OTHER_MODEL) for index in range(6)]
    return gone, [make_record(index) for index in range(6, 9)]


@pytest.mark.parametrize("ended", [State.DONE, State.FAILED])
async def test_nothing_but_404_stops_the_run_beside_rows_of_another_model_that_have_ended(
    tmp_path: Path, ended: State
) -> None:
    fault = Fault("bad-request", match="number" if ended is State.FAILED else "nothing")
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), fault, Fault("not-found", match="gone")
    ) as house:
        gone, others = two_models()
        assert count_states(await house.run(others)) == {ended: 3}
        await house.add(gone)
        outcome = await house.run(concurrency=1)
        assert outcome.stop_reason is StopReason.MODEL
        assert count_states(outcome) == {ended: 3, State.PENDING: 6}
        assert house.sandbox_state.triggered["not-found"] == MIN_ROWS


async def test_rows_of_another_model_that_are_left_to_try_go_on_after_404s(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(), Fault("not-found", match="gone")) as house:
        gone, others = two_models()
        outcome = await house.run([*gone, *others], concurrency=1)
        assert outcome.stop_reason is None
        assert count_states(outcome) == {State.DONE: 3, State.FAILED: 6}


def answer_creates(status: Callable[[str], int]) -> Callable[[Engine], None]:
    """Let a gateway answer creates by their bodies, and pass on those to which it would answer 200."""

    def wrap(engine: Engine) -> None:
        api = engine._run.deps.api
        create = api.create

        async def in_front(body: str, correlation_id: str) -> CreateResult:
            if (answered := status(body)) == 200:
                return await create(body, correlation_id)
            response = CreateResponse(answered, {}, b"<html>Sorry</html>", f"{api.base_url}/v2")
            return classify_create(response, "KEY")

        api.create = in_front  # type: ignore[method-assign]

    return wrap


async def test_a_page_for_maintenance_is_waited_out(tmp_path: Path) -> None:
    """For a second, which is a minute and more at the usual interval, it answers every POST with 405."""
    over_at = time.monotonic() + 1.0
    async with EngineHarness(tmp_path) as house:
        page = answer_creates(lambda _: 405 if time.monotonic() < over_at else 200)
        outcome = await house.run(12, on_start=page)
        assert count_states(outcome) == {State.DONE: 12}
        assert time.monotonic() > over_at
        assert any(record.attempts > 1 for record in outcome.records)


async def test_405_for_good_stops_the_run_and_fails_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.backoff.OUTAGE_LIMIT_S", 1.5)
    async with EngineHarness(tmp_path) as house:
        outcome = await house.run(6, on_start=answer_creates(lambda _: 405))
        assert outcome.stop_reason is StopReason.UNREACHABLE
        assert "HTTP 405" in outcome.message
        assert count_states(outcome) == {State.PENDING: 6}


async def test_an_outage_that_only_the_last_row_meets_leaves_it_for_the_next_run(tmp_path: Path) -> None:
    asked = itertools.count()
    async with EngineHarness(tmp_path) as house:
        outage = answer_creates(lambda _: 200 if next(asked) < 5 else 503)
        outcome = await house.run(6, concurrency=1, on_start=outage)
        assert count_states(outcome) == {State.DONE: 5, State.PENDING: 1}
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert "the next run tries again" in outcome.message
        assert count_states(await house.run()) == {State.DONE: 6}


async def test_rows_refused_before_another_is_accepted_and_an_outage_begins_are_left(tmp_path: Path) -> None:
    accepted: list[str] = []

    def status(body: str) -> int:
        if "number 2." in body and not accepted:
            accepted.append(body)
            return 200
        return 503

    async with EngineHarness(tmp_path) as house:
        outcome = await house.run(3, concurrency=1, on_start=answer_creates(status))
        assert count_states(outcome) == {State.DONE: 1, State.PENDING: 2}
        assert outcome.records[2].state is State.DONE
        assert count_states(await house.run()) == {State.DONE: 3}
