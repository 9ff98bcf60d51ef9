"""How a ledger's file is made: built beside its place, checked and put there whole; or migrated.

It must not know connections that stay open, or records.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import sqlite3
import tempfile
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.ledger.compiled_statements import SCHEMA_VERSION, sqlite_migrations, sqlite_statements
from pipeline.ledger.migrate import migrate

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.ledger.compiled_statements import Statements

APPLICATION_ID: Final = 0x7665_6F62  # "veob", in the file's header: https://www.sqlite.org/fileformat2.html
_CHECK_TIMEOUT_S: Final = 5.0
"""How long the check of the file may take. It reads about 1 GB in this time; a larger ledger is checked
in part, and damage in the rest is still found when its pages are read."""

_NO_LOCK_ERRORS: Final = frozenset(
    {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
)


def has_locks(folder: Path) -> bool:
    """Try the kind of lock that SQLite takes; a folder that cannot be written is not reported here."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        import fcntl

        with tempfile.TemporaryFile(dir=folder, prefix=".veobatch-") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows: every file system has locks
        return True
    except OSError as error:
        return error.errno not in _NO_LOCK_ERRORS
    return True


def create_if_missing(path: Path) -> None:
    """Put a whole, empty ledger at `path` in one step: a kill leaves either none or one that opens."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}-{clocks.token_hex(4)}.new")
    try:
        _build(new)
        _check_whole(new)
        _publish(new, path)
    except (sqlite3.Error, OSError):
        # Another process may have been first, and may have swept our file away: its ledger is used then.
        if not path.exists():
            raise
    finally:
        new.unlink(missing_ok=True)
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.new*"):
        if _OWN_LEFTOVER.fullmatch(leftover.name.removeprefix(path.name)):
            leftover.unlink(missing_ok=True)


_OWN_LEFTOVER: Final = re.compile(r"\.\d+-[0-9a-f]{8}\.new(-journal|-wal|-shm)?")


def _build(new: Path) -> None:
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA synchronous = FULL")
        migrate_file(connection, 0, sqlite_statements())
        # WAL comes last: on a full disk, what is only in the WAL never reaches the file.
        connection.execute("PRAGMA journal_mode = WAL")


def _check_whole(new: Path) -> None:
    """Raise ENOSPC for a file that SQLite believes written and that is not whole: the disk was full."""
    if not _is_whole(new):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _is_whole(new: Path) -> bool:
    """Return whether the file on the disk holds the whole of an empty ledger."""
    uri = f"{new.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            version = connection.execute(sqlite_statements().version_get).fetchone()[0]
            return bool(version == SCHEMA_VERSION and passes_quick_check(connection))
    except sqlite3.DatabaseError:
        return False


def _publish(new: Path, path: Path) -> None:
    try:
        # A link fails where another process was first; a rename would replace that one's ledger.
        os.link(new, path)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # no hard links here (FAT, some network shares)
        new.replace(path)
    # Three levels of folders may be as new as the file: its own, `output`, and their parent.
    for folder in list(path.absolute().parents)[:3]:
        with contextlib.suppress(PermissionError):
            _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def migrate_file(connection: sqlite3.Connection, current_version: int, sql: Statements) -> None:
    if current_version == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if current_version:  # another process may have been first
            current_version = int(connection.execute(sql.version_get).fetchone()[0])
        migrate(connection.cursor(), sql, sqlite_migrations(current_version), current_version)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def passes_quick_check(connection: sqlite3.Connection) -> bool:
    deadline = clocks.monotonic() + _CHECK_TIMEOUT_S
    connection.set_progress_handler(lambda: clocks.monotonic() > deadline, 100_000)
    try:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return True
    finally:
        connection.set_progress_handler(None, 0)
