"""What a crew must also survive: full buffers, money and doubts that keep each other, late interrupts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from pipeline.cluster import worker as workers
from pipeline.cluster.limits import PollStats
from pipeline.cluster.messages import FinalReport, Heartbeat
from pipeline.cluster.worker import ClusterWorker
from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.sandbox import Fault
from tests.crash.batches import wait_until
from tests.integration.engine_harness import EngineHarness, fast_sandbox_options
from tests.integration.local_cluster import LocalCoordinatorClient, assert_paid_once, make_local_cluster

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_more_videos_than_a_worker_has_room_for_wait_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads are slower than everything else: their queue is bounded, and so is what a worker takes."""
    monkeypatch.setattr(workers, "MAX_ROWS", 1)
    async with EngineHarness(
        tmp_path, fast_sandbox_options(durations="fixed:1", cdn_bytes_per_s=300_000.0)
    ) as house:
        await house.add(30)
        team = await make_local_cluster(house, workers=1, concurrency=4, downloads=1)
        async with team.running(1):
            await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 30}
        assert_paid_once(house)


async def test_interrupt_after_stop_does_not_wait_for_in_doubt_rows(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(log_lag_s=1e6, balance_usd=0.5)) as house:
        records = await house.add(4)
        lost = records[0].evolve(State.SUBMITTING, correlation_id="batch.row-0.1", submitted_at=time.time())
        await house.ledger.commit(records[0], lost)
        team = await make_local_cluster(house, concurrency=4, workers=1)
        async with team.running(1):
            await team.wait_until(lambda: team.snapshots[-1].stop is not None)
            await team.coordinator.interrupt("enough")
            standing = await team.wait_until_done()
        assert standing.stop is not None
        assert standing.stop[0] is StopReason.CREDITS


async def test_in_doubt_rows_and_budget_do_not_deadlock(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(log_lag_s=1e6)) as house:
        records = await house.add(8)
        lost = records[0].evolve(
            State.SUBMITTING, correlation_id="batch.row-0.1", submitted_at=time.time(), reserved_usd=0.4
        )
        await house.ledger.commit(records[0], lost)
        team = await make_local_cluster(house, concurrency=4, price=0.4, max_cost=1.6, reconcile_wait=0.5)
        async with team.running(2):
            standing = await team.wait_until_done()
        assert standing.budget_exhausted is not None
        assert await team.count_states() == {State.DONE: 3, State.IN_DOUBT: 1, State.PENDING: 4}


async def test_money_set_aside_for_a_dead_workers_rows_buys_them_all(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(durations="fixed:20", concurrency_limit=1)
    ) as house:
        await house.add(12)
        team = await make_local_cluster(house, workers=2, concurrency=16, price=0.4, max_cost=3.2)
        async with team.running(2):
            await team.wait_until(lambda: team.snapshots[-1].budget_exhausted is not None)
            await team.kill_worker(team.workers[0])
            standing = await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 8, State.PENDING: 4}, standing


