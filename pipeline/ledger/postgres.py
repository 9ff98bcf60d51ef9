"""The ledger in PostgreSQL: many batches, and many machines, in one database.

It owns the connection: a lost one is waited for, and what was under way is done again; compare-and-set
and the stamps make that safe. What each error means: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import create_engine

from pipeline import clocks
from pipeline.errors import BatchLocked, LedgerError, StoreError, VeobatchError
from pipeline.extras import missing_extra
from pipeline.ledger.backend import LedgerBackend
from pipeline.ledger.compiled_statements import SCHEMA_VERSION
from pipeline.ledger.migrate import migrate, new_identity, reject_newer_version
from pipeline.ledger.schema import VERSION_TABLE, migrations
from pipeline.ledger.statements import compile_statements

try:
    import psycopg

    from pipeline.ledger.postgres_connection import (
        connect,
        is_broken,
        is_connection_loss,
        parse_url,
        require_writable,
    )
except ImportError as error:
    raise missing_extra("a PostgreSQL ledger", "postgres") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.ledger.backend import Cursor
    from pipeline.ledger.compiled_statements import Statements

_DIALECT: Final = create_engine("postgresql+psycopg://", paramstyle="format").dialect
_MIGRATION_LOCK: Final = 0x7665_6F62
_MIN_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0

_QUICK_LOSS_S: Final = 1.0
"""A connection lost within this time after a reconnect makes the next wait longer."""

_LOCK_TIMEOUT_S: Final = 3.0
"""How long to wait for a batch's lock: the server notices a killed client at once, but finishes its
statement before it frees the lock."""

_TERMINATE_SILENT_SQL: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND usename = current_user AND application_name LIKE 'veobatch %%' AND state <> 'idle'"
    " AND wait_event_type = 'Client' AND state_change < clock_timestamp() - %s * interval '1 second'"
)
"""Ends our connections whose client went silent in the middle of a batch of rows. No server timeout covers
those: between the statements of a batch the server counts itself as active."""

_SILENT_S: Final = 8.0

_TRY_LOCK_SQL: Final = "SELECT pg_try_advisory_lock(%s)"
_LOCK_HOLDER_SQL: Final = (
    "SELECT application_name, client_addr FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE granted"
    " AND locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = %s"
)


class PostgresBackend(LedgerBackend):
    """A batch in a PostgreSQL database."""

    begin_sql = "BEGIN"
    driver_error = psycopg.Error
    data_error = psycopg.DataError
    integrity_error = psycopg.IntegrityError

    def __init__(
        self,
        url: str,
        batch: str,
        *,
        read_only: bool,
        exclusive: bool = False,
        new_as: str | None = None,
        on_pause: Callable[[str], None],
    ) -> None:
        """Connect, and make the tables if they are missing and it is not `read_only`.

        `exclusive` raises `BatchLocked` when another exclusive one has the batch.
        """
        super().__init__(batch, compile_statements(_DIALECT))
        self._url = parse_url(url)
        self._read_only = read_only
        self._exclusive = exclusive
        self._new_as = new_as
        self._on_pause = on_pause
        self._reconnect_stopped = threading.Event()
        self._connections: dict[bool, psycopg.Connection[Any]] = {}
        self._reconnected_at = -math.inf
        self._backoff_s = 0.0
        try:
            self._open_batch(read_only)
        except psycopg.Error as error:
            raise self.translate_error(error) from error
        finally:
            if not hasattr(self, "identity"):
                self.close()

    def _open_batch(self, read_only: bool) -> None:
        reader = self._connections[True] = connect(self._url, read_only=self._read_only)
        found = _schema_version(reader, self.sql.version_get)
        reject_newer_version(self._redacted_url, found)
        if not read_only:
            writer = self._connections[False] = connect(self._url, read_only=self._read_only)
            if self._exclusive:
                self._lock_batch(writer)
            _migrate(writer, self.sql)
            writer.execute(
                self.sql.batch_add.encode(),
                (self.batch, self._new_as or new_identity(), clocks.wall()),
            )
            if self._new_as is not None:
                writer.execute(self.sql.identity_set.encode(), (self._new_as, self.batch))
        elif found == 0:
            raise LedgerError(f"{self._redacted_url}: there is no ledger here")
        elif found < SCHEMA_VERSION:
            self.sql, self.version = compile_statements(_DIALECT, found), found
        row = reader.execute(self.sql.batch_get.encode(), (self.batch,)).fetchone()
        if row is None:
            raise LedgerError(f"{self._redacted_url}: this ledger holds no batch named {self.batch!r}")
        self.identity = str(row[0])

    @property
    def _redacted_url(self) -> str:
        return self._url.set(query={}).render_as_string(hide_password=True)

    def _lock_batch(self, connection: psycopg.Connection[Any]) -> None:
        """Keep the batch to ourselves for as long as the connection lives. Raises `BatchLocked`."""
        lock_id = _lock_id(self.batch)
        deadline = clocks.monotonic() + _LOCK_TIMEOUT_S
        while connection.execute(_TRY_LOCK_SQL, (lock_id,)).fetchone() != (True,):
            if clocks.monotonic() > deadline:
                found = connection.execute(_LOCK_HOLDER_SQL, (lock_id,)).fetchone()
                name, address = found or ("another process", None)
                holder = f"{name} at {address}" if address else name
                message = f"the batch {self.batch!r} is held by {holder}: wait for it, or stop it"
                raise BatchLocked(f"{self._redacted_url}: {message}")
            time.sleep(_MIN_BACKOFF_S)

    def cursor(self, *, reading: bool) -> Cursor:
        if not reading and self._read_only:
            raise LedgerError(f"{self._redacted_url}: the ledger was opened for reading only")
        return cast("Cursor", self._connections[reading].cursor())

    @contextmanager
    def stream_cursor(self, cursor: Cursor) -> Iterator[Cursor]:
        reader = self._connections[True]
        with reader.transaction(), reader.cursor(name="veobatch") as stream:
            yield cast("Cursor", stream)

    def roll_back(self) -> None:
        writer = self._connections[False]
        try:
            if not writer.closed:
                writer.rollback()
        except psycopg.Error:
            # The first error says why the work failed, so this one is dropped; the server rolls back.
            writer.close()

    def should_retry(self, error: Exception, *, reading: bool) -> bool:
        connection = self._connections[reading]
        if isinstance(error, psycopg.errors.LockNotAvailable):
            with suppress(psycopg.Error):  # a lost connection is what the next attempt will meet
                connection.execute(_TERMINATE_SILENT_SQL, (_SILENT_S,))
            return not self._reconnect_stopped.is_set()
        if isinstance(error, (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)):
            return True
        if not (is_connection_loss(error) or is_broken(connection)):
            return False
        # Until it is closed, the server may keep its row locks and the lock of the batch.
        connection.close()
        self._on_pause(
            f"{self._redacted_url}: the connection to the database is lost "
            f"({self._redacted_message(error)}): waiting"
        )
        reconnected = self._reconnect(reading=reading)
        if reconnected:
            self._on_pause(f"{self._redacted_url}: the database is back")
        return reconnected

    def _reconnect(self, *, reading: bool) -> bool:
        # A server that accepts connections and drops them at once is asked ever more slowly.
        lost_quickly = clocks.monotonic() - self._reconnected_at < _QUICK_LOSS_S
        wait_s = self._backoff_s = _next_backoff_s(self._backoff_s) if lost_quickly else 0.0
        while not self._reconnect_stopped.wait(wait_s):
            try:
                connection = self._connections[reading] = connect(self._url, read_only=self._read_only)
                if not reading:
                    require_writable(connection)
                    if self._exclusive:
                        # Whoever has it now came while we were away: every transition is compared anyway.
                        connection.execute(_TRY_LOCK_SQL, (_lock_id(self.batch),))
            except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
                wait_s = _next_backoff_s(wait_s)
            else:
                self._reconnected_at = clocks.monotonic()
                return True
        return False

    def translate_error(self, error: Exception) -> VeobatchError:
        message = f"{self._redacted_url}: {{}} ({self._redacted_message(error)})"
        match error:
            case psycopg.errors.DiskFull():
                return StoreError(
                    message.format("the database's disk is full: free some space, then run again")
                )
            case psycopg.errors.InsufficientPrivilege() | psycopg.errors.ReadOnlySqlTransaction():
                return LedgerError(message.format("this user may not write the ledger"))
            case psycopg.errors.DataCorrupted() | psycopg.errors.IndexCorrupted():
                return LedgerError(message.format("the ledger is damaged"))
            case psycopg.OperationalError():
                return LedgerError(message.format("the database cannot be reached"))
            case _:
                return LedgerError(message.format("the database refused"))

    def _redacted_message(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        secrets = (self._url.password, self._url.query.get("password"))
        for secret in secrets:
            if isinstance(secret, str) and secret:
                text = text.replace(secret, "***")
        return text

    def stop_reconnecting(self) -> None:
        self._reconnect_stopped.set()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def _next_backoff_s(wait_s: float) -> float:
    return min(_MAX_BACKOFF_S, max(_MIN_BACKOFF_S, 2 * wait_s))


def _lock_id(batch: str) -> int:
    """Return the advisory lock's number for `batch`."""
    return int.from_bytes(hashlib.sha256(f"veobatch {batch}".encode()).digest()[:8], signed=True)


def _schema_version(connection: psycopg.Connection[Any], version_get: str) -> int:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (VERSION_TABLE,)).fetchone()
    if row != (True,):
        return 0
    found = connection.execute(version_get.encode()).fetchone()
    return int(found[0] or 0) if found else 0


def _migrate(connection: psycopg.Connection[Any], sql: Statements) -> None:
    with connection.transaction():
        # Several workers may start on an old database at once: the others wait for the first to migrate.
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        found = _schema_version(connection, sql.version_get)
        migrate(cast("Cursor", connection.cursor()), sql, migrations(_DIALECT, found), found)
