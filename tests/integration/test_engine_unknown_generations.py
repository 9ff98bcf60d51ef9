"""Generations that the status endpoint answers with 404: alive until the log proves that they are over."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from pipeline.client import LogPage, LogRow
from pipeline.client.responses import StatusError
from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.plan import GENERATION_UNKNOWN
from pipeline.poll.unknown_generations import MIN_NOT_FOUND_POLLS, NOT_FOUND_INTERVALS
from pipeline.sandbox import Fault
from tests.integration.engine_harness import EngineHarness, count_states, fast_sandbox_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.client import Api
    from pipeline.engine import Engine

INTERVAL_S = 0.05
UNKNOWN_S = NOT_FOUND_INTERVALS * INTERVAL_S
NOT_KNOWN = StatusError(404, "HTTP 404: Generation not found")


def hide_status(is_hidden: Callable[[], bool]) -> Callable[[Engine], None]:
    """Return what makes an engine's status calls end in 404 while `is_hidden`."""

    def wrap(engine: Engine) -> None:
        api: Api = engine._run.deps.api
        real = api.get_status

        async def get_status(*args: Any, **options: Any) -> Any:
            await anyio.sleep(0.002)
            return NOT_KNOWN if is_hidden() else await real(*args, **options)

        api.get_status = get_status  # type: ignore[method-assign]

    return wrap


async def test_a_status_route_that_is_away_for_long_fails_no_row_and_buys_none(tmp_path: Path) -> None:
    """Creates work, and the log can be read, which shows nothing of what still renders."""
    async with EngineHarness(tmp_path, fast_sandbox_options(log_rows="never")) as house:
        back_at = anyio.current_time() + 3 * UNKNOWN_S
        away = hide_status(lambda: anyio.current_time() < back_at)
        outcome = await house.run(4, on_start=away, concurrency=2, poll_interval=INTERVAL_S)
        assert count_states(outcome) == {State.DONE: 4}
        assert outcome.stop_reason is None
        assert house.observer.count_entered(State.FAILED) == 0
        assert house.sandbox_state.create_requests == 4
        assert "polled on" in house.observer.messages_text()


async def test_what_the_log_lists_as_failed_is_over(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, None, Fault("error")) as house:
        outcome = await house.run(1, on_start=hide_status(lambda: True), poll_interval=INTERVAL_S)
        [row] = outcome.records
        assert row.failure is not None
        assert (row.state, row.failure.code, row.failure.retryable) == (
            State.FAILED,
            GENERATION_UNKNOWN,
            True,
        )
        assert outcome.unfinished == {}


async def test_a_poll_that_says_more_while_the_log_is_read_wins(tmp_path: Path) -> None:
    is_hidden = True

    def wrap(engine: Engine) -> None:
        hide_status(lambda: is_hidden)(engine)
        api: Api = engine._run.deps.api

        async def log_page(*_: Any, **__: Any) -> LogPage:
            nonlocal is_hidden
            [record] = engine.state.records.values()
            is_hidden = False
            while record.key in engine.state.unknown:  # noqa: ASYNC110 - a poll has no event to wait for
                await anyio.sleep(0.01)
            failed = LogRow(record.correlation_id, record.generation_id, succeeded=False)
            return LogPage((failed,), 1, has_more=False)

        api.log_page = log_page  # type: ignore[method-assign]

    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:300")) as house:
        outcome = await house.run(1, on_start=wrap, poll_interval=INTERVAL_S)
        assert not is_hidden
        assert count_states(outcome) == {State.DONE: 1}
        assert house.observer.count_entered(State.FAILED) == 0


def list_as_failed(asked: list[float], *, known_from: float) -> Callable[[Engine], None]:
    """Return what lists every create as failed in the log, and answers so many status calls with 404."""

    def wrap(engine: Engine) -> None:
        api: Api = engine._run.deps.api
        real_page, real_status = api.log_page, api.get_status

        async def log_page(*args: Any, **options: Any) -> Any:
            page = await real_page(*args, **options)
            assert isinstance(page, LogPage)
            return replace(page, rows=tuple(replace(row, succeeded=False) for row in page.rows))

        async def get_status(*args: Any, **options: Any) -> Any:
            [record] = engine.state.records.values()
            if record.state is State.IN_DOUBT:
                asked.append(anyio.current_time())
                if len(asked) < known_from:
                    return NOT_KNOWN
            return await real_status(*args, **options)

        api.log_page, api.get_status = log_page, get_status  # type: ignore[method-assign]

    return wrap


async def test_a_row_in_doubt_that_one_replica_does_not_know_is_not_bought_again(tmp_path: Path) -> None:
    """The log lists it as failed, and two status answers in succession are 404: the third knows it."""
    options = fast_sandbox_options(log_rows="accepted")
    async with EngineHarness(tmp_path, options, Fault("cut-accepted", total=1)) as house:
        asked: list[float] = []
        outcome = await house.run(1, on_start=list_as_failed(asked, known_from=3), poll_interval=INTERVAL_S)
        assert count_states(outcome) == {State.DONE: 1}
        assert len(asked) == 3
        assert house.sandbox_state.create_requests == 1


async def test_a_row_in_doubt_that_no_replica_knows_for_long_never_ran(tmp_path: Path) -> None:
    options = fast_sandbox_options(log_rows="accepted")
    async with EngineHarness(tmp_path, options, Fault("cut-accepted", total=1)) as house:
        asked: list[float] = []
        outcome = await house.run(1, on_start=list_as_failed(asked, known_from=inf), poll_interval=INTERVAL_S)
        assert count_states(outcome) == {State.DONE: 1}
        assert house.observer.count_entered(State.PENDING) == 1
        assert house.sandbox_state.create_requests == 2
        assert len(asked) >= MIN_NOT_FOUND_POLLS
        assert asked[-1] - asked[0] >= UNKNOWN_S


async def test_generation_of_another_key_is_left_at_once(tmp_path: Path) -> None:
    """Its 404 is explained, and that key's log cannot be read with this one."""
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:9000")) as house:
        outcome = await house.run(1, timeout=0.2, poll_interval=INTERVAL_S)
        [row] = outcome.records
        await house.ledger.commit(row, row.evolve(key_id="another"))
        again = await house.run(on_start=hide_status(lambda: True), poll_interval=INTERVAL_S, within_s=60)
        assert count_states(again) == {State.GENERATING: 1}
        assert again.stop_reason is StopReason.UNFINISHED
        assert "another key's" in again.message
