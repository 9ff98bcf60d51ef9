"""What `--select` and `--limit` leave out stays left out on a cluster, also when it was under way before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.cluster.limits import PollStats
from pipeline.cluster.messages import Heartbeat
from pipeline.model import State
from pipeline.sandbox import Fault
from tests.crash.batches import wait_until
from tests.integration.driver_harness import make_driver
from tests.integration.engine_harness import PRICE_USD, EngineHarness, fast_sandbox_options, make_record
from tests.integration.local_cluster import assert_paid_once, make_local_cluster

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.model import Record

FATES = {"fails at the vendor": Fault("error", total=1), "is never accepted": Fault("gateway-lost", total=1)}


async def start_first_row(house: EngineHarness) -> tuple[Record, Record]:
    """Leave row 0 under way, or in doubt, by a run that has ended; add row 1. Return both."""
    await house.run([make_record(0)], timeout=0.2, poll_interval=0.05, reconcile_wait=0.0)
    await house.add([make_record(1)])
    first, second = await house.ledger.load()
    return first, second


def slow_house(folder: Path, fault: Fault) -> EngineHarness:
    return EngineHarness(folder, fast_sandbox_options(durations="fixed:100000"), fault)


@pytest.mark.parametrize("fate", FATES)
async def test_a_row_under_way_that_is_not_selected_is_submitted_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    async with slow_house(tmp_path, FATES[fate]) as house:
        first, second = await start_first_row(house)
        house.finish_renders_now()
        chosen = frozenset({second.key})
        run = await make_driver(
            house, monkeypatch, submittable=chosen, poll_interval=0.05, reconcile_after=1.0
        )
        async with run.running():
            await wait_until(lambda: house.sandbox_state.create_requests == 2)
            house.finish_renders_now()
        rows = {row.key: row for row in run.outcome.records}
        assert (rows[first.key].state, rows[second.key].state) == (State.PENDING, State.DONE)
        assert rows[first.key].submission_no == 1
        assert house.sandbox_state.create_requests == 2
        assert run.outcome.unselected == {first.key}
        assert run.outcome.stop_reason is None
        assert not run.outcome.open_rows
        assert_paid_once(house)


async def test_a_dead_workers_row_that_is_not_selected_goes_to_nobody_once_it_is_pending(
    tmp_path: Path,
) -> None:
    async with slow_house(tmp_path, FATES["fails at the vendor"]) as house:
        first, second = await start_first_row(house)
        team = await make_local_cluster(house, submittable=frozenset({second.key}))
        coordinator = team.coordinator
        await coordinator.open()

        async def ask(worker: str) -> list[str]:
            reply = await coordinator.heartbeat(Heartbeat(worker, 0, PollStats(), rows_wanted=2))
            leased = [row.record.key for row, _ in reply.rows]
            assert reply.submittable == {second.key} & set(leased)
            return leased

        await coordinator.join("1")
        assert await ask("1") == [first.key, second.key]
        failed = await house.ledger.commit(first, first.evolve(State.FAILED))
        await house.ledger.commit(failed, failed.evolve(State.PENDING, generation_id=""))
        await coordinator.worker_died("1")
        await coordinator.join("2")
        assert await ask("2") == [second.key]
        assert await ask("2") == []
        await coordinator.close()


async def test_money_of_a_row_that_is_not_selected_buys_another_when_it_fails(tmp_path: Path) -> None:
    async with slow_house(tmp_path, FATES["fails at the vendor"]) as house:
        house.price_of = lambda _: PRICE_USD
        first, second = await start_first_row(house)
        chosen = frozenset({second.key})
        team = await make_local_cluster(house, submittable=chosen, price=PRICE_USD, max_cost=PRICE_USD)
        async with team.running(2):
            await team.wait_until(lambda: team.snapshots[-1].budget_exhausted is not None)
            house.finish_renders_now()
            vendor, told = house.sandbox_state, team.snapshots
            await team.wait_until(lambda: vendor.create_requests == 2 or not told[-1].live_workers)
            house.finish_renders_now()
            await team.wait_until_done()
        assert {row.key: row.state for row in await house.ledger.load()} == {
            first.key: State.PENDING,
            second.key: State.DONE,
        }
        assert_paid_once(house)
