"""The driver: it replaces who is lost, ends when nothing is left, and says what happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pipeline.cluster import driver
from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.messages import CoordinatorLost
from pipeline.errors import StopReason, UsageError
from pipeline.events import Topic
from pipeline.ledger import Ledger
from pipeline.model import State
from pipeline.plan import mark_interrupted, mark_resubmitted
from tests.crash.batches import wait_until
from tests.integration.driver_harness import DriverHarness, make_driver
from tests.integration.engine_harness import EngineHarness, fast_sandbox_options
from tests.integration.local_cluster import assert_paid_once

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.cluster.messages import StatusSnapshot
    from pipeline.ledger.leases import RevokedLeases
    from pipeline.model import Record


async def test_rows_that_are_resubmitted_hold_no_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path) as house:
        requeues = await add_rows_in_doubt(house, 8)
        run = await make_driver(house, monkeypatch, requeues=requeues, concurrency=2)
        async with run.running():
            pass
        assert run.outcome.stop_reason is None
        assert {record.state for record in run.outcome.records} == {State.DONE}
        assert_paid_once(house)


async def test_a_cluster_that_cannot_be_joined_leaves_doubts_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path) as house:
        requeues = await add_rows_in_doubt(house, 4)
        before = await house.ledger.load()
        run = await make_driver(house, monkeypatch, requeues=requeues)

        def refuse(address: str | None, workers: int) -> None:
            raise UsageError(f"no cluster of {workers} workers at {address}")

        monkeypatch.setattr(run.ray_backend, "start_or_join", refuse)
        with pytest.raises(UsageError, match="no cluster"):
            await run.cluster.run()
        assert await house.ledger.load() == before


async def add_rows_in_doubt(house: EngineHarness, count: int) -> list[tuple[Record, Record]]:
    """Add rows of which the later half is in doubt; return what resubmitting makes of these."""
    requeues = []
    for record in (await house.add(count))[count // 2 :]:
        lost = record.evolve(State.SUBMITTING, correlation_id=f"b.{record.id}", submitted_at=time.time())
        doubt = mark_interrupted(await house.ledger.commit(record, lost))
        requeues.append((await house.ledger.commit(lost, doubt), mark_resubmitted(doubt)))
    return requeues


async def test_last_worker_dies_during_driver_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look was answered before the account knew of the death, and is read after the driver knew of it."""
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100000")) as house:
        await house.add(2)
        run = await make_driver(house, monkeypatch, workers=1, concurrency=2)
        async with run.running():
            await wait_until(lambda: house.sandbox_state.in_flight == 2)
            [way], [process] = run.ray_backend.coordinators, run.ray_backend.processes
            standing, gone = way.coordinator.take_snapshot, way.coordinator.worker_died

            async def told_late() -> StatusSnapshot:
                answer = await standing()
                if not process.killed:
                    process.kill()
                    await anyio.sleep(0.02)
                return answer

            async def known_later(worker: str) -> None:
                await anyio.sleep(0.05)
                await gone(worker)

            monkeypatch.setattr(way.coordinator, "take_snapshot", told_late)
            monkeypatch.setattr(way.coordinator, "worker_died", known_later)
            await wait_until(lambda: len(run.ray_backend.processes) == 2)
            house.finish_renders_now()
        assert len(run.ray_backend.processes) == 2
        assert {record.state for record in run.outcome.records} == {State.DONE}
        assert_paid_once(house)


async def test_rows_that_are_not_selected_stay_pending_under_a_second_coordinator_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100000")) as house:
        records = await house.add(6)
        chosen, left = (frozenset(row.key for row in rows) for rows in (records[:3], records[3:]))
        run = await make_driver(house, monkeypatch, concurrency=2, submittable=chosen)
        async with run.running():
            await wait_until(lambda: house.sandbox_state.in_flight == 2)
            run.ray_backend.coordinators[0].dead = True
            await wait_until(lambda: len(run.ray_backend.coordinators) == 2)
            house.finish_renders_now()
        assert run.outcome.stop_reason is None
        assert not run.outcome.open_rows
        assert {record.key for record in run.outcome.records if record.state is State.PENDING} == left
        assert len(house.sandbox_state.generations) == 3
        assert_paid_once(house)


