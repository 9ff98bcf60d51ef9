"""What the SQLite and the PostgreSQL ledger share: each durable operation, on a driver's connection.

Synchronous: the writer's thread calls the operations that write, a worker thread those that read. It
must not know asyncio, files, or how a connection comes about.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

from pipeline import clocks
from pipeline.errors import Conflict, GenerationTaken, VeobatchError
from pipeline.ledger import rows, spending
from pipeline.ledger.compiled_statements import SCHEMA_VERSION, SPENDING_VERSION
from pipeline.ledger.generation_owners import claim_generations
from pipeline.ledger.totals import Spending, totals_of
from pipeline.model import Pick, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pipeline.ledger.compiled_statements import Statements
    from pipeline.ledger.rows import PreparedUpdate
    from pipeline.ledger.spending import Submission
    from pipeline.ledger.totals import Totals
    from pipeline.model import Record

_T = TypeVar("_T")

_FETCH_SIZE: Final = 2000
_MAX_POSITION: Final = 2**31 - 1


class Cursor(Protocol):
    """The part of a driver's cursor that is used here."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, sql: str, row: Sequence[Any] = ..., /) -> object: ...
    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object: ...
    def fetchone(self) -> Any: ...
    def fetchmany(self, size: int, /) -> list[Any]: ...
    def fetchall(self) -> list[Any]: ...


class _VersionConflict(Exception):
    """Somebody else was first with at least one transition of a group."""


