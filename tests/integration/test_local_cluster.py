"""Workers that share one account: they end, stall, meet a limit, and nothing is paid twice or lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest

from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.sandbox import Fault
from tests.integration.engine_harness import EngineHarness, fast_sandbox_options, make_record
from tests.integration.local_cluster import assert_paid_once, make_local_cluster, total_usd

if TYPE_CHECKING:
    from pathlib import Path


async def test_all_is_done_once_within_the_slots(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100000")) as house:
        await house.add(30)
        team = await make_local_cluster(house, workers=3, concurrency=5)
        async with team.running(3):
            await team.wait_until(lambda: house.sandbox_state.in_flight == 5)
            house.finish_renders_now()
            standing = await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 30}
        assert house.sandbox_state.peak_in_flight == 5
        assert standing.stop is None
        moved = {record.key: record.state for look in team.snapshots for record in look.changed_records}
        assert list(moved.values()) == [State.DONE] * 30
        assert all(any(reply.rows for reply in hand.client.replies) for hand in team.workers)
        # One that only a worker's clock dates could not be proven absent from the vendor's log.
        assert all(entry.vendor_sent_at for entry in await house.ledger.submissions())
        assert_paid_once(house)


async def test_what_a_dead_worker_had_is_taken_over(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100")) as house:
        await house.add(12)
        team = await make_local_cluster(house, concurrency=6)
        async with team.running(2):
            await team.wait_until(lambda: house.sandbox_state.in_flight == 6)
            await team.kill_worker(team.workers[0])
            assert (await team.take_snapshot()).rows_available
            team.start_worker()
            await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 12}
        assert house.sandbox_state.peak_in_flight == 6
        assert_paid_once(house)


async def test_a_dead_workers_slots_come_back_to_those_who_want_nothing_more(tmp_path: Path) -> None:
    """The dead one had every slot; who is left has all the rows it wants to submit, and waits for slots."""
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:100000")) as house:
        await house.add(8)
        team = await make_local_cluster(house, concurrency=2)
        async with team.running(1):
            await team.wait_until(lambda: house.sandbox_state.in_flight == 2)
            second = team.start_worker()
            await team.wait_until(lambda: sum(len(reply.rows) for reply in second.client.replies) >= 2)
            await team.kill_worker(team.workers[0])
            house.finish_renders_now()
            await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 8}
        assert house.sandbox_state.peak_in_flight == 2
        assert_paid_once(house)


async def test_a_stalled_worker_loses_its_rows_and_can_do_nothing_with_them(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:50")) as house:
        await house.add(12)
        team = await make_local_cluster(house, lease_s=0.6, concurrency=4)
        async with team.running(2):
            stalled = team.workers[0]
            await team.wait_until(lambda: any(reply.rows for reply in stalled.client.replies))
            stalled.client.block()
            await team.wait_until(lambda: stalled.name in team.snapshots[-1].expired_workers)
            assert not stalled.worker.may_create()
            await team.wait_until_done()
            assert await team.count_states() == {State.DONE: 12}
            stalled.client.unblock()
            with anyio.fail_after(600):
                await stalled.ended.wait()
        assert house.sandbox_state.peak_in_flight == 4
        assert_paid_once(house)


async def test_another_account_goes_on_from_the_ledger(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:50")) as house:
        await house.add(16)
        first = await make_local_cluster(house, concurrency=4)
        async with first.running(2):
            await first.wait_until(lambda: len(house.sandbox_state.generations) >= 6)
            for hand in first.workers:
                hand.client.disconnected = True
            with anyio.fail_after(600):
                for hand in first.workers:
                    await hand.ended.wait()
                    assert not hand.worker.may_create()
            second = await make_local_cluster(house, concurrency=4)
            async with second.running(2):
                await second.wait_until_done()
            assert (
                not (await first.take_snapshot()).rows_available
                or (await first.coordinator.join("late")) is not None
            )
        assert await second.count_states() == {State.DONE: 16}
        assert house.sandbox_state.peak_in_flight == 4
        assert_paid_once(house)


async def test_coordinator_of_earlier_epoch_leases_nothing(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:1000")) as house:
        await house.add(8)
        first = await make_local_cluster(house, concurrency=2)
        async with first.running(1):
            await first.wait_until(lambda: house.sandbox_state.in_flight == 2)
            await house.ledger.begin_epoch()
            first.start_worker()
            await first.wait_until(lambda: first.snapshots[-1].stop is not None)
            stop = first.snapshots[-1].stop
        assert stop is not None
        assert stop[0] is StopReason.LEDGER
        assert "another driver" in stop[1]
        assert len(house.sandbox_state.generations) == 2


async def test_money_that_comes_back_is_spent_in_the_same_run(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.add([make_record(index, "refuse me" if index < 4 else "") for index in range(12)])
        house.sandbox.add_fault(Fault("error", match="refuse me"))
        team = await make_local_cluster(house, concurrency=4, price=0.4, max_cost=2.0, generation_retries=0)
        async with team.running(2):
            standing = await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 5, State.FAILED: 4, State.PENDING: 3}
        assert standing.budget_exhausted is not None
        assert standing.budget_exhausted[0] is StopReason.BUDGET
        records = await house.ledger.load()
        assert total_usd([record for record in records if record.state is not State.FAILED]) == pytest.approx(
            2.0
        )
        done = [record.position for record in records if record.state is State.DONE]
        assert done == [4, 5, 6, 7, 8]
        assert_paid_once(house)


async def test_a_row_without_a_price_is_left_and_told(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.add(3)
        team = await make_local_cluster(house, max_cost=2.0)
        async with team.running(2):
            await team.wait_until_done()
        assert await team.count_states() == {State.PENDING: 3}
        told = [key for snapshot in team.snapshots for key in snapshot.unfinished]
        assert len(told) == len(set(told)) == 3  # each row once, whichever answer carries it
        assert not house.sandbox_state.generations


async def test_what_is_paid_is_taken_over_even_when_all_have_stopped(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(durations="fixed:100000", balance_usd=1.7)
    ) as house:
        await house.add(10)
        team = await make_local_cluster(house, concurrency=8)
        async with team.running(2):
            await team.wait_until(lambda: team.snapshots[-1].stop is not None)
            await team.kill_worker(team.workers[0])
            await team.kill_worker(team.workers[1])
            assert (await team.take_snapshot()).rows_available
            house.finish_renders_now()
            team.start_worker()
            standing = await team.wait_until_done()
        assert standing.stop is not None
        assert standing.stop[0] is StopReason.CREDITS
        assert await team.count_states() == {State.DONE: 4, State.PENDING: 6}
        assert_paid_once(house)


async def test_interrupted_workers_finish_what_is_paid(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:50")) as house:
        await house.add(20)
        team = await make_local_cluster(house, concurrency=4)
        async with team.running(2):
            await team.wait_until(lambda: len(house.sandbox_state.generations) >= 4)
            await team.coordinator.interrupt("enough")
            standing = await team.wait_until_done()
        made = len(house.sandbox_state.generations)
        assert 4 <= made < 20
        assert await team.count_states() == {State.DONE: made, State.PENDING: 20 - made}
        assert standing.stop == (StopReason.INTERRUPTED, "enough")


async def test_immediate_stop_ends_all_workers(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:10000")) as house:
        await house.add(6)
        team = await make_local_cluster(house, concurrency=3)
        async with team.running(2):
            await team.wait_until(lambda: house.sandbox_state.in_flight == 3)
            await team.coordinator.interrupt("at once", cancel=True)
            with anyio.fail_after(600):
                for hand in team.workers:
                    await hand.ended.wait()
        assert await team.count_states() == {State.GENERATING: 3, State.PENDING: 3}


async def test_a_create_whose_worker_died_is_in_doubt_and_found(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:50")) as house:
        records = await house.add(4)
        house.sandbox.add_fault(Fault("gateway-accepted", total=1))
        facts = {"correlation_id": "batch.row-0.1", "submitted_at": time.time(), **house.sent_facts()}
        lost = records[0].evolve(State.SUBMITTING, **facts)
        await house.ledger.commit(records[0], lost)
        team = await make_local_cluster(house, concurrency=2, reconcile_after=1.0)
        async with team.running(2):
            await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 4}
        assert house.sandbox_state.peak_in_flight <= 2
        assert_paid_once(house)


async def test_the_limits_of_the_account_are_found_once_for_all(tmp_path: Path) -> None:
    """A refused poll of one worker slows all of them; how far is the unit tests' table."""
    limited = fast_sandbox_options(durations="fixed:100000", concurrency_limit=4)
    async with EngineHarness(tmp_path, limited, Fault("status-throttled", times=1)) as house:
        await house.add(24)
        team = await make_local_cluster(house, workers=3, concurrency=12)

        def met_and_told() -> bool:
            told = [[reply.rate_share.gap_s for reply in hand.client.replies] for hand in team.workers]
            return house.sandbox_state.peak_in_flight == 4 and all(any(gaps) for gaps in told)

        async with team.running(3):
            await team.wait_until(met_and_told)
            house.finish_renders_now()
            await team.wait_until_done()
        assert await team.count_states() == {State.DONE: 24}
        assert house.sandbox_state.peak_in_flight == 4
        assert_paid_once(house)


async def test_learned_durations_are_shared(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(durations="fixed:30")) as house:
        await house.add(10)
        team = await make_local_cluster(house, concurrency=4)
        async with team.running(2):
            await team.wait_until_done()
        heard = [len(reply.observations) for hand in team.workers for reply in hand.client.replies]
        assert sum(heard) > 0
        assert await team.coordinator.learned_durations()
