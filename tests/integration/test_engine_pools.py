"""Slots: how many are used, what they wait for, and what they never wait for."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pipeline.cluster.limits import RateShare, RemoteRateLimit
from pipeline.download.downloader import Downloader
from pipeline.errors import StopReason
from pipeline.model import Record, State
from pipeline.poll.schedule import PollSchedule
from pipeline.sandbox import Fault
from tests.crash.batches import wait_until
from tests.integration.engine_harness import EngineHarness, count_states, fast_sandbox_options, make_record

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engine import Engine


async def test_every_slot_is_used_and_none_more(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(id_style="hostile", durations="fixed:40")
    ) as house:
        outcome = await house.run(24, concurrency=6, downloads=3)
        assert count_states(outcome) == {State.DONE: 24}
        assert (outcome.stop_reason, outcome.open_rows, outcome.unfinished) == (None, (), {})
        assert house.sandbox_state.peak_in_flight == 6
        assert house.sandbox_state.peak_downloads <= 3
        assert house.sandbox_state.create_requests == 24
        assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == sorted(
            f"row-{index}.mp4" for index in range(24)
        )


async def test_a_run_over_a_finished_batch_asks_nobody_anything(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.run(3)
        before = (dict(house.sandbox_state.requests), dict(house.sandbox_state.cdn_requests))
        outcome = await house.run()
        assert count_states(outcome) == {State.DONE: 3}
        assert (dict(house.sandbox_state.requests), dict(house.sandbox_state.cdn_requests)) == before


async def test_a_slow_download_does_not_keep_a_slot_from_being_refilled(tmp_path: Path) -> None:
    """No download ends before every row is rendered: with shared slots this would never end."""
    rendered = anyio.Event()

    class Slow(Downloader):
        async def download(self, *args: Any, **options: Any) -> Any:
            await rendered.wait()
            return await super().download(*args, **options)

    def note(after: Record) -> None:
        if house.observer.count_entered(State.READY) == 8:
            rendered.set()

    async with EngineHarness(tmp_path) as house:
        house.downloader_type, house.observer.transition_callback = Slow, note
        outcome = await house.run(8, concurrency=2, downloads=1)
        assert count_states(outcome) == {State.DONE: 8}
        assert house.sandbox_state.peak_in_flight == 2


async def test_hanging_poll_does_not_block_others(tmp_path: Path) -> None:
    faults = (Fault("status-hang", match="number 0.", times=1),)
    async with EngineHarness(tmp_path, fast_sandbox_options(), *faults) as house:

        def note(_: Record) -> None:
            if house.observer.count_entered(State.DONE) == 5:
                house.sandbox._handlers.shutdown.set()  # ends the silence

        house.observer.transition_callback = note
        outcome = await house.run(6, concurrency=3, request_timeout=600.0)
        assert count_states(outcome) == {State.DONE: 6}
        assert house.observer.transitions[-1][1].id == "row-0"


@pytest.mark.parametrize("limit", [1, 3])
async def test_an_account_that_allows_less_is_neither_hammered_nor_blamed_on_rows(
    tmp_path: Path, limit: int
) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(concurrency_limit=limit, durations="fixed:25")
    ) as house:
        outcome = await house.run(9, concurrency=9)
        assert count_states(outcome) == {State.DONE: 9}
        assert house.sandbox_state.peak_in_flight == limit
        assert 0 < house.sandbox_state.rejected[429] < 60
        assert {record.attempts for record in outcome.records} == {1}


async def test_a_wait_that_the_vendor_asks_for_is_kept(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(), Fault("throttled", nth=1, value=1)) as house:
        outcome = await house.run(2, concurrency=1)
        assert count_states(outcome) == {State.DONE: 2}
        first, second = sorted(made.created_at for made in house.sandbox_state.generations)
        sent = min(after.submitted_at or 0.0 for _, after in house.observer.transitions)
        assert first - sent >= 0.9
        assert second > first


async def test_new_generation_is_polled_on_schedule(tmp_path: Path) -> None:
    ages: list[float] = []

    class Seen(PollSchedule):
        def add(self, key: str, kind: str, *, now: float, age_s: float = 0.0) -> None:
            ages.append(age_s)
            super().add(key, kind, now=now, age_s=age_s)

    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:0")) as house:
        house.schedule_type = Seen
        await house.run(3)
        assert ages == [0.0, 0.0, 0.0]


async def test_statuses_that_say_nothing_cost_nothing_but_time(tmp_path: Path) -> None:
    names = (
        "status-error", "status-gateway", "status-reset", "status-cut", "status-garbage", "status-html",
        "status-empty", "status-unknown", "status-not-found", "status-throttled",
    )  # fmt: skip
    faults = [Fault(name, match=f"number {index}.", times=2) for index, name in enumerate(names)]
    always = [
        Fault("slow", match="number 7.", value=20.0),
        Fault("status-samples"),
        Fault("status-other-names", share=0.5),
    ]
    async with EngineHarness(tmp_path, fast_sandbox_options(), *faults, *always) as house:
        outcome = await house.run(len(names), concurrency=5)
        assert count_states(outcome) == {State.DONE: len(names)}
        assert house.sandbox_state.create_requests == len(names)
        assert all(house.sandbox_state.triggered[name] for name in names)
        assert house.observer.messages_text().count("reticulating") == 1


async def test_a_row_that_is_always_refused_for_the_moment_is_given_up_alone(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("server-error", match="number 1.")
    ) as house:
        outcome = await house.run(60, concurrency=2)
        assert count_states(outcome) == {State.DONE: 59, State.FAILED: 1}
        [failed] = [record for record in outcome.records if record.state is State.FAILED]
        assert failed.failure is not None
        assert (failed.id, failed.failure.code) == ("row-1", "not_accepted")
        assert outcome.stop_reason is None


async def test_a_row_that_is_given_up_while_somebody_else_takes_it_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("server-error", match="number 1.")
    ) as house:
        commit = house.ledger.commit

        async def too_late(before: Record, after: Record) -> Record:
            if after.state is State.FAILED:
                await commit(before, before.evolve(attempts=before.attempts))
            return await commit(before, after)

        monkeypatch.setattr(house.ledger, "commit", too_late)
        outcome = await house.run(60, concurrency=2, check=False)
        assert count_states(outcome) == {State.DONE: 59, State.PENDING: 1}
        assert list(outcome.unfinished.values()) == ["another process has it"]


async def test_an_outage_of_the_vendor_is_waited_out(tmp_path: Path) -> None:
    faults = [Fault("unavailable", total=6), Fault("server-error", total=6)]
    async with EngineHarness(tmp_path, fast_sandbox_options(), *faults) as house:
        outcome = await house.run(4)
        assert count_states(outcome) == {State.DONE: 4}
        assert house.sandbox_state.triggered["unavailable"] == 6


async def test_a_row_that_is_refused_for_good_costs_one_row(tmp_path: Path) -> None:
    names = ("bad-request", "unprocessable", "not-found")
    faults = [Fault(name, match=f"number {index}.") for index, name in enumerate(names)]
    async with EngineHarness(tmp_path, fast_sandbox_options(), *faults) as house:
        outcome = await house.run(6, concurrency=2)
        assert count_states(outcome) == {State.DONE: 3, State.FAILED: 3}
        for record in outcome.records[:3]:
            assert record.failure is not None
            assert record.failure.message.startswith("HTTP 4")
            assert record.attempts == 1
        assert house.sandbox_state.create_requests == 6
        assert outcome.stop_reason is None


async def test_what_another_process_took_is_left_to_it(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        records = await house.add(3)
        taken = records[1]
        await house.ledger.commit(taken, taken.evolve(State.SUBMITTING))
        outcome = await house.run(known=records)
        assert count_states(outcome) == {State.DONE: 2, State.SUBMITTING: 1}
        assert "another process" in outcome.unfinished[taken.key]
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert house.sandbox_state.create_requests == 2


async def test_nothing_to_do_is_done_at_once(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        outcome = await house.run(0)
        assert (outcome.records, outcome.stop_reason) == ((), None)


async def test_a_removed_row_that_was_paid_for_is_fetched_and_one_that_was_not_is_not_sent(
    tmp_path: Path,
) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.run(3, concurrency=1, on_start=lambda engine: _stop_at(house, engine, State.GENERATING))
        records = await house.ledger.load()
        await house.ledger.set_positions({record.key: -1 for record in records})
        for path in (tmp_path / "videos").iterdir():
            path.unlink()
        outcome = await house.run()
        assert count_states(outcome) == {State.DONE: 1, State.PENDING: 2}
        assert (house.sandbox_state.create_requests, outcome.stop_reason, outcome.open_rows) == (1, None, ())


def _stop_at(house: EngineHarness, engine: Any, state: State) -> None:
    def note(after: Record) -> None:
        if after.state is state:
            engine.stop("enough", "enough")

    house.observer.transition_callback = note


async def test_a_row_may_say_all_in_its_first_answer(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:0")) as house:
        outcome = await house.run([make_record(0), make_record(1)])
        assert count_states(outcome) == {State.DONE: 2}


async def test_changed_rate_limit_applies_to_the_next_call(tmp_path: Path) -> None:
    """A worker's share grows with what it has to look at: it must not sleep out a gap of its leaner days."""

    class Watched(RemoteRateLimit):
        told_to_wait = 0.0

        def acquire_delay_s(self, now: float) -> float:
            self.told_to_wait = super().acquire_delay_s(now)
            return self.told_to_wait

    pace = Watched(interval_s=0.1)
    pace.set_share(time.monotonic(), RateShare(gap_s=60.0))
    assert pace.acquire_delay_s(time.monotonic()) == 0.0
    async with EngineHarness(tmp_path) as house, anyio.create_task_group() as tasks:

        async def lend() -> None:
            await wait_until(lambda: pace.told_to_wait > 1.0)
            pace.set_share(time.monotonic(), RateShare())

        def begin(engine: Engine) -> None:
            engine._run.deps = replace(engine._run.deps, rate_limit=pace)
            tasks.start_soon(lend)

        outcome = await house.run(1, on_start=begin)
        assert count_states(outcome) == {State.DONE: 1}
