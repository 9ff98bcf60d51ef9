"""What `psycopg.connect` returns in a simulated world: the client's side, with all that may befall a line."""

from __future__ import annotations

import os
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg

from pipeline.ledger import postgres
from tests.simulation.cluster.server import LOCK_TIMEOUT_S, Server, Session, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

READS: Final = ("SELECT", "SHOW")
LOCKS: Final = (" FOR UPDATE", " FOR SHARE")


class Line:
    """A way to the server on which nothing goes wrong. `pause` lets time pass while a client waits."""

    def __init__(self, server: Server, pause: Callable[[float], None] = lambda _: None) -> None:
        self.server, self.pause = server, pause
        self.client: object = None

    def before(self, session: Session, sql: str) -> None:
        """A statement is about to leave."""

    def after(self, session: Session, sql: str) -> None:
        """A statement has taken effect; its answer is on the way."""


class Connection:
    """The part of `psycopg.Connection` that the package uses, in autocommit mode."""

    info = SimpleNamespace(pipeline_status=psycopg.pq.PipelineStatus.OFF)

    def __init__(self, line: Line) -> None:
        self._line, self._server = line, line.server
        self._session = line.server.connect(f"veobatch {os.getpid()}")
        self._session.client = line.client
        self.closed = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._server.end(self._session)

    def cursor(self, name: str = "") -> Cursor:
        return Cursor(self)

    def execute(self, sql: str | bytes, row: Sequence[Any] = ()) -> Cursor:
        return self.cursor().execute(sql, row)

    def rollback(self) -> None:
        if self._session.in_transaction:
            self.run("ROLLBACK", [()])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.run("BEGIN", [()])
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        self.run("COMMIT", [()])

    def run(self, sql: str, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], int]:
        """Have a statement carried out for each of `rows`; return what it found, and how many it changed."""
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        self._session.working = len(rows) > 1
        try:
            self._line.before(self._session, sql)
            self._server.hear(self._session)
            found = self._carry_out(sql, rows)
            self._session.heard_at = self._server._now()
            self._line.after(self._session, sql)
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
            self.closed = self._session.ended is not None
            raise
        finally:
            self._session.working = False
        return found

    def _carry_out(self, sql: str, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], int]:
        server, session = self._server, self._session
        match sql:
            case "BEGIN":
                server.begin(session)
            case "COMMIT":
                server.commit(session)
            case "ROLLBACK":
                server.roll_back(session)
            case _ if session.failed:
                raise psycopg.errors.InFailedSqlTransaction("current transaction is aborted")
            case _ if (special := self._special(sql, rows[0])) is not None:
                return special, len(special)
            case _ if sql.startswith(READS) and not sql.endswith(LOCKS):
                return server.read(session, translate(sql), rows[0]), -1
            case _:
                return self._write(sql, rows)
        return [], -1

    def _special(self, sql: str, row: Sequence[Any]) -> list[Any] | None:
        """Return what only a real server knows, None for the ledger's own statements."""
        if sql.startswith(("SET", "SELECT set_config", "SELECT pg_advisory_xact_lock")):
            return []
        match sql:
            case "SHOW synchronous_commit":
                return [("on",)]
            case "SHOW transaction_read_only":
                return [("on" if self._server.read_only else "off",)]
            case postgres._TRY_LOCK_SQL:
                return [(self._server.try_lock(self._session, row[0]),)]
            case postgres._LOCK_HOLDER_SQL:
                return list(self._server.holder_of(row[0]))
            case postgres._TERMINATE_SILENT_SQL:
                self._server.end_silent(row[0])
                return []
        return [(True,)] if sql.startswith("SELECT to_regclass") else None

    def _write(self, sql: str, rows: Sequence[Sequence[Any]]) -> tuple[list[Any], int]:
        server, session, waited_s = self._server, self._session, 0.0
        alone = not session.in_transaction
        while not server.may_write(session):
            if waited_s >= LOCK_TIMEOUT_S:
                server.fail(session)
                raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
            self._line.pause(0.2)
            waited_s += 0.2
            session.heard_at = server._now()
            server.hear(session)
        try:
            cursor = server.write(session, translate(sql), rows)
            found = [] if cursor.description is None else cursor.fetchall()
            if alone:
                server.commit(session)
        finally:
            if alone:
                server.roll_back(session)
        return found, cursor.rowcount


class Cursor:
    """The part of `psycopg.Cursor` that the package uses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found: list[Any] = []
        self.rowcount = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def execute(self, sql: str | bytes, row: Sequence[Any] = ()) -> Self:
        text = sql.decode() if isinstance(sql, bytes) else sql
        self._found, self.rowcount = self._connection.run(text, [row])
        return self

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        params = list(rows)
        self._found, self.rowcount = self._connection.run(sql, params) if params else ([], 0)

    def fetchone(self) -> Any:
        return self._found.pop(0) if self._found else None

    def fetchmany(self, size: int) -> list[Any]:
        found, self._found = self._found[:size], self._found[size:]
        return found

    def fetchall(self) -> list[Any]:
        found, self._found = self._found, []
        return found
