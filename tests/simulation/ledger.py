"""The ledger on a simulated machine: the package's SQL on SQLite in memory, and a writer without a thread.

What survives: a transaction that was committed with `synchronous=FULL` survives everything, one that was not
committed survives nothing (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import functools
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.ledger.backend import LedgerBackend
from pipeline.ledger.migrate import new_identity
from pipeline.ledger.sqlite import SqliteBackend
from pipeline.ledger.sqlite_file import migrate_file
from pipeline.ledger.statements import SQLITE, compile_statements
from pipeline.ledger.writer import GroupCommitWriter
from tests.simulation import scheduler

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from pipeline.ledger.compiled_statements import Statements
    from pipeline.ledger.rows import PreparedUpdate
    from pipeline.model import Record
    from tests.simulation.machine import Machine

PATH: Final = Path("/batch/ledger.sqlite3")


@functools.cache
def statements() -> Statements:
    """Return the package's SQL, compiled once for all worlds."""
    return compile_statements(SQLITE)


@functools.cache
def _empty_ledger() -> bytes:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate_file(connection, 0, statements())
    return connection.serialize()


def new_database(content: bytes = b"") -> sqlite3.Connection:
    """Return a ledger's database with `content`, by default an empty ledger."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(content or _empty_ledger())
    return connection


class SimCursor(sqlite3.Cursor):
    """A cursor that dies, or finds the disk full, where a transaction is committed."""

    def execute(self, sql: str, *args: Any) -> SimCursor:
        if sql != "COMMIT":
            super().execute(sql, *args)
            return self
        world = scheduler.running().world
        world.on_step()
        kind = world.chance.draw("commit")
        if kind in ("disk full", "io error") or scheduler.running().machine.disk.full:
            super().execute("ROLLBACK")
            error = sqlite3.OperationalError("database or disk is full" if kind != "io error" else "disk I/O")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR if kind == "io error" else sqlite3.SQLITE_FULL
            raise error
        super().execute(sql)
        world.on_step()
        return self


class SimBackend(SqliteBackend):
    """The package's SQLite backend on the machine's database in memory."""

    def __init__(self, machine: Machine, batch: str = "default") -> None:
        LedgerBackend.__init__(self, batch, statements())
        if machine.database is None:
            machine.database = new_database()
        self._path, self._machine = PATH, machine
        self._database = machine.database
        self._connections = []
        if self._database.in_transaction:  # of a process that was killed
            self._database.execute("ROLLBACK")
        self._database.execute(self.sql.batch_add, (batch, new_identity(), machine.wall()))
        self.identity = self._database.execute(self.sql.batch_get, (batch,)).fetchone()[0]

    def cursor(self, *, reading: bool) -> Any:
        return self._database.cursor(SimCursor)

    def roll_back(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def apply(self, updates: Sequence[PreparedUpdate]) -> list[Any]:
        outcomes = super().apply(updates)
        self._machine.world.book.on_commit(updates, outcomes)
        return outcomes

    def add(self, records: Sequence[Record]) -> None:
        super().add(records)
        self._machine.world.book.on_added(records)


class SimWriter(GroupCommitWriter):
    """The package's group commit; its thread is one of the simulated process's."""

    def __init__(self, backend: LedgerBackend, loop: asyncio.AbstractEventLoop) -> None:
        self._backend, self._loop = backend, loop
        import queue

        self._queue = queue.SimpleQueue()
        self._next_request = None
        self._closed = self._working = False
        self._slow = scheduler.running().world.chance.stream(f"commits {scheduler.running().number}")

    def close(self) -> None:
        """Finish everything asked so far."""
        self._closed = True
        while self._has_work():
            self._work()

    def _enqueue(self, updates: Sequence[PreparedUpdate], work: Callable[[], Any] | None) -> Any:
        future = super()._enqueue(updates, work)
        if not self._working:
            self._working = True
            self._schedule()
        return future

    def _schedule(self) -> None:
        late = scheduler.running().world.chance.draw("commit delay")
        self._loop.call_later(2.0 * self._slow.random() if late else 0.004 * self._slow.random(), self._run)

    def _has_work(self) -> bool:
        return self._next_request is not None or not self._queue.empty()

    def _run(self) -> None:
        self._work()
        self._working = self._has_work() and not self._closed
        if self._working:
            self._schedule()

    def _work(self) -> None:
        if not self._has_work():
            return
        requests = self._next_group()
        try:
            results = self._execute(requests)
        except Exception as error:
            results = [error] * len(requests)
        self._deliver(requests, results)
