"""Why a run ends early, what it still finishes, and what the next one finds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pipeline.cluster.limits import RemoteConcurrencyLimit
from pipeline.errors import LedgerError, StopReason, StoreError
from pipeline.events import Topic
from pipeline.model import MAYBE_PAID_STATES, Record, State, Transition
from pipeline.plan import mark_interrupted
from pipeline.sandbox import Fault
from pipeline.submit import account_refusals
from tests.crash.batches import wait_until
from tests.integration.engine_harness import PRICE_USD, EngineHarness, count_states, fast_sandbox_options
from tests.integration.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.engine import Engine


def on_count_entered(house: EngineHarness, state: State, times: int, act: Callable[[], None]) -> None:
    """Act once rows have come into `state` so many times."""

    def note(_: Record) -> None:
        if house.observer.count_entered(state) == times:
            act()

    house.observer.transition_callback = note


async def test_out_of_credits_the_paid_rows_are_finished_and_the_rest_waits(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(balance_usd=5 * PRICE_USD)) as house:
        outcome = await house.run(12, concurrency=4)
        assert count_states(outcome) == {State.DONE: 5, State.PENDING: 7}
        assert outcome.stop_reason is StopReason.CREDITS
        assert "credits" in outcome.message
        assert house.sandbox_state.create_requests <= 5 + 4
        assert all(record.failure is None for record in outcome.records)


async def test_a_wrong_key_stops_at_once_names_its_variable_and_blames_no_row(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(key="another")) as house:
        outcome = await house.run(12, concurrency=4)
        assert count_states(outcome) == {State.PENDING: 12}
        assert outcome.stop_reason is StopReason.KEY
        assert "AIML_API_KEY" in outcome.message
        assert house.sandbox_state.requests["POST", "/v2/video/generations"] <= 4
        assert all(record.attempts == 0 for record in outcome.records)


async def test_a_key_that_dies_in_the_middle_leaves_what_was_paid_for_the_next_run(tmp_path: Path) -> None:
    faults = (Fault("status-unauthorized"), Fault("unauthorized", nth=4))
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:50"), *faults) as house:
        outcome = await house.run(5, concurrency=3, timeout=600)
        assert outcome.stop_reason is StopReason.KEY
        assert count_states(outcome) == {State.GENERATING: 3, State.PENDING: 2}
        assert all("key" in words for words in outcome.unfinished.values())
        house.sandbox._injector.faults.clear()
        again = await house.run()
        assert count_states(again) == {State.DONE: 5}
        assert house.count_paid() == 5


async def test_a_quota_stops_the_run_or_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("quota", nth=2), Fault("quota", nth=4)
    ) as house:
        outcome = await house.run(3, concurrency=1)
        assert outcome.stop_reason is StopReason.QUOTA
        assert count_states(outcome) == {State.DONE: 1, State.PENDING: 2}
        monkeypatch.setattr(account_refusals, "QUOTA_PAUSE_S", 0.2)
        again = await house.run(concurrency=1, wait_for_quota=True)
        assert count_states(again) == {State.DONE: 3}
        assert house.sandbox_state.triggered["quota"] == 2
        assert any(event.topic is Topic.WAITING for event in house.observer.events)


async def test_the_first_stop_finishes_what_is_paid_and_submits_no_more(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:30")) as house:
        outcome = await house.run(
            12,
            concurrency=3,
            on_start=lambda engine: on_count_entered(
                house, State.GENERATING, 3, lambda: engine.stop("stopped", "once more to stop")
            ),
        )
        assert outcome.stop_reason is StopReason.INTERRUPTED
        assert "once more to stop" in house.observer.messages_text()
        done = count_states(outcome)[State.DONE]
        assert done == house.sandbox_state.create_requests <= 6
        assert count_states(outcome)[State.PENDING] == 12 - done
        again = await house.run(concurrency=12)
        assert count_states(again) == {State.DONE: 12}
        assert house.sandbox_state.create_requests == 12


async def test_the_second_stop_ends_at_once_and_loses_nothing(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100000")) as house:

        def both(engine: Engine) -> Callable[[], None]:
            def act() -> None:
                engine.stop("first", "said first")
                engine.cancel()

            return act

        outcome = await house.run(
            6,
            concurrency=3,
            on_start=lambda engine: on_count_entered(house, State.GENERATING, 2, both(engine)),
        )
        paid = [record for record in outcome.records if record.state in MAYBE_PAID_STATES]
        assert len(paid) == house.sandbox_state.create_requests >= 2
        assert all(record.state is State.GENERATING for record in paid)
        assert {record.generation_id for record in paid} == {
            made.id for made in house.sandbox_state.generations
        }


async def test_a_stop_at_once_leaves_an_unanswered_create_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.submit.create.SHUTDOWN_GRACE_S", 0.2)
    options = fast_sandbox_options(log_rows="accepted")
    async with EngineHarness(tmp_path, options, Fault("hang-accepted", match="number 0.")) as house:
        outcome = await house.run(
            2,
            request_timeout=600.0,
            on_start=lambda engine: on_count_entered(house, State.DONE, 1, engine.cancel),
        )
        assert count_states(outcome) == {State.DONE: 1, State.IN_DOUBT: 1}
        house.sandbox._injector.faults.clear()
        again = await house.run(reconcile_after=60)
        assert count_states(again) == {State.DONE: 2}
        assert house.count_paid() == 2


async def test_an_early_stop_is_heard_also_when_the_run_had_stopped_before(tmp_path: Path) -> None:
    """A run that only waits for rows in doubt ends at the first Ctrl-C, whatever stopped it before."""
    options = fast_sandbox_options(balance_usd=1.5 * PRICE_USD, log_rows="never")
    async with EngineHarness(tmp_path, options, Fault("cut-accepted", nth=1)) as house:
        engines: list[Engine] = []
        stopped: list[str] = []

        def watch(engine: Engine) -> None:
            engines.append(engine)

        def said(event: Any) -> None:
            house.observer.events.append(event)
            if event.topic is Topic.WAITING and "in doubt" in event.message and not stopped:
                stopped.append("asked")
                engines[0].stop("stopping", "stopping now")

        house.observer.on_event = said  # type: ignore[method-assign]  # it acts
        outcome = await house.run(3, concurrency=1, on_start=watch, reconcile_after=600)
        assert stopped
        assert "stopping now" in house.observer.messages_text()
        assert count_states(outcome)[State.IN_DOUBT] == 1


async def test_a_generation_that_is_late_is_left_and_never_failed(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("never-finishes", match="number 1.")
    ) as house:
        outcome = await house.run(3, timeout=1.0)
        assert count_states(outcome) == {State.DONE: 2, State.GENERATING: 1}
        assert outcome.stop_reason is StopReason.DEADLINE
        [words] = outcome.unfinished.values()
        assert "deadline" in words
        again = await house.run(timeout=0.5)
        assert count_states(again) == {State.DONE: 2, State.GENERATING: 1}
        assert house.sandbox_state.create_requests == 3


async def test_a_generation_that_nobody_knows_is_left_with_the_words_that_say_so(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("status-not-found", match="number 1.")
    ) as house:
        outcome = await house.run(2, timeout=1.0)
        assert count_states(outcome) == {State.DONE: 1, State.GENERATING: 1}
        [words] = outcome.unfinished.values()
        assert "deadline" in words
        assert "404" in words


async def test_deadline_holds_when_no_poll_is_due_or_allowed(tmp_path: Path) -> None:
    """429 with a wait of a day, and a pace of a minute: the run ends at its deadline all the same."""
    options = fast_sandbox_options(durations="fixed:100000")
    async with EngineHarness(
        tmp_path, options, Fault("status-throttled", match="number 0.", value=86400)
    ) as house:
        outcome = await house.run(2, timeout=1.0, poll_interval=60.0)
        assert count_states(outcome) == {State.GENERATING: 2}
        assert outcome.stop_reason is StopReason.DEADLINE


async def test_last_poll_notices_generation_finished_by_deadline(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:30")) as house:
        outcome = await house.run(1, timeout=1.5, poll_interval=60.0)
        assert count_states(outcome) == {State.DONE: 1}


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (LedgerError("the ledger is damaged"), StopReason.LEDGER),
        (StoreError("disk full"), StopReason.DISK),
    ],
)
@pytest.mark.parametrize("good", [1, 4, 7])
async def test_a_ledger_that_fails_ends_the_run_in_words(
    tmp_path: Path, trouble: Exception, reason: StopReason, good: int
) -> None:
    async with EngineHarness(tmp_path) as house:
        commit = house.ledger.commit
        commits = 0

        async def failing(before: Record, after: Record) -> Record:
            nonlocal commits
            commits += 1
            if commits > good:
                raise trouble
            return await commit(before, after)

        house.ledger.commit = failing  # type: ignore[method-assign]  # a disk that fills up
        outcome = await house.run(4, concurrency=2)
        assert (outcome.stop_reason, outcome.message) == (reason, str(trouble))
        house.ledger.commit = commit  # type: ignore[method-assign]
        assert all(record.state is not State.FAILED for record in await house.ledger.load())
        cut = [record for record in await house.ledger.load() if record.state is State.SUBMITTING]
        await house.ledger.commit_many([Transition(record, mark_interrupted(record)) for record in cut])
        again = await house.run(reconcile_after=1.0)
        assert count_states(again) == {State.DONE: 4}
        assert house.count_paid() == 4


async def test_an_api_that_never_answered_is_given_up_and_blames_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.backoff.NEVER_REACHED_LIMIT_S", 1.0)
    async with EngineHarness(tmp_path, fast_sandbox_options(port=free_port())) as house:
        await house.sandbox._stop()
        outcome = await house.run(3)
        assert outcome.stop_reason is StopReason.UNREACHABLE
        assert count_states(outcome) == {State.PENDING: 3}


async def test_refusals_far_apart_are_no_outage(tmp_path: Path) -> None:
    """Between them, for an hour each, the worker had no slot to try with: others had them all."""
    gate, hours = RemoteConcurrencyLimit(), 0
    fault = Fault("unavailable", times=2)
    async with (
        EngineHarness(tmp_path, fast_sandbox_options(), fault) as house,
        anyio.create_task_group() as tasks,
    ):

        def refused() -> int:
            return sum(event.topic is Topic.CREATE_NOT_ACCEPTED for event in house.observer.events)

        async def lend(engine: Engine) -> None:
            nonlocal hours
            for refusals in (0, 1, 2):
                await wait_until(lambda: refused() == refusals)  # noqa: B023 - awaited here
                hours = refusals
                gate.add_permits(1)
                engine.notify()

        def begin(engine: Engine) -> None:
            clock = engine._run.deps.clock
            later = replace(engine._run.deps, concurrency_limit=gate, clock=lambda: clock() + 3600.0 * hours)
            engine._run.deps = later
            tasks.start_soon(lend, engine)

        outcome = await house.run(1, on_start=begin)
        assert outcome.stop_reason is None
        assert count_states(outcome) == {State.DONE: 1}
