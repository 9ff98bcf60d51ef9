"""Leases, on both ledgers: rows go to one worker at a time, and steps under an old number are refused."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import psycopg
import pytest

from pipeline.errors import Conflict
from pipeline.ledger import Ledger, postgres_connection
from pipeline.ledger.leases import Superseded
from pipeline.model import Record, State, Transition
from tests.crash.batches import wait_until
from tests.integration.ledger_servers import ledger_location, make_record, read_history

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.ledger.leases import LeasedRow


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ledger_location(request.param, tmp_path)


def rows(count: int) -> list[Record]:
    return [make_record(f"row-{number}", number) for number in range(count)]


def ids_of(lent: Sequence[LeasedRow]) -> list[str]:
    return [row.record.id for row in lent]


async def test_rows_are_leased_in_order_to_one_worker_at_a_time(where: str) -> None:
    async with await Ledger.open(where) as ledger:
        await ledger.add([*rows(5), replace(make_record("removed"), position=-1)])
        epoch, flying = await ledger.begin_epoch()
        assert not flying
        first = await ledger.claim(epoch, "a", 2)
        assert ids_of(first) == ["row-0", "row-1"]
        assert ids_of(await ledger.claim(epoch, "b", 9)) == ["row-2", "row-3", "row-4"]
        assert await ledger.claim(epoch, "a", 9) == []
        assert [row.record for row in first] == rows(2)


async def test_returned_rows_are_leased_again(where: str) -> None:
    async with await Ledger.open(where) as ledger:
        await ledger.add(rows(3))
        epoch, _ = await ledger.begin_epoch()
        first = await ledger.claim(epoch, "a", 3)
        await ledger.release(epoch, [row.record.key for row in first[1:]])
        again = await ledger.claim(epoch, "b", 9)
        assert ids_of(again) == ["row-1", "row-2"]
        assert all(row.lease > old.lease for row, old in zip(again, first[1:], strict=True))
        assert (await ledger.revoke(epoch, "a")).rows_freed
        assert ids_of(await ledger.claim(epoch, "b", 9)) == ["row-0"]


async def test_in_progress_rows_are_leased_first_and_finished_never(where: str) -> None:
    async with await Ledger.open(where) as ledger:
        given = rows(8)
        gone = replace(make_record("removed"), position=-1)
        await ledger.add([*given, gone])
        ways: dict[int, tuple[State, ...]] = {
            2: (State.SUBMITTING,),
            3: (State.SUBMITTING, State.IN_DOUBT),
            4: (State.GENERATING,),
            5: (State.GENERATING, State.READY),
            6: (State.GENERATING, State.READY, State.DONE),
            7: (State.FAILED,),
        }
        for number, states in ways.items():
            record = given[number]
            for state in states:
                record = await ledger.commit(record, record.evolve(state))
        await ledger.commit(gone, gone.evolve(State.GENERATING))
        epoch, flying = await ledger.begin_epoch()
        assert flying == {given[2].key, given[3].key, given[4].key, gone.key}
        assert set(ids_of(await ledger.claim(epoch, "a", 5))) == {
            "removed",
            "row-2",
            "row-3",
            "row-4",
            "row-5",
        }
        assert ids_of(await ledger.claim(epoch, "a", 9)) == ["row-0", "row-1"]


async def test_steps_are_fenced_by_the_lease(where: str) -> None:
    async with await Ledger.open(where) as account, await Ledger.open(where) as worker:
        await account.add(rows(3))
        epoch, _ = await account.begin_epoch()
        lent = await account.claim(epoch, "a", 2)
        leases = {row.record.key: row.lease for row in lent}
        worker.fence(leases)
        mine, other = lent[0].record, lent[1].record
        sent = await worker.commit(mine, mine.evolve(State.SUBMITTING))
        stranger = rows(3)[2]
        with pytest.raises(Conflict):
            await worker.commit(stranger, stranger.evolve(State.SUBMITTING))

        had = await account.revoke(epoch, "a")
        assert had.in_flight == {mine.key}
        assert had.rows_freed
        for record in (sent, other):
            with pytest.raises(Conflict):
                await worker.commit(record, record.evolve(State.FAILED))

        again = await account.claim(epoch, "b", 9)
        assert {row.record.key for row in again} == {mine.key, other.key, rows(3)[2].key}
        for row in again:
            assert row.lease > leases.get(row.record.key, 0)
        with pytest.raises(Conflict):
            await worker.commit(sent, sent.evolve(State.GENERATING))
        leases.update({row.record.key: row.lease for row in again})
        await worker.commit(sent, sent.evolve(State.GENERATING))


async def test_the_version_counts_under_a_lease_too(where: str) -> None:
    async with await Ledger.open(where) as ledger, await Ledger.open(where) as worker:
        await ledger.add(rows(1))
        epoch, _ = await ledger.begin_epoch()
        [row] = await ledger.claim(epoch, "a", 1)
        worker.fence({row.record.key: row.lease})
        await ledger.commit(row.record, row.record.evolve(usd_spent=1.0))
        with pytest.raises(Conflict):
            await worker.commit(row.record, row.record.evolve(State.SUBMITTING))


async def test_new_epoch_ends_all_leases_and_old_coordinator(where: str) -> None:
    async with await Ledger.open(where) as old, await Ledger.open(where) as new:
        await old.add(rows(2))
        first, _ = await old.begin_epoch()
        [row] = await old.claim(first, "a", 1)
        old.fence({row.record.key: row.lease})
        second, _ = await new.begin_epoch()
        assert second > first
        with pytest.raises(Superseded):
            await old.claim(first, "b", 1)
        with pytest.raises(Superseded):
            await old.revoke(first, "a")
        with pytest.raises(Conflict):
            await old.commit(row.record, row.record.evolve(State.SUBMITTING))
        assert ids_of(await new.claim(second, "b", 9)) == ["row-0", "row-1"]


async def test_rows_that_are_left_wait_for_the_next_epoch(where: str) -> None:
    async with await Ledger.open(where) as ledger:
        await ledger.add(rows(3))
        epoch, _ = await ledger.begin_epoch()
        lent = await ledger.claim(epoch, "a", 3)
        had = await ledger.revoke(epoch, "a", [row.record.key for row in lent])
        assert had == (frozenset(), False)
        assert await ledger.claim(epoch, "b", 9) == []
        epoch, _ = await ledger.begin_epoch()
        assert len(await ledger.claim(epoch, "b", 9)) == 3


async def test_batches_of_one_ledger_do_not_meet(where: str) -> None:
    async with await Ledger.open(where, batch="x") as x, await Ledger.open(where, batch="y") as y:
        await x.add(rows(2))
        await y.add(rows(2))
        epoch_x, _ = await x.begin_epoch()
        [first, _] = await x.claim(epoch_x, "a", 9)
        await y.begin_epoch()
        epoch_y, _ = await y.begin_epoch()
        assert len(await y.claim(epoch_y, "a", 9)) == 2
        await y.revoke(epoch_y, "a")
        x.fence({first.record.key: first.lease})
        await x.commit(first.record, first.record.evolve(State.SUBMITTING))


async def test_a_lease_ends_when_its_row_is_done(where: str) -> None:
    async with await Ledger.open(where) as account, await Ledger.open(where) as worker:
        await account.add(rows(2))
        epoch, _ = await account.begin_epoch()
        first, second = await account.claim(epoch, "a", 2)
        worker.fence({row.record.key: row.lease for row in (first, second)})
        done = first.record
        for state in (State.GENERATING, State.READY, State.DONE):
            done = await worker.commit(done, done.evolve(state))
        with pytest.raises(Conflict):
            await worker.commit(done, done.evolve(State.READY))
        failed = second.record.evolve(State.FAILED)
        again = Transition(failed, failed.evolve(State.PENDING))
        assert await worker.commit_many([Transition(second.record, failed), again]) == [failed, again.after]
        assert await account.claim(epoch, "b", 9) == []
        assert await account.revoke(epoch, "a") == (frozenset(), True)
        assert [row.record for row in await account.claim(epoch, "b", 9)] == [again.after]


async def test_epochs_that_begin_at_once_are_not_the_same(where: str) -> None:
    async with AsyncExitStack() as stack:
        drivers = [await stack.enter_async_context(await Ledger.open(where)) for _ in range(4)]
        begun = await asyncio.gather(*(driver.begin_epoch() for driver in drivers))
        numbers = sorted(number for number, _ in begun)
        assert numbers == [1, 2, 3, 4]
        for number, driver in zip([number for number, _ in begun], drivers, strict=True):
            if number < 4:
                with pytest.raises(Superseded):
                    await driver.claim(number, "a", 1)


class LeaseRace:
    """Lenders of several epochs, and workers of all of them, at random, against one batch.

    `lowest` is the lowest number that a row may still have, by what was answered so far. A step that begins
    under a lower one must be refused.
    """

    def __init__(self, seed: int, lenders: Sequence[Ledger], hands: Sequence[Ledger]) -> None:
        self.rng = random.Random(seed)
        self.lenders = lenders
        self.workers = hands
        self.leased: list[tuple[str, LeasedRow]] = []
        self.min_lease: dict[str, int] = {}
        self.any_leased = asyncio.Event()

    async def run_lender(self, lender: Ledger, turns: int) -> None:
        epoch = await self.begin(lender)
        for _ in range(turns):
            worker, rng_value = self.rng.choice("abc"), self.rng.random()
            try:
                if rng_value < 0.6:
                    self.record_leases(worker, await lender.claim(epoch, worker, self.rng.randint(1, 6)))
                elif rng_value < 0.95:
                    had = [row for name, row in self.leased if name == worker]
                    await lender.revoke(epoch, worker)
                    self.invalidate(had)
                else:
                    epoch = await self.begin(lender)
            except Superseded:
                continue

    async def begin(self, lender: Ledger) -> int:
        had = [row for _, row in self.leased]
        epoch, _ = await lender.begin_epoch()
        self.invalidate(had)
        return epoch

    def record_leases(self, worker: str, lent: Sequence[LeasedRow]) -> None:
        for row in lent:
            assert all(
                row.lease != other.lease or row.record.key != other.record.key for _, other in self.leased
            )
            self.min_lease[row.record.key] = max(row.lease, self.min_lease.get(row.record.key, 0))
            self.leased.append((worker, row))
            self.any_leased.set()

    def invalidate(self, had: Sequence[LeasedRow]) -> None:
        for row in had:
            self.min_lease[row.record.key] = max(row.lease + 1, self.min_lease[row.record.key])

    async def run_worker(self, worker: Ledger, turns: int) -> None:
        await self.any_leased.wait()
        for _ in range(turns):
            await self.step(worker, self.rng.choice(self.leased[-10:])[1])

    async def step(self, worker: Ledger, row: LeasedRow) -> bool:
        """Try a step under the row's number; say whether it was made."""
        lowest = self.min_lease[row.record.key]
        record = await worker.get(row.record.key)
        assert record is not None
        worker.fence({record.key: row.lease})
        try:
            await worker.commit(record, record.evolve(polls=record.polls + 1))
        except Conflict:
            return False
        assert row.lease >= lowest, "a step under a number that was no longer the row's"
        return True


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_row_is_leased_to_two_workers_when_coordinators_race(where: str, seed: int) -> None:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(await Ledger.open(where)) for _ in range(6)]
        await opened[0].add(rows(12))
        race = LeaseRace(seed, opened[:3], opened[3:])
        async with asyncio.TaskGroup() as group:
            for lender in race.lenders:
                group.create_task(race.run_lender(lender, 40))
            for hand in race.workers:
                group.create_task(race.run_worker(hand, 40))
        still = [row.record.key for _, row in race.leased if await race.step(race.workers[0], row)]
        assert len(still) == len(set(still))
        for record in await opened[0].load():
            assert record.version == record.polls == len(await read_history(opened[0], record.key))


