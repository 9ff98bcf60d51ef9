"""PostgreSQL, as far as a ledger can tell: one database, its sessions, and what becomes of them.

It runs the ledger's own SQL on SQLite in memory. Transactions that write come one after the other here; a
real server lets those on different rows overlap. Whoever reads sees what was committed, never what is open.
https://www.postgresql.org/docs/current/mvcc.html
"""

from __future__ import annotations

import functools
import re
import sqlite3
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pipeline.ledger import postgres, schema
from pipeline.ledger.compiled_statements import SCHEMA_VERSION
from pipeline.ledger.statements import compile_statements as compile_anew

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.ledger.compiled_statements import Statements

IDLE_IN_TRANSACTION_S: Final = 10.0
LOCK_TIMEOUT_S: Final = 10.0
_CAST: Final = re.compile(r"::(VARCHAR|INTEGER|BIGINT)\b")
_LOCKING: Final = re.compile(r" FOR (UPDATE|SHARE)\b")
_ORDER: Final = "ORDER BY veobatch_submissions.submitted_at"


@functools.cache
def compile_statements(dialect: Any, version: int = SCHEMA_VERSION) -> Statements:
    """Stand in for the package's function, which takes longer than all else in a small world."""
    return compile_anew(dialect, version)


@functools.cache
def translate(sql: str) -> str:
    """Return what SQLite takes for the same."""
    plain = _LOCKING.sub("", _CAST.sub("", sql)).replace("%s", "?")
    # SQLite takes NULL for the smallest value, PostgreSQL for the largest.
    return plain.replace(_ORDER, f"{_ORDER} NULLS LAST")


@functools.cache
def empty_ledger() -> bytes:
    """Return the tables, as the package's migrations make them."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    for version, texts in schema.migrations(postgres._DIALECT, 0):
        for text in texts:
            database.execute(translate(text))
        database.execute(translate(compile_statements(postgres._DIALECT).version_add), (version, 0.0))
    return database.serialize()


def opened(content: bytes) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    database.deserialize(content)
    return database


class Session:
    """The server's side of a connection. `working`: its client is in the midst of a batch of rows."""

    def __init__(self, name: str, now: float) -> None:
        self.name, self.heard_at = name, now
        self.client: object = None
        self.in_transaction = self.failed = self.working = False
        self.ended: type[psycopg.Error] | None = None


class Server:
    """One server. `now` tells its time, `on_commit` hears of each commit that took effect."""

    def __init__(self, now: Callable[[], float], on_commit: Callable[[sqlite3.Connection], None]) -> None:
        self._now, self._on_commit = now, on_commit
        self.database = opened(empty_ledger())
        self.away = self.read_only = False
        self.sessions: list[Session] = []
        self._holders: dict[int, Session] = {}
        self._writer: Session | None = None
        self._committed = b""

    def connect(self, name: str) -> Session:
        """Let a client in. Raises `psycopg.OperationalError` while the server is away."""
        if self.away:
            raise psycopg.OperationalError("connection refused")
        session = Session(name, self._now())
        self.sessions.append(session)
        return session

    def end(self, session: Session, why: type[psycopg.Error] = psycopg.OperationalError) -> None:
        """End a session: what it has open is rolled back, what it holds is free."""
        if session.ended is None:
            session.ended = why
            self.sessions.remove(session)
            self.roll_back(session)
            for number in [number for number, holder in self._holders.items() if holder is session]:
                del self._holders[number]

    def restart(self) -> None:
        """End all sessions, as a server does that is told to stop."""
        for session in list(self.sessions):
            self.end(session, psycopg.errors.AdminShutdown)

    def committed(self) -> bytes:
        """Return what is committed, as a backup has it."""
        return self.database.serialize() if self._writer is None else self._committed

    def restore(self, backup: bytes) -> None:
        """Go back to a backup; nobody's session outlives that."""
        self.restart()
        self.database = opened(backup)

    def end_silent(self, silent_s: float) -> None:
        """End the sessions that are silent in the midst of a batch of rows."""
        for session in list(self.sessions):
            if session.working and self._now() - session.heard_at > silent_s:
                self.end(session, psycopg.errors.AdminShutdown)

    def hear(self, session: Session) -> None:
        """Take notice of a client. Raises what it learns when its session is over."""
        self._end_idle(session)
        if session.ended is not None:
            raise session.ended("the connection is lost")
        session.heard_at = self._now()

    def _end_idle(self, session: Session) -> None:
        idle_s = self._now() - session.heard_at
        if session.in_transaction and not session.working and idle_s > IDLE_IN_TRANSACTION_S:
            self.end(session, psycopg.errors.IdleInTransactionSessionTimeout)

    def may_write(self, session: Session) -> bool:
        """Take the right to write for the session's transaction; False while another one's is open."""
        if self._writer is not None:
            self._end_idle(self._writer)
        if self._writer is None:
            self._writer, self._committed = session, self.database.serialize()
            self.database.execute("BEGIN")
        return self._writer is session

    def begin(self, session: Session) -> None:
        session.in_transaction, session.failed = True, False

    def commit(self, session: Session) -> None:
        """Commit what the session has open; a transaction in which something failed is rolled back."""
        if self._writer is session and not session.failed:
            self.database.execute("COMMIT")
            self._writer = None
            self._on_commit(self.database)
        self.roll_back(session)

    def roll_back(self, session: Session) -> None:
        session.in_transaction = session.failed = session.working = False
        if self._writer is session:
            self.database.execute("ROLLBACK")
            self._writer = None

    def fail(self, session: Session) -> None:
        """Undo what is open at once; the transaction takes nothing more until its end."""
        in_transaction = session.in_transaction
        self.roll_back(session)
        session.in_transaction = session.failed = in_transaction

    def write(self, session: Session, sql: str, rows: Sequence[Sequence[Any]]) -> sqlite3.Cursor:
        """Run a statement of the session's transaction, once for each of `rows`."""
        if self.read_only:
            raise psycopg.errors.ReadOnlySqlTransaction("cannot execute in a read-only transaction")
        cursor = self.database.cursor()
        try:
            _refuse_nul(rows)
            return cursor.execute(sql, rows[0]) if len(rows) == 1 else cursor.executemany(sql, rows)
        except psycopg.Error:
            self.fail(session)
            raise
        except sqlite3.IntegrityError as error:
            self.fail(session)
            raise psycopg.errors.UniqueViolation(str(error)) from error

    def read(self, session: Session, sql: str, row: Sequence[Any]) -> list[Any]:
        """Return what a statement finds in what is committed, or what its own transaction wrote."""
        database = self.database if self._writer in (None, session) else opened(self._committed)
        return database.execute(sql, row).fetchall()

    def try_lock(self, session: Session, number: int) -> bool:
        return self._holders.setdefault(number, session) is session

    def holder_of(self, number: int) -> list[tuple[str, None]]:
        return [(self._holders[number].name, None)] if number in self._holders else []


def _refuse_nul(rows: Sequence[Sequence[Any]]) -> None:
    for row in rows:
        for value in row:
            if isinstance(value, str) and "\0" in value:
                raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
