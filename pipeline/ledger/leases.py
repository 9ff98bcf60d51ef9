"""Leases: which worker has which row, and the number by which a row's transitions are fenced.

An *epoch* is the time in which one coordinator leases out a batch's rows; a new one ends all leases of the
one before. A row's lease number grows with each claim and each revocation, so that a transition made under
an old one never fits again. Synchronous, called by the writer's thread; it must not know why a worker has
gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from pipeline.errors import LedgerError
from pipeline.ledger import rows
from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.ledger.backend import Cursor, LedgerBackend
    from pipeline.model import Record

_T = TypeVar("_T")

EPOCH_NAME: Final = "epoch"
UNFINISHED_OWNER: Final = "(left)"
"""The owner of rows that this epoch leases to nobody: they wait for the next epoch."""

IN_FLIGHT_STATES: Final = frozenset({State.SUBMITTING, State.IN_DOUBT, State.GENERATING})
"""States in which a row takes one of the account's slots, or may."""


TERMINAL_STATES: Final = frozenset({State.DONE, State.FAILED})


class LeasedRow(NamedTuple):
    """A leased row, and the number by which its transitions are fenced."""

    record: Record
    lease: int


class RevokedLeases(NamedTuple):
    """What a worker had: the keys of its rows in flight; whether any row of its can go to others."""

    in_flight: frozenset[str]
    rows_freed: bool


class Superseded(LedgerError):
    """A later epoch has begun: the coordinator of this one must stop."""


class LeaseTable:
    """The leases of one batch."""

    def __init__(self, backend: LedgerBackend) -> None:
        self._backend = backend
        self._sql = backend.sql

    def begin_epoch(self) -> tuple[int, frozenset[str]]:
        """Begin an epoch and end all leases; return its number and the keys of all rows in flight."""
        batch = self._backend.batch

        def work(cursor: Cursor) -> tuple[int, frozenset[str]]:
            cursor.execute(self._sql.epoch_next, (batch, EPOCH_NAME, "1"))
            number = int(cursor.fetchall()[0][0])
            cursor.execute(self._sql.revoke_all, (batch,))
            cursor.execute(self._sql.unleased_in_flight, (batch,))
            return number, frozenset(row[0] for row in cursor.fetchall())

        return self._backend.write(work)

    def claim(self, epoch: int, worker: str, limit: int) -> list[LeasedRow]:
        """Lease up to `limit` free rows to `worker`, those under way first. Raises `Superseded`."""
        batch = self._backend.batch
        leased: list[LeasedRow] = []

        def work(cursor: Cursor) -> None:
            # A retry after a lost connection must not claim a second set of rows.
            if leased and self._already_applied(cursor, leased[0].record.key, leased[0].lease, worker):
                return
            cursor.execute(self._sql.claim, (batch, limit, worker, batch))
            found = cursor.fetchall()
            records = rows.to_records(row[:-1] for row in found)
            leased[:] = [LeasedRow(record, row[-1]) for record, row in zip(records, found, strict=True)]

        self._write_in_epoch(epoch, work)
        return sorted(leased, key=lambda leased: leased.record.position)

    def revoke(self, epoch: int, worker: str, unfinished: Iterable[str] = ()) -> RevokedLeases:
        """End all leases of `worker`. Raises `Superseded`.

        Those of its rows that are `unfinished` are leased to nobody in this epoch, and are not in the result.
        """
        batch, unfinished_keys = self._backend.batch, frozenset(unfinished)
        revoked: list[tuple[str, str, int]] = []

        def work(cursor: Cursor) -> None:
            # A retry after a lost connection would find nothing left to revoke, and lose the answer.
            if revoked and self._already_applied(
                cursor,
                revoked[0][0],
                revoked[0][2],
                UNFINISHED_OWNER if revoked[0][0] in unfinished_keys else None,
            ):
                return
            cursor.execute(self._sql.revoke, (batch, worker))
            revoked[:] = cursor.fetchall()
            cursor.executemany(
                self._sql.worker_set, [(UNFINISHED_OWNER, batch, key) for key in unfinished_keys]
            )

        self._write_in_epoch(epoch, work)
        states = {key: State(state) for key, state, _ in revoked if key not in unfinished_keys}
        in_flight = frozenset(key for key, state in states.items() if state in IN_FLIGHT_STATES)
        return RevokedLeases(in_flight, any(state not in TERMINAL_STATES for state in states.values()))

    def release(self, epoch: int, keys: Iterable[str]) -> None:
        """Free rows that were claimed and never handed to a worker. Raises `Superseded`."""
        batch = self._backend.batch
        self._write_in_epoch(
            epoch,
            lambda cursor: cursor.executemany(self._sql.worker_set, [(None, batch, key) for key in keys]),
        )

    def _write_in_epoch(self, epoch: int, work: Callable[[Cursor], _T]) -> _T:
        def checked(cursor: Cursor) -> _T:
            if self._current_epoch(cursor) != epoch:
                raise Superseded("another driver has taken over the batch")
            return work(cursor)

        return self._backend.write(checked)

    def _already_applied(self, cursor: Cursor, key: str, lease: int, worker: str | None) -> bool:
        """Return whether an earlier attempt of this call was committed, though no answer came.

        One row stands for all of the transaction, and nobody else leases in this epoch.
        """
        cursor.execute(self._sql.lease_get, (self._backend.batch, key))
        row = cursor.fetchone()
        return row is not None and tuple(row) == (lease, worker)

    def _current_epoch(self, cursor: Cursor) -> int:
        cursor.execute(self._sql.epoch_get, (self._backend.batch, EPOCH_NAME))
        row = cursor.fetchone()
        return 0 if row is None else int(row[0])