class LedgerBackend(ABC):
    """One batch in one database."""

    begin_sql: ClassVar[str]
    driver_error: ClassVar[type[Exception]]
    data_error: ClassVar[type[Exception]]
    integrity_error: ClassVar[type[Exception]]

    identity: str

    def __init__(self, batch: str, sql: Statements) -> None:
        self.batch = batch
        self.sql = sql
        self.version = SCHEMA_VERSION
        self._stamps = itertools.count(clocks.new_random().getrandbits(62))
        self._read_lock = threading.Lock()

    @abstractmethod
    def cursor(self, *, reading: bool) -> Cursor:
        """Return a cursor of the connection that writes, or of the one that reads."""

    def stream_cursor(self, cursor: Cursor) -> AbstractContextManager[Cursor]:
        """Return a cursor that streams the rows of a large read, where the driver would hold them all."""
        return nullcontext(cursor)

    def should_retry(self, error: Exception, *, reading: bool) -> bool:
        """Return whether the connection was lost and is back, so that the same work may be done again."""
        return False

    @abstractmethod
    def translate_error(self, error: Exception) -> VeobatchError:
        """Return the error to show the user; it must not contain a password."""

    def stop_reconnecting(self) -> None:  # noqa: B027  # a file is never waited for that long
        """Stop waiting for a lost connection: calls that wait for it raise `LedgerError`."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def apply(self, updates: Sequence[PreparedUpdate]) -> list[Record | Conflict]:
        """Make the transitions in one durable transaction; one whose record has changed is a `Conflict`.

        Raises `StoreError` when the disk is full, `LedgerError` for anything else; then nothing was written.
        """
        at = clocks.wall()
        # Stamped once, before any retry: `_already_committed` finds a commit whose answer was lost.
        history_rows = [(self.batch, *update.history_row, at, next(self._stamps)) for update in updates]
        try:
            self.write(lambda cursor: self._apply_all(cursor, updates, history_rows))
        except (_VersionConflict, UnicodeEncodeError, self.data_error):
            return self.write(lambda cursor: self._apply_each(cursor, updates, history_rows))
        return [update.after for update in updates]

    def _apply_all(
        self, cursor: Cursor, updates: Sequence[PreparedUpdate], history_rows: Sequence[rows.Row]
    ) -> None:
        for sql, group in itertools.groupby(updates, key=lambda update: update.sql):
            batch = [update.params for update in group]
            cursor.executemany(sql, batch)
            # One lost its compare-and-set: all are rolled back, and each is tried by itself.
            if cursor.rowcount != len(batch):
                raise _VersionConflict
        if not claim_generations(cursor, self.sql, self.batch, [update.claim for update in updates]):
            raise _VersionConflict
        cursor.executemany(self.sql.history_add, history_rows)
        entries = [(self.batch, *update.entry) for update in updates if update.entry is not None]
        if entries:
            cursor.executemany(self.sql.submission_put, entries)

    def _put_entries(self, cursor: Cursor, entries: Iterable[Submission]) -> None:
        for entry in entries:
            cursor.execute(self.sql.submission_put, rows.sanitized((self.batch, *spending.to_row(entry))))

    def _apply_each(
        self, cursor: Cursor, updates: Sequence[PreparedUpdate], history_rows: Sequence[rows.Row]
    ) -> list[Record | Conflict]:
        outcomes: list[Record | Conflict] = []
        for update, history_row in zip(updates, history_rows, strict=True):
            if not claim_generations(cursor, self.sql, self.batch, [update.claim]):
                outcomes.append(GenerationTaken(update.after.key, update.claim[0]))
                continue
            cursor.execute(update.sql, rows.sanitized(update.params))
            updated = cursor.rowcount == 1
            if updated:
                cursor.execute(self.sql.history_add, history_row)
                if update.entry is not None:
                    cursor.execute(self.sql.submission_put, rows.sanitized((self.batch, *update.entry)))
            committed = updated or self._already_committed(cursor, history_row)
            outcomes.append(update.after if committed else Conflict(update.after.key))
        return outcomes

    def _already_committed(self, cursor: Cursor, history_row: rows.Row) -> bool:
        # The connection may have been lost between the commit and its answer: the stamp tells our own
        # transition from the same transition made by another worker, which would be a second payment.
        batch, key, version, *_, stamp = history_row
        cursor.execute(self.sql.stamp_get, (batch, key, version))
        found = cursor.fetchone()
        return found is not None and found[0] == stamp

    def add(self, records: Sequence[Record]) -> None:
        """Insert the records durably, all or none; those that are there exactly as given stay.

        Raises `Conflict` for a key that is there with other content.
        """
        new = [(self.batch, *rows.job_values(record), *rows.state_values(record)) for record in records]
        try:
            self.write(lambda cursor: self._add_all(cursor, new, records))
        except (UnicodeEncodeError, self.data_error):
            self.write(lambda cursor: self._add_all(cursor, map(rows.sanitized, new), records))
        except self.integrity_error as error:
            missing = [record for record in records if not self._is_stored(record, error)]
            if len(missing) == len(records):
                raise
            if missing:
                self.add(missing)

    def _add_all(self, cursor: Cursor, new: Iterable[rows.Row], records: Sequence[Record]) -> None:
        cursor.executemany(self.sql.record_add, new)
        claim_generations(cursor, self.sql, self.batch, [(r.generation_id, r.key, 0) for r in records])
        self._put_entries(cursor, [entry for record in records for entry in spending.entries_of(record)])

    def _is_stored(self, record: Record, error: Exception) -> bool:
        found = self.get(record.key)
        if found is not None and found != record:
            raise Conflict(record.key) from error
        return found is not None

    def set_positions(self, positions: Mapping[str, int], lines: Mapping[str, int]) -> None:
        """Set where rows stand in the manifest, durably; -1 for a row that was removed from it."""
        moved = [(at, self.batch, key) for key, at in positions.items() if key not in lines]
        moved_lines = [(at, lines[key], self.batch, key) for key, at in positions.items() if key in lines]

        def work(cursor: Cursor) -> None:
            for sql, params in (
                (self.sql.position_set, moved),
                (self.sql.position_and_line_set, moved_lines),
            ):
                if params:
                    cursor.executemany(sql, params)

        self.write(work)

    def set_picks(self, picks: Mapping[str, Pick]) -> None:
        """Store the reviewer's picks by the takes' keys, durably."""
        params = [rows.sanitized((pick, note, self.batch, key)) for key, (pick, note) in picks.items()]
        self.write(lambda cursor: cursor.executemany(self.sql.pick_set, params))

    def picks(self) -> dict[str, Pick]:
        """Return the picks by the takes' keys; takes without one are missing."""
        return {key: Pick(pick, note) for key, pick, note in self._fetch_all(self.sql.picks)}

    def meta_set(self, name: str, value: str) -> None:
        """Store a small fact about the batch, durably."""
        self.write(lambda cursor: cursor.execute(self.sql.meta_set, (self.batch, name, value)))

    def meta_get(self, name: str) -> str | None:
        row = self._fetch_one(self.sql.meta_get, name)
        return None if row is None else str(row[0])

    def load(self) -> list[Record]:
        """Return all records, by position, then key."""

        def work(cursor: Cursor) -> list[Record]:
            with self.stream_cursor(cursor) as stream:
                stream.execute(self.sql.load, (self.batch,))
                chunks = iter(lambda: stream.fetchmany(_FETCH_SIZE), [])
                return rows.in_order(rows.to_records(itertools.chain.from_iterable(chunks)))

        records = self._read(work)
        return records if self.version >= SPENDING_VERSION else list(map(spending.upgraded, records))

    def get(self, key: str) -> Record | None:
        row = self._fetch_one(self.sql.get, key)
        if row is None:
            return None
        record = next(rows.to_records([row]))
        return record if self.version >= SPENDING_VERSION else spending.upgraded(record)

    def submissions(self) -> list[Submission]:
        """Return an entry for each submission, oldest first."""
        if self.version < SPENDING_VERSION:
            return [entry for record in self.load() for entry in spending.entries_of(record)]
        return [spending.from_row(row) for row in self._fetch_all(self.sql.submissions)]

    def totals(self) -> Totals:
        """Add up all entries, without reading each."""
        if self.version < SPENDING_VERSION:
            return Spending(self.submissions()).totals()
        shared = [spending.from_row(row) for row in self._fetch_all(self.sql.shared_generations, self.batch)]
        return totals_of(self._fetch_all(self.sql.money), shared)

    def put_submissions(self, entries: Sequence[Submission]) -> None:
        """Bring entries up to date, durably, with what was learned of their money."""
        self.write(lambda cursor: self._put_entries(cursor, entries))

    def counts(self, *, removed: bool) -> dict[State, int]:
        """Count the jobs in each state: those in the manifest, or those removed from it."""
        low, high = (-1, -1) if removed else (0, _MAX_POSITION)
        return {State(state): count for state, count in self._fetch_all(self.sql.counts, low, high)}

    def _fetch_all(self, sql: str, *params: object) -> list[Any]:
        """Return the rows that `sql` finds for this batch and `params`."""

        def work(cursor: Cursor) -> list[Any]:
            cursor.execute(sql, (self.batch, *params))
            return cursor.fetchall()

        return self._read(work)

    def _fetch_one(self, sql: str, *params: object) -> Any:
        return next(iter(self._fetch_all(sql, *params)), None)

    def write(self, work: Callable[[Cursor], _T]) -> _T:
        """Do `work` in one durable transaction, again after a lost connection."""
        return self._with_retries(lambda: self._transact(work), reading=False)

    def _read(self, work: Callable[[Cursor], _T]) -> _T:
        with self._read_lock:
            return self._with_retries(lambda: work(self.cursor(reading=True)), reading=True)

    def _with_retries(self, work: Callable[[], _T], *, reading: bool) -> _T:
        while True:
            try:
                return work()
            except (self.data_error, self.integrity_error):
                raise
            except self.driver_error as error:
                if not self.should_retry(error, reading=reading):
                    raise self.translate_error(error) from error

    def _transact(self, work: Callable[[Cursor], _T]) -> _T:
        cursor = self.cursor(reading=False)
        cursor.execute(self.begin_sql)
        try:
            result = work(cursor)
            cursor.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise
        return result

    @abstractmethod
    def roll_back(self) -> None:
        """Roll back the open transaction of the connection that writes, if there is one."""
