"""What the SQLite and the PostgreSQL ledger share: each durable operation, on a driver's connection.

Synchronous: the writer's thread calls the operations that write, a worker thread those that read. It
must not know asyncio, files, or how a connection comes about.
"""

from __future__ import annotations

import itertools
import random
import secrets
import string
import threading
import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, TypeVar

from pipeline.errors import Conflict, LedgerTrouble, VeobatchError
from pipeline.ledger import rows
from pipeline.ledger.schema import VERSION
from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pipeline.ledger.schema import Statements
    from pipeline.model import Record

_T = TypeVar("_T")

_FETCHED_AT_ONCE: Final = 2000
_FARTHEST: Final = 2**31 - 1


class Cursor(Protocol):
    """The part of a driver's cursor that is used here."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, sql: str, row: Sequence[Any] = ..., /) -> object: ...
    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object: ...
    def fetchone(self) -> Any: ...
    def fetchmany(self, size: int, /) -> list[Any]: ...
    def fetchall(self) -> list[Any]: ...


class Move(NamedTuple):
    """A step as it is written: its statement, its row, and the line of history without its time."""

    after: Record
    sql: str
    row: rows.Row
    line: tuple[str, int, str, str]


class _Mismatch(Exception):
    """Somebody else was first in at least one step of a group."""


class Store(ABC):
    """One batch in one database."""

    begin: ClassVar[str]
    driver_error: ClassVar[type[Exception]]
    unstorable: ClassVar[type[Exception]]
    duplicate: ClassVar[type[Exception]]

    identity: str

    def __init__(self, batch: str, sql: Statements) -> None:
        self.batch = batch
        self.sql = sql
        self._stamps = itertools.count(random.getrandbits(62))
        self._reading = threading.Lock()

    @abstractmethod
    def cursor(self, *, reading: bool) -> Cursor:
        """Return a cursor of the connection that writes, or of the one that reads."""

    def streaming(self, cursor: Cursor) -> AbstractContextManager[Cursor]:
        """Give a cursor for reading that does not hold all that it finds in memory, in place of this one."""
        return nullcontext(cursor)

    @abstractmethod
    def survives(self, error: Exception, *, reading: bool) -> bool:
        """Tell whether the connection was lost and is back, so that the same work may be done again."""

    @abstractmethod
    def trouble(self, error: Exception) -> VeobatchError:
        """Say what is wrong in words that a user understands, and without a password."""

    @abstractmethod
    def give_up(self) -> None:
        """Wait no longer for a lost connection: what waits for it ends as `LedgerTrouble`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connections."""

    def apply(self, moves: Sequence[Move]) -> list[Record | Conflict]:
        """Make the steps in one durable transaction; a step whose record has moved on is a `Conflict`.

        Raises `StoreTrouble` when the disk is full, `LedgerTrouble` for anything else; nothing was
        written then.
        """
        at = time.time()
        lines = [(self.batch, *move.line, at, next(self._stamps)) for move in moves]
        try:
            self.write(lambda cursor: self._apply_all(cursor, moves, lines))
        except (_Mismatch, UnicodeEncodeError, self.unstorable):
            return self.write(lambda cursor: self._apply_each(cursor, moves, lines))
        return [move.after for move in moves]

    def _apply_all(self, cursor: Cursor, moves: Sequence[Move], lines: Sequence[rows.Row]) -> None:
        for sql, group in itertools.groupby(moves, key=lambda move: move.sql):
            batch = [move.row for move in group]
            cursor.executemany(sql, batch)
            if cursor.rowcount != len(batch):
                raise _Mismatch
        cursor.executemany(self.sql.log, lines)

    def _apply_each(
        self, cursor: Cursor, moves: Sequence[Move], lines: Sequence[rows.Row]
    ) -> list[Record | Conflict]:
        outcomes: list[Record | Conflict] = []
        for move, line in zip(moves, lines, strict=True):
            cursor.execute(move.sql, rows.cleaned(move.row))
            won = cursor.rowcount == 1
            if won:
                cursor.execute(self.sql.log, line)
            ours = won or self._made_before(cursor, line)
            outcomes.append(move.after if ours else Conflict(move.after.key))
        return outcomes

    def _made_before(self, cursor: Cursor, line: rows.Row) -> bool:
        # The connection may have been lost between the commit and its answer: the stamp tells our own
        # step from the same step made by another worker, which would be a second payment.
        batch, key, version, *_, stamp = line
        cursor.execute(self.sql.stamp, (batch, key, version))
        found = cursor.fetchone()
        return found is not None and found[0] == stamp

    def add(self, records: Sequence[Record]) -> None:
        """Insert the records durably, all or none; those that are there exactly as given stay.

        Raises `Conflict` for a key that is there with other content.
        """
        new = [(self.batch, *rows.fixed(record), *rows.moving(record)) for record in records]
        try:
            self.write(lambda cursor: cursor.executemany(self.sql.add, new))
        except (UnicodeEncodeError, self.unstorable):
            self.write(lambda cursor: cursor.executemany(self.sql.add, map(rows.cleaned, new)))
        except self.duplicate as error:
            missing = [record for record in records if not self._there(record, error)]
            if len(missing) == len(records):
                raise
            if missing:
                self.add(missing)

    def _there(self, record: Record, error: Exception) -> bool:
        found = self.get(record.key)
        if found is not None and found != record:
            raise Conflict(record.key) from error
        return found is not None

    def place(self, positions: Mapping[str, int], lines: Mapping[str, int]) -> None:
        """Set where rows stand in the manifest, durably; -1 for a row that was removed from it."""
        moved = [(at, self.batch, key) for key, at in positions.items() if key not in lines]
        relined = [(at, lines[key], self.batch, key) for key, at in positions.items() if key in lines]

        def work(cursor: Cursor) -> None:
            if moved:
                cursor.executemany(self.sql.place, moved)
            if relined:
                cursor.executemany(self.sql.place_line, relined)

        self.write(work)

    def fact_set(self, name: str, value: str) -> None:
        """Keep a small fact about the batch, durably."""
        self.write(lambda cursor: cursor.execute(self.sql.fact_set, (self.batch, name, value)))

    def fact_get(self, name: str) -> str | None:
        row = self._read(lambda cursor: self._one(cursor, self.sql.fact_get, self.batch, name))
        return None if row is None else str(row[0])

    def load(self) -> list[Record]:
        """Return all records, by position, then key."""

        def work(cursor: Cursor) -> list[Record]:
            with self.streaming(cursor) as stream:
                stream.execute(self.sql.load, (self.batch,))
                pieces = iter(lambda: stream.fetchmany(_FETCHED_AT_ONCE), [])
                return list(rows.read(itertools.chain.from_iterable(pieces)))

        return self._read(work)

    def get(self, key: str) -> Record | None:
        row = self._read(lambda cursor: self._one(cursor, self.sql.get, self.batch, key))
        return None if row is None else next(rows.read([row]))

    def history(self, key: str) -> list[rows.Step]:
        """Return the job's steps, oldest first."""

        def work(cursor: Cursor) -> list[Any]:
            cursor.execute(self.sql.history, (self.batch, key))
            return cursor.fetchall()

        return [rows.read_step(key, row) for row in self._read(work)]

    def counts(self, *, removed: bool) -> dict[State, int]:
        """Count the jobs in each state: those in the manifest, or those removed from it."""
        low, high = (-1, -1) if removed else (0, _FARTHEST)

        def work(cursor: Cursor) -> list[Any]:
            cursor.execute(self.sql.counts, (self.batch, low, high))
            return cursor.fetchall()

        return {State(state): count for state, count in self._read(work)}

    def _one(self, cursor: Cursor, sql: str, *row: object) -> Any:
        cursor.execute(sql, row)
        return cursor.fetchone()

    def write(self, work: Callable[[Cursor], _T]) -> _T:
        """Do `work` in one durable transaction, again after a lost connection."""
        return self._again_until(lambda: self._transact(work), reading=False)

    def _read(self, work: Callable[[Cursor], _T]) -> _T:
        with self._reading:
            return self._again_until(lambda: work(self.cursor(reading=True)), reading=True)

    def _again_until(self, work: Callable[[], _T], *, reading: bool) -> _T:
        while True:
            try:
                return work()
            except (self.unstorable, self.duplicate):
                raise
            except self.driver_error as error:
                if not self.survives(error, reading=reading):
                    raise self.trouble(error) from error

    def _transact(self, work: Callable[[Cursor], _T]) -> _T:
        cursor = self.cursor(reading=False)
        cursor.execute(self.begin)
        try:
            result = work(cursor)
            cursor.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise
        return result

    @abstractmethod
    def roll_back(self) -> None:
        """Undo what is open on the connection that writes, if it still is and if anything is open."""


def new_identity() -> str:
    """Return a random name of ten lower-case letters and digits."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(10))


def refuse_newer(where: str, found: int) -> None:
    """Raise `LedgerTrouble` when the ledger `where` is of a later version than this program knows."""
    if found > VERSION:
        raise LedgerTrouble(
            f"{where}: this ledger was written by a newer veobatch (ledger version {found}, this one knows "
            f"up to {VERSION}): install that veobatch, or a later one; nothing was changed"
        )
