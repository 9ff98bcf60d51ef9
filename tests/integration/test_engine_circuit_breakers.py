"""One row costs one row: whatever its work raises, and whatever a single answer claims about all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pipeline.circuit_breaker import MIN_ROWS
from pipeline.client.responses import parse_status
from pipeline.download.downloader import Downloader
from pipeline.download.verify import check_saved
from pipeline.errors import StopReason
from pipeline.events import Topic
from pipeline.model import Record, State
from pipeline.reconcile.in_doubt import judge
from pipeline.sandbox import Fault
from tests.integration.engine_harness import (
    PRICE_USD,
    EngineHarness,
    count_states,
    fast_sandbox_options,
    make_record,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.client import Api
    from pipeline.engine import Engine
    from pipeline.storage import OutputStore

BAD = "row-2"


def crashes(house: EngineHarness) -> list[str]:
    return [event.message for event in house.observer.events if event.topic is Topic.CRASH]


class BadDownloader(Downloader):
    """Meets a bug of ours with one row."""

    async def download(self, record: Record, *args: Any, **options: Any) -> Any:
        if record.id == BAD:
            raise AttributeError("'NoneType' object has no attribute 'name'")
        return await super().download(record, *args, **options)


async def test_a_download_that_raises_costs_its_row_alone_in_every_run(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        house.downloader_type = BadDownloader
        for run in range(2):
            outcome = await house.run(8 if not run else None)
            assert count_states(outcome) == {State.DONE: 7, State.READY: 1}
            assert outcome.stop_reason is StopReason.UNFINISHED
            [reason] = outcome.unfinished.values()
            assert "AttributeError" in reason
        [event, _] = [event for event in house.observer.events if event.topic is Topic.CRASH]
        assert BAD in event.message
        assert "Traceback" in str(event.facts["traceback"])
        house.downloader_type = Downloader
        assert count_states(await house.run()) == {State.DONE: 8}
        assert house.count_paid() == 8


@pytest.mark.parametrize("method", ["get_status", "create"])
async def test_a_request_that_raises_costs_its_row_alone(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path) as house:
        records = await house.add(8)
        bad = records[2]
        broken = True

        def wrap(engine: Engine) -> None:
            api: Api = engine._run.deps.api
            real = getattr(api, method)

            async def raising(first: str, *args: Any, **options: Any) -> Any:
                row = engine.state.records[bad.key]
                about_bad = first == (row.body if method == "create" else row.generation_id)
                if broken and about_bad:
                    raise RuntimeError("Connection closed.")
                return await real(first, *args, **options)

            monkeypatch.setattr(api, method, raising)

        outcome = await house.run(known=records, on_start=wrap, concurrency=2)
        states = count_states(outcome)
        assert states[State.DONE] == 7
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert len(crashes(house)) == 1
        [left] = outcome.open_rows
        assert (left.id, left.state) == (
            BAD,
            State.SUBMITTING if method == "create" else State.GENERATING,
        )
        assert list(outcome.unfinished) == [bad.key]


async def test_what_hits_every_row_stops_the_run(tmp_path: Path) -> None:
    class Broken(Downloader):
        async def download(self, record: Record, *args: Any, **options: Any) -> Any:
            raise AttributeError("no codec")

    async with EngineHarness(tmp_path) as house:
        house.downloader_type = Broken
        outcome = await house.run(40, concurrency=4)
        assert outcome.stop_reason is StopReason.CRASH
        assert "AttributeError: no codec" in outcome.message
        assert house.sandbox_state.create_requests < 40
        house.downloader_type = Downloader
        assert count_states(await house.run()) == {State.DONE: 40}
        assert house.count_paid() == 40


async def test_a_flapping_error_buys_nothing(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, None, Fault("status-flap", times=1)) as house:
        outcome = await house.run(3)
        assert count_states(outcome) == {State.DONE: 3}
        assert house.sandbox_state.triggered["status-flap"] == 3
        assert house.sandbox_state.create_requests == 3


async def test_a_gateways_own_error_buys_nothing(tmp_path: Path) -> None:
    """It names no generation, and comes for five poll intervals in place of every status."""
    fallback = parse_status({"status": "error", "message": "Service temporarily unavailable"}, {})

    async with EngineHarness(tmp_path) as house:

        def wrap(engine: Engine) -> None:
            api: Api = engine._run.deps.api
            real, ends_at = api.get_status, anyio.current_time() + 0.5

            async def behind_a_gateway(*args: Any, **options: Any) -> Any:
                return fallback if anyio.current_time() < ends_at else await real(*args, **options)

            api.get_status = behind_a_gateway  # type: ignore[method-assign]

        outcome = await house.run(3, on_start=wrap)
        assert count_states(outcome) == {State.DONE: 3}
        assert house.sandbox_state.create_requests == 3


@pytest.mark.parametrize("fault", ["error-then-completed", "completed-late-url"])
async def test_the_truth_may_come_an_answer_later(tmp_path: Path, fault: str) -> None:
    async with EngineHarness(tmp_path, None, Fault(fault)) as house:
        outcome = await house.run(3)
        assert count_states(outcome) == {State.DONE: 3}
        assert house.sandbox_state.triggered[fault] >= 3
        assert house.sandbox_state.create_requests == 3


async def test_what_stays_without_a_url_is_remembered_as_paid(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, None, Fault("completed-without-url")) as house:
        outcome = await house.run(1)
        [row] = outcome.records
        assert row.state is State.FAILED
        assert row.failure is not None
        assert row.failure.code == "no_video"
        assert row.completed_at is not None
        assert row.polls > 3


async def test_a_deadline_shorter_than_a_confirmation_leaves_no_row_to_run_after_run(tmp_path: Path) -> None:
    """An earlier run may have seen it completed, so that its error is confirmed for 18 poll intervals."""
    options = fast_sandbox_options(durations="fixed:60")
    async with EngineHarness(tmp_path, options, Fault("content-refusal", match="number 0.")) as house:
        early = await house.run(1, timeout=0.2)
        assert count_states(early) == {State.GENERATING: 1}
        outcome = await house.run(timeout=1.0)
        assert count_states(outcome) == {State.FAILED: 1}
        assert outcome.unfinished == {}


async def test_an_answer_about_another_generation_is_never_applied(tmp_path: Path) -> None:
    fault = Fault("status-other-id", match="number 1.")
    async with EngineHarness(tmp_path, None, fault) as house:
        outcome = await house.run(3, timeout=1.5)
        assert count_states(outcome) == {State.DONE: 2, State.GENERATING: 1}
        [reason] = outcome.unfinished.values()
        assert "another generation" in reason
        videos = [record.artifact.sha256 for record in outcome.records if record.artifact is not None]
        assert len(set(videos)) == 2
        house.sandbox._injector.faults.clear()
        assert count_states(await house.run()) == {State.DONE: 3}


async def test_a_generation_that_the_vendor_does_not_know_does_not_keep_the_run(tmp_path: Path) -> None:
    fault = Fault("status-not-found", match="number 1.")
    async with EngineHarness(tmp_path, None, fault) as house:
        outcome = await house.run(3, timeout=600.0)
        assert count_states(outcome) == {State.DONE: 2, State.GENERATING: 1}
        [why] = outcome.unfinished.values()
        assert "(404), and the log shows it" in why
        assert "adopt --replace" in why
        assert house.count_paid() == 3
        house.sandbox._injector.faults.clear()
        assert count_states(await house.run()) == {State.DONE: 3}
        assert house.count_paid() == 3


async def test_generations_that_the_vendor_does_not_know_while_it_knows_no_other_wait_for_their_deadline(
    tmp_path: Path,
) -> None:
    async with EngineHarness(tmp_path, None, Fault("status-not-found")) as house:
        outcome = await house.run(2, timeout=3.0)
        assert count_states(outcome) == {State.GENERATING: 2}
        assert outcome.stop_reason is StopReason.DEADLINE
        assert all("adopt --replace" in why for why in outcome.unfinished.values())
        house.sandbox._injector.faults.clear()
        assert count_states(await house.run()) == {State.DONE: 2}
        assert house.count_paid() == 2


async def test_a_firewalls_403_costs_the_row_that_meets_it(tmp_path: Path) -> None:
    fault = Fault("firewall", match="number 2.")
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:20"), fault) as house:
        house.price_of = lambda _: PRICE_USD
        outcome = await house.run(8, concurrency=1)
        assert outcome.stop_reason is None
        assert count_states(outcome) == {State.DONE: 7, State.FAILED: 1}
        [failed] = [record for record in outcome.records if record.state is State.FAILED]
        assert failed.failure is not None
        assert failed.failure.code == "refused"
        assert "403" in failed.failure.message


async def test_slots_of_overdue_generations_are_not_given_away(tmp_path: Path) -> None:
    """What is past its deadline may still be rendering: its slot comes back when it has ended, not before."""
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:60")) as house:
        outcome = await house.run(8, concurrency=2, timeout=0.15)
        assert house.sandbox_state.peak_in_flight == 2
        assert outcome.stop_reason is StopReason.DEADLINE
        assert house.count_paid() <= 4


async def test_rows_in_doubt_keep_their_slots(tmp_path: Path) -> None:
    fault = Fault("hang-accepted", times=2)
    options = fast_sandbox_options(durations="fixed:100", log_rows="accepted", log_lag_s=0.0)
    async with EngineHarness(tmp_path, options, fault) as house:
        outcome = await house.run(6, concurrency=2, request_timeout=0.3, reconcile_after=600)
        assert house.sandbox_state.peak_in_flight <= 2
        assert count_states(outcome) == {State.DONE: 6}
        assert house.count_paid() == 6


async def test_nothing_but_404_stops_the_run_and_fails_no_row(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, None, Fault("not-found")) as house:
        outcome = await house.run(20, concurrency=4)
        assert outcome.stop_reason is StopReason.MODEL
        assert "--base-url" in outcome.message
        assert count_states(outcome) == {State.PENDING: 20}
        assert house.sandbox_state.create_requests < 10
        house.sandbox._injector.faults.clear()
        assert count_states(await house.run()) == {State.DONE: 20}


async def test_a_404_for_some_rows_is_theirs(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, None, Fault("not-found", match="number 1")) as house:
        outcome = await house.run(20, concurrency=1)  # 1 and 10 to 19: the last eleven in succession but one
        assert outcome.stop_reason is StopReason.MODEL
        assert count_states(outcome)[State.FAILED] == 1
        assert count_states(outcome)[State.DONE] == 9


@pytest.mark.parametrize("bad", [1, MIN_ROWS + 1])
async def test_a_saved_row_whose_check_raises_bears_it_alone(
    tmp_path: Path, bad: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path) as house:
        assert count_states(await house.run(8)) == {State.DONE: 8}

        async def raising(store: OutputStore, records: Sequence[Record], **options: Any) -> Any:
            if any(record.position < bad for record in records):
                raise ValueError("odd")
            return await check_saved(store, records, **options)

        monkeypatch.setattr("pipeline.download.downloader_pool.check_saved", raising)
        (tmp_path / "videos" / "row-7.mp4").write_bytes(b"altered")
        await house.add([make_record(9)])
        outcome = await house.run(check=bad == 1)
        if bad == 1:
            assert count_states(outcome) == {State.DONE: 9}
            assert outcome.stop_reason is StopReason.UNFINISHED
            assert len(outcome.unfinished) == 1
        else:
            assert outcome.stop_reason is StopReason.CRASH


async def test_a_row_in_doubt_whose_judgement_raises_leaves_the_others_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(record: Record, *arguments: Any) -> Any:
        if record.id == BAD:
            raise KeyError("odd")
        return judge(record, *arguments)

    monkeypatch.setattr("pipeline.reconcile.reconciler.judge", raising)
    fault = Fault("hang-accepted")
    options = fast_sandbox_options(log_rows="accepted", log_lag_s=0.0)
    async with EngineHarness(tmp_path, options, fault) as house:
        outcome = await house.run(4, request_timeout=0.3, reconcile_after=600)
        assert count_states(outcome) == {State.DONE: 3, State.IN_DOUBT: 1}
        assert len(crashes(house)) == 1
        [reason] = outcome.unfinished.values()
        assert "KeyError" in reason
        monkeypatch.undo()
        assert count_states(await house.run()) == {State.DONE: 4}
        assert house.count_paid() == 4


async def test_a_poll_that_is_told_to_come_back_in_hours_comes_back_in_minutes(tmp_path: Path) -> None:
    fault = Fault("status-throttled", times=1, match="number 1.", value=7200)
    async with EngineHarness(tmp_path, None, fault) as house:
        outcome = await house.run(3, poll_interval=0.02)
        assert count_states(outcome) == {State.DONE: 3}
        assert "nothing is polled for 1 s" in house.observer.messages_text()


async def test_a_create_that_is_told_to_come_back_tomorrow_stops_with_the_reason(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, None, Fault("throttled", value="date:86000")) as house:
        outcome = await house.run(3)
        assert outcome.stop_reason is StopReason.QUOTA
        assert count_states(outcome) == {State.PENDING: 3}