async def test_a_claim_waits_for_rows_that_a_broken_connection_still_holds(tmp_path: Path) -> None:
    """The server rolls such a connection back in time; rows that were passed over would be lent to nobody."""
    where = ledger_location("postgres", tmp_path)
    async with await Ledger.open(where) as ledger:
        await ledger.add(rows(4))
        epoch, _ = await ledger.begin_epoch()
        ghost = psycopg.connect(where)
        ghost.execute("UPDATE veobatch_records SET worker = 'ghost' WHERE position < 2")
        claiming = asyncio.create_task(ledger.claim(epoch, "a", 9))
        await wait_until(lambda: waiting_for_a_lock(where))
        ghost.rollback()
        ghost.close()
        assert ids_of(await claiming) == ["row-0", "row-1", "row-2", "row-3"]


def waiting_for_a_lock(where: str) -> bool:
    with psycopg.connect(where) as connection:
        found = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return found != (0,)


@pytest.mark.parametrize("midst", ["transaction", "batch"])
async def test_rows_that_a_stopped_worker_has_locked_can_be_taken_back(
    tmp_path: Path, midst: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped between a step and its commit, or between the steps of a group."""
    settings = postgres_connection._SESSION_SETTINGS_SQL
    assert settings.count("'10s'") == 2
    monkeypatch.setattr(postgres_connection, "_SESSION_SETTINGS_SQL", settings.replace("'10s'", "'1s'"))
    where = ledger_location("postgres", tmp_path)
    async with await Ledger.open(where) as account, await Ledger.open(where) as worker:
        await account.add(rows(2))
        epoch, _ = await account.begin_epoch()
        await account.claim(epoch, "a", 2)
        cursor = cast("psycopg.Cursor", worker._backend.cursor(reading=False))
        cursor.execute("BEGIN")
        with suppress(psycopg.OperationalError), ExitStack() as stack:
            if midst == "batch":
                stack.enter_context(cursor.connection.pipeline())
            cursor.execute("UPDATE veobatch_records SET polls = 1")
            async with asyncio.timeout(600):
                assert (await account.revoke(epoch, "a")).rows_freed
        assert ids_of(await account.claim(epoch, "b", 2)) == ["row-0", "row-1"]
        if midst == "batch":
            with pytest.raises(psycopg.OperationalError):
                cursor.connection.execute("SELECT 1")
