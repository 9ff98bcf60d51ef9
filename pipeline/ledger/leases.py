"""Leases: which worker has which row, and the number by which a row's steps are fenced.

An *epoch* is the reign of one lender of rows over a batch; a new one ends all that the one before it lent. A
row's lease number grows with each claim and each revocation, so that a step made under an old one never
fits again. Synchronous, called by the writer's thread; it must not know why a worker is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from pipeline.errors import LedgerTrouble
from pipeline.ledger import rows
from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.ledger.backend import Cursor, Store
    from pipeline.model import Record

_T = TypeVar("_T")

EPOCH: Final = "epoch"
LEFT: Final = "(left)"
"""Who has the rows that an epoch leaves to the next one."""

IN_FLIGHT: Final = frozenset({State.SUBMITTING, State.IN_DOUBT, State.GENERATING})
"""States in which a row takes one of the account's slots, or may."""


ENDED: Final = frozenset({State.DONE, State.FAILED})


class Leased(NamedTuple):
    """A row that was lent, and the number that its steps are fenced by."""

    record: Record
    lease: int


class Revoked(NamedTuple):
    """What a worker had: the keys of its rows in flight; whether others can go on with any row."""

    in_flight: frozenset[str]
    freed: bool


class Superseded(LedgerTrouble):
    """A later epoch has begun: whoever lent rows before must stop."""


class Leases:
    """The leases of one batch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sql = store.sql

    def begin(self) -> tuple[int, frozenset[str]]:
        """Begin an epoch; return its number and the keys of all rows in flight. No lease of before holds."""
        batch = self._store.batch

        def work(cursor: Cursor) -> tuple[int, frozenset[str]]:
            cursor.execute(self._sql.epoch_next, (batch, EPOCH, "1"))
            number = int(cursor.fetchall()[0][0])
            cursor.execute(self._sql.revoke_all, (batch,))
            cursor.execute(self._sql.in_flight, (batch,))
            return number, frozenset(row[0] for row in cursor.fetchall())

        return self._store.write(work)

    def claim(self, epoch: int, worker: str, most: int) -> list[Leased]:
        """Lend up to `most` rows that nobody has to `worker`: those under way first. Raises `Superseded`."""
        batch = self._store.batch
        lent: list[Leased] = []

        def work(cursor: Cursor) -> None:
            if lent and self._stands(cursor, lent[0].record.key, lent[0].lease, worker):
                return
            cursor.execute(self._sql.claim, (batch, most, worker, batch))
            found = cursor.fetchall()
            records = rows.read(row[:-1] for row in found)
            lent[:] = [Leased(record, row[-1]) for record, row in zip(records, found, strict=True)]

        self._in(epoch, work)
        return sorted(lent, key=lambda leased: leased.record.position)

    def revoke(self, epoch: int, worker: str, left: Iterable[str] = ()) -> Revoked:
        """End all leases of `worker`. Raises `Superseded`.

        Those of its rows that are `left` are lent to nobody in this epoch, and are not in the answer.
        """
        batch, kept = self._store.batch, frozenset(left)
        had: list[tuple[str, str, int]] = []

        def work(cursor: Cursor) -> None:
            if had and self._stands(cursor, had[0][0], had[0][2], LEFT if had[0][0] in kept else None):
                return
            cursor.execute(self._sql.revoke, (batch, worker))
            had[:] = cursor.fetchall()
            cursor.executemany(self._sql.leave, [(LEFT, batch, key) for key in kept])

        self._in(epoch, work)
        states = {key: State(state) for key, state, _ in had if key not in kept}
        flying = frozenset(key for key, state in states.items() if state in IN_FLIGHT)
        return Revoked(flying, any(state not in ENDED for state in states.values()))

    def give_back(self, epoch: int, keys: Iterable[str]) -> None:
        """Let rows that were claimed, and told to no worker, be claimed again. Raises `Superseded`."""
        batch = self._store.batch
        self._in(
            epoch, lambda cursor: cursor.executemany(self._sql.leave, [(None, batch, key) for key in keys])
        )

    def _in(self, epoch: int, work: Callable[[Cursor], _T]) -> _T:
        def checked(cursor: Cursor) -> _T:
            if self._epoch(cursor) != epoch:
                raise Superseded("another driver has taken over the batch")
            return work(cursor)

        return self._store.write(checked)

    def _stands(self, cursor: Cursor, key: str, lease: int, worker: str | None) -> bool:
        """Say whether what this call changed in an earlier attempt was committed, though no answer came.

        One row tells for all of a transaction, and nobody else lends in this epoch.
        """
        cursor.execute(self._sql.lent, (self._store.batch, key))
        row = cursor.fetchone()
        return row is not None and tuple(row) == (lease, worker)

    def _epoch(self, cursor: Cursor) -> int:
        cursor.execute(self._sql.epoch_get, (self._store.batch, EPOCH))
        row = cursor.fetchone()
        return 0 if row is None else int(row[0])
