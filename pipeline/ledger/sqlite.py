"""The ledger in a file: SQLite in WAL mode, every commit synced to the disk before it counts.

It owns the opening and checking of the file and what each of SQLite's errors means to the user. What
`synchronous=FULL` and WAL promise: https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.errors import LedgerError, StoreError, VeobatchError
from pipeline.ledger.backend import LedgerBackend
from pipeline.ledger.compiled_statements import SCHEMA_VERSION, sqlite_statements
from pipeline.ledger.migrate import new_identity, reject_newer_version
from pipeline.ledger.sqlite_file import (
    APPLICATION_ID,
    create_if_missing,
    has_locks,
    migrate_file,
    passes_quick_check,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.ledger.backend import Cursor

_BUSY_TIMEOUT_S: Final = 60.0

_WAL_PAGES: Final = 4000
"""WAL pages (4 KiB) after which SQLite checkpoints. Measured with 64 callers: fewer cost throughput, more
only disk."""

_DISK_FULL_MESSAGE: Final = (
    "the disk is full: free some space, then run the same command again; it goes on from here"
)
_MOVE_AWAY_ADVICE: Final = "move it away or choose another output folder"
_DAMAGED_MESSAGE: Final = (
    "the ledger is damaged, and was left as it is: put back a copy of it, if you have one. Without it, what "
    "was paid for cannot be told from what was not: look at your account before you move the file away"
)
_OTHER_DATABASE_MESSAGE: Final = f"this is a database, but not a ledger of veobatch: {_MOVE_AWAY_ADVICE}"
_PERMISSIONS_ADVICE: Final = "check the permissions of the file and its folder"
_ERROR_MESSAGES: Final = {
    sqlite3.SQLITE_CORRUPT: _DAMAGED_MESSAGE,
    sqlite3.SQLITE_NOTADB: _DAMAGED_MESSAGE,
    sqlite3.SQLITE_READONLY: f"the ledger cannot be written: {_PERMISSIONS_ADVICE}",
    sqlite3.SQLITE_CANTOPEN: f"the ledger cannot be opened: {_PERMISSIONS_ADVICE}",
    sqlite3.SQLITE_PERM: f"the ledger cannot be opened: {_PERMISSIONS_ADVICE}",
    sqlite3.SQLITE_BUSY: "another program keeps the ledger locked: end it, then run the command again",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write the ledger: check it, then run the command again",
}
_NO_LOCKS_MESSAGE: Final = (
    "the file system here has no locks (some network shares and FUSE mounts have none), and without them a "
    "ledger is not safe: keep it on a local disk with --ledger PATH"
)
_GONE_MESSAGE: Final = (
    "the ledger was removed or replaced while it was in use, so nothing more can be recorded: put it back if "
    "you can; without it, veobatch adopt MANIFEST --from results.csv makes it again"
)
_UNKNOWN_ERROR_MESSAGE: Final = "the ledger cannot be used"


class SqliteBackend(LedgerBackend):
    """A batch in a SQLite file."""

    begin_sql = "BEGIN IMMEDIATE"
    driver_error = sqlite3.Error
    data_error = sqlite3.DataError
    integrity_error = sqlite3.IntegrityError

    def __init__(self, path: Path, batch: str, *, read_only: bool, new_as: str | None = None) -> None:
        """Open the ledger at `path`, making it first if there is none and it is not `read_only`.

        `new_as` is the identity of a batch that has no rows in it; by default a new one gets a random one.
        """
        super().__init__(batch, sqlite_statements())
        self._path = path
        self._writer: sqlite3.Connection | None = None
        self._opened_inode = 0
        self._connections: list[sqlite3.Connection] = []
        try:
            with self._translating_errors():
                self._open(read_only=read_only, new_as=new_as)
        except BaseException:
            self.close()
            raise

    def _open(self, *, read_only: bool, new_as: str | None) -> None:
        if not read_only:
            if not has_locks(self._path.parent):
                raise LedgerError(f"{self._path}: {_NO_LOCKS_MESSAGE}")
            create_if_missing(self._path)
        self._reader = self._connect(read_only=read_only)
        self._reader.execute("PRAGMA query_only = ON")
        found = self._check_file()
        if read_only and found < SCHEMA_VERSION:
            self.sql, self.version = sqlite_statements(found), found
        if not read_only:
            self._writer = self._connect(read_only=False)
            migrate_file(self._writer, found, self.sql)
            self._writer.execute(self.sql.batch_add, (self.batch, new_as or new_identity(), clocks.wall()))
            if new_as is not None:
                self._writer.execute(self.sql.identity_set, (new_as, self.batch))
            self._opened_inode = self._inode()
        row = self._reader.execute(self.sql.batch_get, (self.batch,)).fetchone()
        if row is None:
            raise LedgerError(f"{self._path}: this ledger holds no batch named {self.batch!r}")
        self.identity = row[0]

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        if not self._path.is_file():
            raise LedgerError(f"{self._path}: there is no ledger here")
        if self._path.stat().st_size == 0:
            raise LedgerError(f"{self._path}: {_DAMAGED_MESSAGE}")
        _check_header(self._path)
        uri = f"{self._path.resolve().as_uri()}?{self._open_mode(read_only=read_only)}"
        # isolation_level None: the driver must not begin transactions of its own between ours.
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._connections.append(connection)
        # With NORMAL, WAL may lose the last commits in a power cut; each may be a paid generation. On macOS
        # a plain fsync stops at the drive's cache; fullfsync goes through it.
        for pragma in ("synchronous = FULL", "fullfsync = ON", f"wal_autocheckpoint = {_WAL_PAGES}"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _open_mode(self, *, read_only: bool) -> str:
        # Even a reader makes a WAL index beside the file, and SQLite removes it only for a connection that
        # may write. Where nothing can be written and there is no WAL, `immutable` does without the index.
        if not read_only or (_may_write(self._path) and _may_write(self._path.parent)):
            return "mode=rw"
        has_wal = self._path.with_name(f"{self._path.name}-wal").exists()
        return "mode=ro" if has_wal else "mode=ro&immutable=1"

    def _check_file(self) -> int:
        """Return the version of the ledger, once it is known to be undamaged and not of a newer version."""
        found = int(self._reader.execute(self.sql.version_get).fetchone()[0] or 0)
        reject_newer_version(str(self._path), found)
        if not passes_quick_check(self._reader):
            raise LedgerError(f"{self._path}: {_DAMAGED_MESSAGE}")
        return found

    def cursor(self, *, reading: bool) -> Cursor:
        if reading:
            return self._reader.cursor()
        if self._writer is None:
            raise LedgerError(f"{self._path}: the ledger was opened for reading only")
        # SQLite goes on writing to a deleted file: after a kill nobody would know what was bought.
        if self._inode() != self._opened_inode:
            raise LedgerError(f"{self._path}: {_GONE_MESSAGE}")
        return self._writer.cursor()

    def _inode(self) -> int:
        """Return the inode at the path, 0 for none; no other file gets its number while ours is open."""
        try:
            return self._path.stat().st_ino
        except FileNotFoundError:
            return 0
        except OSError:  # SQLite itself reports what cannot be read or written
            return self._opened_inode

    def roll_back(self) -> None:
        # After a full disk or a failed write SQLite has rolled back by itself.
        if self._writer is not None and self._writer.in_transaction:
            self._writer.execute("ROLLBACK")

    def translate_error(self, error: Exception) -> VeobatchError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        # The WAL index is a file too, and the first that a full disk has no room for on opening.
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
            return StoreError(f"{self._path}: {_DISK_FULL_MESSAGE}")
        return LedgerError(
            f"{self._path}: {_ERROR_MESSAGES.get(code & 0xFF, _UNKNOWN_ERROR_MESSAGE)} ({error})"
        )

    def close(self) -> None:
        while self._connections:
            self._connections.pop().close()

    @contextlib.contextmanager
    def _translating_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self.translate_error(error) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(f"{self._path}: {_DISK_FULL_MESSAGE}") from error
            access_denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            message = f"{_PERMISSIONS_ADVICE} ({error.strerror})" if access_denied else error.strerror
            raise LedgerError(f"{self._path}: the ledger cannot be opened: {message}") from error


def _check_header(path: Path) -> None:
    """Raise `LedgerError` for a file that is no ledger of ours, before SQLite opens it.

    SQLite would apply and remove a journal that lies beside somebody else's file.
    Offsets: https://www.sqlite.org/fileformat2.html#the_database_header
    """
    with path.open("rb") as file:
        head = file.read(72)
    if not head.startswith(b"SQLite format 3\0"):
        raise LedgerError(f"{path}: {_DAMAGED_MESSAGE}")
    if int.from_bytes(head[68:72], "big") != APPLICATION_ID:
        raise LedgerError(f"{path}: {_OTHER_DATABASE_MESSAGE}")


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
