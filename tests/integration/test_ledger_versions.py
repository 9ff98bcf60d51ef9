"""Ledgers of an earlier version: read as they are, and brought up in place by whoever may write."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pipeline.errors import GenerationTaken, LedgerError
from pipeline.ledger import Ledger
from pipeline.ledger.compiled_statements import SCHEMA_VERSION
from pipeline.ledger.rows import COLUMN_VERSIONS
from pipeline.ledger.totals import Spending
from pipeline.model import Pick, State
from tests.integration.ledger_servers import ledger_location, make_record

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.ledger.spending import Submission

PENDING = make_record("r0", 0)
DONE = replace(
    make_record("r1", 1), state=State.DONE, submission_no=1, correlation_id="vb.l.r1.1", generation_id="g1",
    submitted_at=5.0, finished_at=9.0, usd_spent=1.2,
)  # fmt: skip
CHARGED = replace(make_record("r2", 2), submission_no=1, usd_spent=2.4)
IN_DOUBT = replace(
    make_record("r3", 3), state=State.IN_DOUBT, submission_no=1, correlation_id="vb.l.r3.1", reserved_usd=1.6
)
OLD = [PENDING, DONE, CHARGED, IN_DOUBT]
ROWS = [PENDING, replace(DONE, completed_at=9.0), replace(CHARGED, earlier_usd=2.4), IN_DOUBT]
INDICES = ("veobatch_records_free", "veobatch_records_lent")
VERSIONS = "SELECT version FROM veobatch_schema_version ORDER BY version"
_DELETE_VERSION = {
    2: "DELETE FROM veobatch_schema_version WHERE version = 2",
    3: "DELETE FROM veobatch_schema_version WHERE version = 3",
    4: "DELETE FROM veobatch_schema_version WHERE version = 4",
}
ALL_VERSIONS = [(version,) for version in range(1, SCHEMA_VERSION + 1)]
BOOK = {
    ("vb.l.r1.1", "r1@f00d", "spent", None, 1.2),
    ("r2@f00d/1", "r2@f00d", "released", None, None),
    ("earlier:r2@f00d", "r2@f00d", "spent", None, 2.4),
    ("vb.l.r3.1", "r3@f00d", "maybe_spent", 1.6, None),
}


def execute(where: str, *asked: str) -> list[tuple[object, ...]]:
    """Run statements behind the ledger's back; return what the last one gives."""
    opened: Any = psycopg.connect(where) if "://" in where else sqlite3.connect(where)
    with contextlib.closing(opened):
        cursor = opened.cursor()
        for sql in asked:
            cursor.execute(sql)
        given = cursor.fetchall() if cursor.description else []
        opened.commit()
    return [tuple(row) for row in given]


def indices(where: str) -> set[object]:
    names = "SELECT indexname FROM pg_indexes" if "://" in where else "SELECT name FROM sqlite_master"
    return {row[0] for row in execute(where, names)} & set(INDICES)


def old_ledger(where: str, version: int) -> str:
    """Make a ledger as an earlier version left it: without its spending, without the columns of today."""

    async def fill() -> None:
        async with await Ledger.open(where) as ledger:
            await ledger.add(OLD)

    asyncio.run(fill())
    lacking = [name for name, brought in COLUMN_VERSIONS.items() if brought > version]
    columns = [f"ALTER TABLE veobatch_records DROP COLUMN {name}" for name in lacking]
    drops = [f"DROP INDEX {name}" for name in INDICES] if "://" in where and version < 2 else []
    newer = [_DELETE_VERSION[n] for n in range(version + 1, SCHEMA_VERSION + 1)]
    spending = ["DROP TABLE veobatch_submissions"] if version < 3 else []
    if version < 4:
        spending.append("DROP TABLE veobatch_generations")
    execute(where, *newer, *spending, *columns, *drops)
    return where


def money(entries: list[Submission]) -> set[tuple[str, str, str, float | None, float | None]]:
    return {(entry.id, entry.job_key, entry.state.value, entry.reserved_usd, entry.usd) for entry in entries}