async def test_in_doubt_row_keeps_its_slot_while_others_submit(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:50", log_lag_s=1e6)) as house:
        records = await house.add(5)
        lost = records[0].evolve(State.SUBMITTING, correlation_id="batch.row-0.1", submitted_at=time.time())
        await house.ledger.commit(records[0], lost)
        team = await make_local_cluster(house, concurrency=2, reconcile_wait=0.1, poll_interval=0.6)
        flying = (State.SUBMITTING, State.IN_DOUBT, State.GENERATING)
        peak = 0
        async with team.running(2):
            standing = await team.take_snapshot()
            while standing.rows_available or standing.live_workers:
                states = await team.count_states()
                peak = max(peak, sum(states.get(state, 0) for state in flying))
                standing = await team.take_snapshot()
        assert peak == 2
        assert await team.count_states() == {State.DONE: 4, State.IN_DOUBT: 1}


async def test_rows_leased_by_a_late_reply_keep_their_slots(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        for record in (await house.add(6))[:2]:
            sent = await house.ledger.commit(record, record.evolve(State.SUBMITTING))
            await house.ledger.commit(sent, sent.evolve(State.GENERATING, generation_id=record.id))
        account = (await make_local_cluster(house, concurrency=2)).coordinator
        await account.open()
        for worker in ("early", "late"):
            await account.join(worker)
        lent = await account.heartbeat(Heartbeat("early", 0, PollStats(), rows_wanted=2))
        assert [row.record.state for row, _ in lent.rows] == [State.GENERATING] * 2
        parting = asyncio.ensure_future(account.leave(FinalReport(Heartbeat("early", 0, PollStats()), {})))
        await asyncio.sleep(0)
        for _ in range(2):
            assert (await account.heartbeat(Heartbeat("late", 0, PollStats(), permits_wanted=2))).permits == 0
            await parting
        await account.close()


async def test_a_worker_that_cannot_reach_the_vendor_keeps_no_permits(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.add(100)
        team = await make_local_cluster(house, workers=1, concurrency=16, poll_interval=5.0)
        line = LocalCoordinatorClient(team.coordinator)
        lost = ClusterWorker("lost", replace(team.job, base_url="http://127.0.0.1:9"), line)
        async with team.running(0), anyio.create_task_group() as tasks:
            tasks.start_soon(lost.run)
            await team.coordinator.join("other")
            with anyio.fail_after(600):
                await wait_until(lambda: sum(reply.permits for reply in line.replies) >= 4)
                granted = 0
                while granted < 4:
                    report = Heartbeat("other", 0, PollStats(), permits_wanted=4 - granted)
                    granted += (await team.coordinator.heartbeat(report)).permits
                    await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
        assert not house.sandbox_state.generations


async def test_workers_suspended_together_are_not_declared_dead(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100")) as house:
        await house.add(8)
        team = await make_local_cluster(house, lease_s=2.0)
        async with team.running(2):
            await team.wait_until(lambda: house.sandbox_state.in_flight == 4)
            time.sleep(2.5)  # noqa: ASYNC251 - the whole loop stands still, as a stopped process does
            await team.wait_until_done()
        assert not team.snapshots[-1].expired_workers
        assert await team.count_states() == {State.DONE: 8}
        assert_paid_once(house)


async def test_no_create_leaves_after_the_machine_has_slept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock does not count the time of a suspend; the account's has gone on."""
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:1000")) as house:
        await house.add(4)
        team = await make_local_cluster(house, lease_s=10.0)
        async with team.running(1):
            [hand] = team.workers
            await team.wait_until(lambda: house.sandbox_state.in_flight == 4)
            assert hand.worker.may_create()
            hand.client.block()
            wall = time.time
            monkeypatch.setattr(time, "time", lambda: wall() + 3600.0)
            assert not hand.worker.may_create()
            hand.client.unblock()
            await team.wait_until(hand.worker.may_create)


async def test_in_doubt_rows_release_slots_after_longest_render(tmp_path: Path) -> None:
    """Two creates are lost before they were accepted: their proof takes a minute, the others go on before."""
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:20")) as house:
        await house.add(8)
        house.sandbox.add_fault(Fault("gateway-lost", total=2))
        team = await make_local_cluster(house, concurrency=2, reconcile_after=60.0, timeout=1.0)
        async with team.running(2):
            await team.wait_until(lambda: len(house.sandbox_state.generations) == 6)
        assert house.sandbox_state.peak_in_flight <= 2
        assert_paid_once(house)


async def test_pending_rows_leave_room_for_those_that_keep_the_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old doubts fill a worker's hands, and are submitted again; then whoever has all the slots dies."""
    monkeypatch.setattr(workers, "MAX_ROWS", 1)
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:300")) as house:
        for record in (await house.add(6))[:4]:
            long_ago = time.time() - 1000.0
            facts = {"correlation_id": f"b.{record.id}", "submitted_at": long_ago, **house.sent_facts()}
            lost = record.evolve(State.SUBMITTING, **facts)
            await house.ledger.commit(record, lost)
        team = await make_local_cluster(house, concurrency=2, reconcile_after=1.0)
        async with team.running(1):
            await team.wait_until(
                lambda: sum(len(reply.rows) for reply in team.workers[0].client.replies) == 4
            )
            second = team.start_worker()
            await team.wait_until(lambda: house.sandbox_state.in_flight == 2)
            await team.wait_until(
                lambda: sum(row.version == 3 for look in team.snapshots for row in look.changed_records) == 4
            )
            await team.kill_worker(second)
            await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 6}
        assert_paid_once(house)


async def test_money_of_rows_that_failed_unheard_buys_others(tmp_path: Path) -> None:
    """A worker dies after a row has failed, before it could say so."""
    async with EngineHarness(
        tmp_path, fast_sandbox_options(durations="fixed:30"), Fault("error", match="number 0.")
    ) as house:
        await house.add(3)
        team = await make_local_cluster(house, concurrency=1, price=0.4, max_cost=0.8, generation_retries=0)
        async with team.running(1):
            [first] = team.workers
            await team.wait_until(lambda: house.sandbox_state.in_flight == 1)
            first.client.block()
            with anyio.fail_after(600):
                while State.FAILED not in await team.count_states():  # noqa: ASYNC110 - it tells nobody
                    await anyio.sleep(0.02)
            await team.kill_worker(first)
            team.start_worker()
            await team.wait_until_done()
        assert await team.count_states() == {State.FAILED: 1, State.DONE: 2}
        assert_paid_once(house)