async def test_shutdown_does_not_wait_for_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account that waits for the database answers nobody."""
    monkeypatch.setattr(driver, "SHUTDOWN_GRACE_S", 0.5)
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:1000")) as house:
        await house.add(4)
        run = await make_driver(house, monkeypatch, concurrency=2)
        async with run.running():
            await wait_until(lambda: house.sandbox_state.in_flight == 2)
            waiting = anyio.Event()

            async def waits() -> None:
                waiting.set()
                await anyio.sleep_forever()

            monkeypatch.setattr(run.ray_backend.coordinators[0].coordinator, "take_snapshot", waits)
            await waiting.wait()
            run.cluster.stop("enough", "stopping")
            run.cluster.cancel()
        assert run.outcome.stop_reason is StopReason.INTERRUPTED


async def test_the_first_reason_to_stop_is_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100", balance_usd=0.9)) as house:
        await house.add(6)
        run = await make_driver(house, monkeypatch, concurrency=4)
        async with run.running():
            await wait_until(lambda: bool(run.messages(Topic.STOPPING)))
            run.cluster.stop("enough", "stopping")
        assert run.outcome.stop_reason is StopReason.CREDITS


async def test_a_stop_that_a_worker_met_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(balance_usd=0.9)) as house:
        await house.add(6)
        run = await make_driver(house, monkeypatch, concurrency=4)
        async with run.running():
            pass
        assert run.outcome.stop_reason is StopReason.CREDITS
        assert run.messages(Topic.STOPPING) == [run.outcome.message]


async def test_workers_that_cannot_speak_to_the_account_are_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver can: to it all is well, and rows wait."""

    async def lost(*_: object) -> None:
        raise CoordinatorLost("no way from there")

    monkeypatch.setattr(Coordinator, "join", lost)
    monkeypatch.setattr(driver, "SNAPSHOT_INTERVAL_S", 0.01)
    async with EngineHarness(tmp_path) as house:
        await house.add(2)
        run = await make_driver(house, monkeypatch, workers=1)
        async with run.running():
            pass
        assert run.outcome.stop_reason is StopReason.UNFINISHED
        assert len(run.ray_backend.processes) == driver.MAX_DEATHS_PER_WORKER + 1


async def test_nothing_is_started_when_there_is_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.run(3)
        run = await make_driver(house, monkeypatch)
        async with run.running():
            pass
        assert run.ray_backend.start_calls == 0
        assert run.outcome.stop_reason is None
        assert not run.outcome.open_rows


async def test_a_cluster_that_places_no_worker_any_more_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "IDLE_CHECK_S", 0.3)
    async with EngineHarness(tmp_path) as house:
        await house.add(3)
        run = await make_driver(house, monkeypatch)
        run.ray_backend.cluster_lost = True
        async with run.running():
            pass
        assert run.outcome.stop_reason is StopReason.UNFINISHED
        assert "lost its head" in run.outcome.message
        assert len(run.outcome.open_rows) == 3


async def test_a_signal_after_the_end_has_nobody_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.add(3)
        run = await make_driver(house, monkeypatch)
        async with run.running():
            pass
        [way] = run.ray_backend.coordinators
        way.call_nowait = None  # type: ignore[method-assign,assignment]  # whoever calls it now fails
        run.cluster.stop("interrupted", "stopping")
        run.cluster.cancel()


async def driver_without_room(house: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> DriverHarness:
    """Three rows, and a cluster without room for any worker."""
    monkeypatch.setattr(driver, "IDLE_CHECK_S", 0.1)
    await house.add(3)
    run = await make_driver(house, monkeypatch)
    run.ray_backend.has_no_room = True
    return run


async def test_a_cluster_without_room_is_waited_for_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path) as house:
        run = await driver_without_room(house, monkeypatch)
        async with run.running():
            await wait_until(lambda: "free CPU" in run.spy.messages_text())
            run.ray_backend.has_no_room = False
            for process in run.ray_backend.processes:
                process.placed.set()
        assert run.outcome.stop_reason is None
        assert {record.state for record in run.outcome.records} == {State.DONE}


async def test_interrupt_does_not_wait_for_cluster_room_when_nothing_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineHarness(tmp_path) as house:
        run = await driver_without_room(house, monkeypatch)
        async with run.running():
            await wait_until(lambda: "free CPU" in run.spy.messages_text())
            run.cluster.stop("enough", "stopping")
        assert run.outcome.stop_reason is StopReason.INTERRUPTED
        assert len(run.outcome.open_rows) == 3


async def test_the_last_worker_dies_and_the_ledger_is_slow_to_free_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look in the meantime must not find that nobody works and nothing is to be lent."""
    monkeypatch.setattr(driver, "SNAPSHOT_INTERVAL_S", 0.05)
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100000")) as house:
        await house.add(1)
        run = await make_driver(house, monkeypatch, workers=1, concurrency=2)
        async with run.running():
            await wait_until(lambda: house.sandbox_state.in_flight == 1)
            [process] = run.ray_backend.processes
            revoke, look = Ledger.revoke, Coordinator.take_snapshot
            begun, goes_on, looks = anyio.Event(), anyio.Event(), 0

            async def slowly(ledger: Ledger, *args: Any) -> RevokedLeases:
                begun.set()
                await goes_on.wait()
                return await revoke(ledger, *args)

            async def counted(account: Coordinator) -> StatusSnapshot:
                nonlocal looks
                standing = await look(account)
                looks += begun.is_set()
                return standing

            monkeypatch.setattr(Ledger, "revoke", slowly)
            monkeypatch.setattr(Coordinator, "take_snapshot", counted)
            process.kill()
            await wait_until(lambda: looks >= 3)
            goes_on.set()
            await wait_until(lambda: len(run.ray_backend.processes) == 2)
            house.finish_renders_now()
        assert len(run.ray_backend.processes) == 2
        assert {record.state for record in run.outcome.records} == {State.DONE}
        assert_paid_once(house)