@pytest.fixture(params=["sqlite", "postgres"])
def first(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger of version 1."""
    return old_ledger(ledger_location(request.param, tmp_path), 1)


@pytest.fixture(params=[("sqlite", 1), ("sqlite", 2), ("postgres", 1), ("postgres", 2)])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, int]:
    """A ledger of each earlier version, and that version."""
    kind, version = request.param
    return old_ledger(ledger_location(kind, tmp_path), version), version


async def test_a_reader_takes_it_as_it_is(old: tuple[str, int]) -> None:
    where, version = old
    async with await Ledger.open(where, read_only=True) as ledger:
        assert await ledger.load() == ROWS
        assert await ledger.get("r1@f00d") == ROWS[1]
        assert await ledger.counts() == {State.PENDING: 2, State.DONE: 1, State.IN_DOUBT: 1}
        assert money(await ledger.submissions()) == BOOK
        assert await ledger.totals() == Spending(await ledger.submissions()).totals()
    assert execute(where, VERSIONS) == [(n,) for n in range(1, version + 1)]


async def test_a_writer_brings_it_up(old: tuple[str, int]) -> None:
    where, _ = old
    async with await Ledger.open(where) as ledger:
        assert execute(where, VERSIONS) == ALL_VERSIONS
        assert await ledger.load() == ROWS
        assert money(await ledger.submissions()) == BOOK
        assert await ledger.totals() == Spending(await ledger.submissions()).totals()
        await ledger.commit(ROWS[0], ROWS[0].evolve(State.SUBMITTING))
    async with await Ledger.open(where, read_only=True) as reader:
        assert (await reader.counts())[State.SUBMITTING] == 1
        assert len(await reader.submissions()) == len(BOOK) + 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_what_reviewers_say_has_a_place_from_version_4_on(kind: str, tmp_path: Path) -> None:
    where = await asyncio.to_thread(old_ledger, ledger_location(kind, tmp_path), 3)
    async with await Ledger.open(where, read_only=True) as reader:
        assert [(record.take, record.pick) for record in await reader.load()] == [(1, "")] * len(OLD)
        assert await reader.picks() == {}
    async with await Ledger.open(where) as ledger:
        await ledger.set_picks({PENDING.key: Pick("picked", "the best"), DONE.key: Pick(note="blurred")})
        await ledger.commit(PENDING, PENDING.evolve(State.SUBMITTING))  # made from a record without the pick
        assert await ledger.picks() == {
            PENDING.key: Pick("picked", "the best"), DONE.key: Pick(note="blurred")
        }  # fmt: skip
        found = await ledger.get(PENDING.key)
        assert found is not None
        assert (found.pick, found.version) == ("picked", 1)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_generation_that_two_rows_have_already_keeps_no_ledger_closed(
    kind: str, tmp_path: Path
) -> None:
    where = await asyncio.to_thread(old_ledger, ledger_location(kind, tmp_path), 3)
    execute(where, "UPDATE veobatch_records SET generation_id = 'g' WHERE state IN ('done', 'in_doubt')")
    async with await Ledger.open(where) as ledger:
        assert [record.generation_id for record in await ledger.load()].count("g") == 2
        sent = await ledger.commit(PENDING, PENDING.evolve(State.SUBMITTING))
        with pytest.raises(GenerationTaken):
            await ledger.commit(sent, sent.evolve(State.GENERATING, generation_id="g"))


async def test_only_a_database_that_many_share_has_indices(first: str) -> None:
    """A single machine never claims: its steps need not keep an index up."""
    async with await Ledger.open(first):
        assert indices(first) == (set(INDICES) if "://" in first else set())


async def test_many_may_bring_it_up_at_once(first: str) -> None:
    opened = await asyncio.gather(*(Ledger.open(first) for _ in range(6)))
    assert execute(first, VERSIONS) == ALL_VERSIONS
    assert money(await opened[0].submissions()) == BOOK
    for ledger in opened:
        await ledger.close()


async def test_done_rows_leased_by_version_1_are_released(first: str) -> None:
    execute(first, "UPDATE veobatch_records SET worker = 'a', lease = 1, state = 'done' WHERE position = 0")
    async with await Ledger.open(first) as ledger:
        epoch, _ = await ledger.begin_epoch()
        assert [row.record.position for row in await ledger.claim(epoch, "b", 9)] == [2, 3]
        assert await ledger.revoke(epoch, "a") == (frozenset(), False)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_later_version_is_refused(first: str, read_only: bool) -> None:
    execute(first, "INSERT INTO veobatch_schema_version VALUES (9, 0.0)")
    with pytest.raises(LedgerError, match=f"ledger version 9, this one knows up to {SCHEMA_VERSION}"):
        await Ledger.open(first, read_only=read_only)
    assert execute(first, VERSIONS) == [(1,), (9,)]
