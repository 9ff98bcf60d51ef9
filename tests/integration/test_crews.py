"""Workers that share one account: they end, stall, meet a limit, and nothing is paid twice or lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest

from pipeline.errors import StopReason
from pipeline.model import State
from pipeline.sandbox import Fault
from tests.integration.crews import crew, paid_once, spent
from tests.integration.engines import House, row, vendor

if TYPE_CHECKING:
    from pathlib import Path


async def test_all_is_done_once_within_the_slots(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:40")) as house:
        await house.add(30)
        team = await crew(house, workers=3, concurrency=5)
        async with team.at_work(3):
            standing = await team.until_done()
        assert await team.states() == {State.DONE: 30}
        assert house.book.peak_in_flight == 5
        assert standing.stop is None
        moved = {record.key: record.state for look in team.seen for record in look.moved}
        assert list(moved.values()) == [State.DONE] * 30
        assert all(any(reply.rows for reply in hand.line.replies) for hand in team.hands)
        paid_once(house)


async def test_what_a_dead_worker_had_is_taken_over(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:100")) as house:
        await house.add(12)
        team = await crew(house, concurrency=6)
        async with team.at_work(2):
            await team.until(lambda: house.book.in_flight == 6)
            await team.dismiss(team.hands[0])
            assert (await team.look()).waiting
            team.hire()
            await team.until_done()
        assert await team.states() == {State.DONE: 12}
        assert house.book.peak_in_flight == 6
        paid_once(house)


async def test_a_dead_workers_slots_come_back_to_those_who_want_nothing_more(tmp_path: Path) -> None:
    """The dead one had every slot; who is left has all the rows it wants to submit, and waits for slots."""
    async with House(tmp_path, vendor(durations="fixed:100000")) as house:
        await house.add(8)
        team = await crew(house, concurrency=2)
        async with team.at_work(1):
            await team.until(lambda: house.book.in_flight == 2)
            second = team.hire()
            await team.until(lambda: sum(len(reply.rows) for reply in second.line.replies) >= 2)
            await team.dismiss(team.hands[0])
            house.hasten()
            await team.until_done()
        assert await team.states() == {State.DONE: 8}
        assert house.book.peak_in_flight == 2
        paid_once(house)


async def test_a_stalled_worker_loses_its_rows_and_can_do_nothing_with_them(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:50")) as house:
        await house.add(12)
        team = await crew(house, lease_s=0.6, concurrency=4)
        async with team.at_work(2):
            stalled = team.hands[0]
            await team.until(lambda: any(reply.rows for reply in stalled.line.replies))
            stalled.line.block()
            await team.until(lambda: stalled.name in team.seen[-1].lapsed)
            assert not stalled.worker.may_create()
            await team.until_done()
            assert await team.states() == {State.DONE: 12}
            stalled.line.unblock()
            with anyio.fail_after(30):
                await stalled.ended.wait()
        assert house.book.peak_in_flight == 4
        paid_once(house)


async def test_another_account_goes_on_from_the_ledger(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:50")) as house:
        await house.add(16)
        first = await crew(house, concurrency=4)
        async with first.at_work(2):
            await first.until(lambda: len(house.book.generations) >= 6)
            for hand in first.hands:
                hand.line.cut = True
            with anyio.fail_after(30):
                for hand in first.hands:
                    await hand.ended.wait()
                    assert not hand.worker.may_create()
            second = await crew(house, concurrency=4)
            async with second.at_work(2):
                await second.until_done()
            assert not (await first.look()).waiting or (await first.account.join("late")) is not None
        assert await second.states() == {State.DONE: 16}
        assert house.book.peak_in_flight == 4
        paid_once(house)


async def test_an_account_of_an_earlier_epoch_lends_nothing(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:1000")) as house:
        await house.add(8)
        first = await crew(house, concurrency=2)
        async with first.at_work(1):
            await first.until(lambda: house.book.in_flight == 2)
            await house.ledger.begin_epoch()
            first.hire()
            await first.until(lambda: first.seen[-1].stop is not None)
            stop = first.seen[-1].stop
        assert stop is not None
        assert stop[0] is StopReason.LEDGER
        assert "another driver" in stop[1]
        assert len(house.book.generations) == 2


async def test_money_that_comes_back_is_spent_in_the_same_run(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await house.add([row(index, "refuse me" if index < 4 else "") for index in range(12)])
        house.box.add_fault(Fault("error", match="refuse me"))
        team = await crew(house, concurrency=4, price=0.4, max_cost=2.0, generation_retries=0)
        async with team.at_work(2):
            standing = await team.until_done()
        assert await team.states() == {State.DONE: 5, State.FAILED: 4, State.PENDING: 3}
        assert standing.short is not None
        assert standing.short[0] is StopReason.BUDGET
        records = await house.ledger.load()
        assert spent([record for record in records if record.state is not State.FAILED]) == pytest.approx(2.0)
        done = [record.position for record in records if record.state is State.DONE]
        assert done == [4, 5, 6, 7, 8]
        paid_once(house)


async def test_a_row_without_a_price_is_left_and_told(tmp_path: Path) -> None:
    async with House(tmp_path) as house:
        await house.add(3)
        team = await crew(house, max_cost=2.0)
        async with team.at_work(2):
            standing = await team.until_done()
        assert await team.states() == {State.PENDING: 3}
        assert sum(len(look.left) for look in team.seen) == 3
        assert not standing.left
        assert not house.book.generations


async def test_what_is_paid_is_taken_over_even_when_all_have_stopped(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:100000", balance_usd=1.7)) as house:
        await house.add(10)
        team = await crew(house, concurrency=8)
        async with team.at_work(2):
            await team.until(lambda: team.seen[-1].stop is not None)
            await team.dismiss(team.hands[0])
            await team.dismiss(team.hands[1])
            assert (await team.look()).waiting
            house.hasten()
            team.hire()
            standing = await team.until_done()
        assert standing.stop is not None
        assert standing.stop[0] is StopReason.CREDITS
        assert await team.states() == {State.DONE: 4, State.PENDING: 6}
        paid_once(house)


async def test_an_interrupted_crew_finishes_what_is_paid(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:50")) as house:
        await house.add(20)
        team = await crew(house, concurrency=4)
        async with team.at_work(2):
            await team.until(lambda: len(house.book.generations) >= 4)
            await team.account.interrupt("enough")
            standing = await team.until_done()
        made = len(house.book.generations)
        assert 4 <= made < 20
        assert await team.states() == {State.DONE: made, State.PENDING: 20 - made}
        assert standing.stop == (StopReason.INTERRUPTED, "enough")


async def test_a_crew_that_is_told_to_stop_at_once_does(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:10000")) as house:
        await house.add(6)
        team = await crew(house, concurrency=3)
        async with team.at_work(2):
            await team.until(lambda: house.book.in_flight == 3)
            await team.account.interrupt("at once", abandon=True)
            with anyio.fail_after(30):
                for hand in team.hands:
                    await hand.ended.wait()
        assert await team.states() == {State.GENERATING: 3, State.PENDING: 3}


async def test_a_create_whose_worker_died_is_in_doubt_and_found(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:50")) as house:
        records = await house.add(4)
        house.box.add_fault(Fault("gateway-accepted", total=1))
        lost = records[0].evolve(State.SUBMITTING, correlation_id="batch.row-0.1", submitted_at=time.time())
        await house.ledger.commit(records[0], lost)
        team = await crew(house, concurrency=2, reconcile_after=1.0)
        async with team.at_work(2):
            await team.until_done()
        assert await team.states() == {State.DONE: 4}
        assert house.book.peak_in_flight <= 2
        paid_once(house)


async def test_the_limits_of_the_account_are_found_once_for_all(tmp_path: Path) -> None:
    limited = vendor(speed=1.0, durations="fixed:0.6", concurrency_limit=4, rate_limit=20)
    async with House(tmp_path, limited) as house:
        await house.add(24)
        team = await crew(house, workers=3, concurrency=12, poll_interval=0.2)
        async with team.at_work(3):
            await team.until_done()
        assert await team.states() == {State.DONE: 24}
        assert house.book.peak_in_flight == 4
        for hand in team.hands:
            assert max(reply.share.gap_s for reply in hand.line.replies) > 1 / 20
        paid_once(house)


async def test_learned_durations_are_told_to_the_others(tmp_path: Path) -> None:
    async with House(tmp_path, vendor(durations="fixed:30")) as house:
        await house.add(10)
        team = await crew(house, concurrency=4)
        async with team.at_work(2):
            await team.until_done()
        heard = [len(reply.lessons) for hand in team.hands for reply in hand.line.replies]
        assert sum(heard) > 0
        assert await team.account.learned()
