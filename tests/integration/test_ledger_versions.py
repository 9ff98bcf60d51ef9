"""Ledgers of an earlier version: read as they are, and brought up in place by whoever may write."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pipeline.errors import LedgerError
from pipeline.ledger import Ledger
from pipeline.ledger.schema import SCHEMA_VERSION
from pipeline.model import State
from tests.integration.ledger_servers import ledger_location, make_record

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [make_record(f"r{n}", n) for n in range(3)]
INDICES = ("veobatch_records_free", "veobatch_records_lent")
VERSIONS = "SELECT version FROM veobatch_schema_version ORDER BY version"


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


@pytest.fixture(params=["sqlite", "postgres"])
def first(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger as version 1 left it: its tables are those of today, and it has no index."""
    where = ledger_location(request.param, tmp_path)

    async def fill() -> None:
        async with await Ledger.open(where) as ledger:
            await ledger.add(ROWS)

    asyncio.run(fill())
    drops = [f"DROP INDEX {name}" for name in INDICES] if "://" in where else []
    execute(where, "DELETE FROM veobatch_schema_version WHERE version > 1", *drops)
    assert execute(where, VERSIONS) == [(1,)]
    return where


async def test_a_reader_takes_it_as_it_is(first: str) -> None:
    async with await Ledger.open(first, read_only=True) as ledger:
        assert await ledger.load() == ROWS
        assert await ledger.counts() == {State.PENDING: 3}
    assert execute(first, VERSIONS) == [(1,)]
    assert indices(first) == set()


async def test_a_writer_brings_it_up(first: str) -> None:
    async with await Ledger.open(first) as ledger:
        assert execute(first, VERSIONS) == [(version,) for version in range(1, SCHEMA_VERSION + 1)]
        assert await ledger.load() == ROWS
        await ledger.commit(ROWS[0], ROWS[0].evolve(State.SUBMITTING))
    async with await Ledger.open(first, read_only=True) as reader:
        assert await reader.counts() == {State.PENDING: 2, State.SUBMITTING: 1}


async def test_only_a_database_that_many_share_has_indices(first: str) -> None:
    """A single machine never claims: its steps need not keep an index up."""
    async with await Ledger.open(first):
        assert indices(first) == (set(INDICES) if "://" in first else set())


async def test_many_may_bring_it_up_at_once(first: str) -> None:
    opened = await asyncio.gather(*(Ledger.open(first) for _ in range(6)))
    assert execute(first, VERSIONS) == [(version,) for version in range(1, SCHEMA_VERSION + 1)]
    for ledger in opened:
        await ledger.close()


async def test_done_rows_leased_by_version_1_are_released(first: str) -> None:
    execute(first, "UPDATE veobatch_records SET worker = 'a', lease = 1, state = 'done' WHERE position = 0")
    async with await Ledger.open(first) as ledger:
        epoch, _ = await ledger.begin_epoch()
        assert [row.record.position for row in await ledger.claim(epoch, "b", 9)] == [1, 2]
        assert await ledger.revoke(epoch, "a") == (frozenset(), False)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_later_version_is_refused(first: str, read_only: bool) -> None:
    execute(first, "INSERT INTO veobatch_schema_version VALUES (9, 0.0)")
    with pytest.raises(LedgerError, match=f"ledger version 9, this one knows up to {SCHEMA_VERSION}"):
        await Ledger.open(first, read_only=read_only)
    assert execute(first, VERSIONS) == [(1,), (9,)]
