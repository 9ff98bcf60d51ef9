"""`Ledger`, what the rest of the program sees: asynchronous, durable, one batch.

It owns the check of each transition against `LEGAL_TRANSITIONS` and the crossing between the event loop and
the threads. It must not know which database is behind it.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import anyio
from anyio import to_thread

from pipeline.errors import Conflict, LedgerError, UsageError
from pipeline.ledger import rows
from pipeline.ledger.spending import spending_change, to_row
from pipeline.model import LEGAL_TRANSITIONS, IllegalTransition, State, Transition

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.ledger.backend import LedgerBackend
    from pipeline.ledger.leases import LeasedRow, LeaseTable, RevokedLeases
    from pipeline.ledger.spending import Submission
    from pipeline.ledger.totals import Totals
    from pipeline.ledger.writer import GroupCommitWriter
    from pipeline.model import Pick, Record

_T = TypeVar("_T")

NO_LEASE: Final = -1
"""A number that no row's lease ever has."""


class Ledger:
    """The records of one batch. Use it in the event loop that opened it; close it, or use `async with`.

    A call that writes returns once the change is on the disk. It writes even when its caller is cancelled.
    `identity` is random, made with the batch, of `[a-z0-9]{10}`.

    Any call may raise `StoreError` when the disk is full and `LedgerError` when anything else is
    wrong with the ledger; nothing was written then, and a later call may succeed.
    """

    def __init__(self, backend: LedgerBackend, writer: GroupCommitWriter | None) -> None:
        self._backend = backend
        self._writer = writer
        self._leases: dict[str, int] | None = None
        self.identity = backend.identity

    @classmethod
    async def open(
        cls,
        location: str | Path,
        *,
        batch: str = "default",
        read_only: bool = False,
        exclusive: bool = False,
        on_pause: Callable[[str], None] | None = None,
        new_as: str | None = None,
    ) -> Self:
        """Open the ledger, made first if it is missing, unless it is opened `read_only`.

        `location` is a path, `sqlite:///path` or `postgresql://user:password@host/database`. `on_pause` is
        called, in the event loop, with a message for the user when a lost database connection makes the
        ledger wait, and again when it goes on: nothing fails in between. `exclusive` keeps every other
        that asks for it out of a batch in a database; a file is held by whoever holds its folder.
        A batch without rows takes over the identity `new_as`.

        Raises `BatchLocked` when another one has the batch; `LedgerError` when the
        ledger is missing, damaged, none of ours, from a newer version, or cannot be opened;
        `StoreError` when the disk is full; `UsageError` for a kind of database that is not known, or
        whose driver is not installed.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        notify = partial(_notify_loop, loop, on_pause or (lambda _: None))
        backend = await to_thread.run_sync(
            partial(_open_backend, location, batch, read_only, exclusive, notify, new_as)
        )
        return cls(backend, None if read_only else _start_writer(backend, loop))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def load(self) -> list[Record]:
        """Return all records of the batch, by position, then key."""
        return await self._read(self._backend.load)

    async def get(self, key: str) -> Record | None:
        """Return the record as it is now, or None when there is none."""
        return await self._read(partial(self._backend.get, key))

    async def submissions(self) -> list[Submission]:
        """Return what was spent: an entry for every submission ever made, oldest first."""
        return await self._read(self._backend.submissions)

    async def totals(self) -> Totals:
        """Return what all submissions cost together."""
        return await self._read(self._backend.totals)

    async def put_submissions(self, entries: Sequence[Submission]) -> None:
        """Bring entries up to date with what was learned of their money.

        What is known stays known: None and "" change nothing, and what is spent stays spent.
        """
        await self._write(partial(self._backend.put_submissions, entries))

    async def counts(self, *, removed: bool = False) -> dict[State, int]:
        """Count the jobs in each state: those of the manifest, or those `removed` from it."""
        return await self._read(partial(self._backend.counts, removed=removed))

    async def meta_get(self, name: str) -> str | None:
        """Return a small fact about the batch, or None when it was never set."""
        return await self._read(partial(self._backend.meta_get, name))

    async def meta_set(self, name: str, value: str) -> None:
        """Store a small fact about the batch."""
        await self._write(partial(self._backend.meta_set, name, value))

    async def add(self, records: Sequence[Record]) -> None:
        """Insert new records, all or none. Raises `Conflict` for a key that is there with other content."""
        await self._write(partial(self._backend.add, records))

    async def set_positions(
        self, positions: Mapping[str, int], lines: Mapping[str, int] | None = None
    ) -> None:
        """Set the position, and the line where given, of rows after the manifest has changed.

        -1 stands for a row that was removed from it. No transition: versions stay as they are.
        """
        await self._write(partial(self._backend.set_positions, positions, lines or {}))

    async def set_picks(self, picks: Mapping[str, Pick]) -> None:
        """Store the reviewer's picks by the takes' keys. No transition: versions stay as they are."""
        await self._write(partial(self._backend.set_picks, picks))

    async def picks(self) -> dict[str, Pick]:
        """Return the picks by the takes' keys; takes without one are missing."""
        return await self._read(self._backend.picks)

    async def commit(self, before: Record, after: Record) -> Record:
        """Make one transition, if the version and state on disk are still those of `before`; return `after`.

        Position and line are not written: only `set_positions` changes them.
        Raises `Conflict` when someone else has changed it, its subclass `GenerationTaken` when the generation
        that it names is another create's, `IllegalTransition` for a transition that is not allowed and
        `ValueError` for one that is not from one version of a record to its next.
        """
        [outcome] = await self._require_writer().commit([self._prepare(before, after)])
        if isinstance(outcome, Conflict):
            raise outcome
        return after

    async def commit_many(self, transitions: Sequence[Transition]) -> list[Record | Conflict]:
        """Make many transitions in one transaction, each judged on its own; return an outcome for each.

        Raises as `commit` does, `Conflict` excepted; then none was made.
        """
        writer = self._require_writer()
        return await writer.commit([self._prepare(one.before, one.after) for one in transitions])

    def set_shutdown_deadline(self, within_s: float) -> None:
        """Give an unreachable database `within_s` seconds; calls that still wait then raise `LedgerError`."""
        import asyncio

        asyncio.get_running_loop().call_later(within_s, self._backend.stop_reconnecting)

    def fence(self, leases: dict[str, int]) -> None:
        """From now on commit only transitions of rows in `leases`, under the lease numbers given there.

        Any other transition is a `Conflict`. The mapping may change later. A lease ends when its row is done.
        """
        self._leases = leases

    async def begin_epoch(self) -> tuple[int, frozenset[str]]:
        """Begin an epoch of leases; return its number and the keys of all rows in flight.

        All earlier leases end, and the coordinator of an earlier epoch gets `Superseded` from now on.
        """
        return await self._write(self._lease_table().begin_epoch)

    async def claim(self, epoch: int, worker: str, limit: int) -> list[LeasedRow]:
        """Lease up to `limit` free rows to `worker`. Raises `Superseded`."""
        return await self._write(partial(self._lease_table().claim, epoch, worker, limit))

    async def revoke(self, epoch: int, worker: str, unfinished: Sequence[str] = ()) -> RevokedLeases:
        """End all leases of `worker`, which can commit nothing from then on; return what it had.

        Rows that are `unfinished` are leased to nobody else in this epoch. Raises `Superseded`.
        """
        return await self._write(partial(self._lease_table().revoke, epoch, worker, unfinished))

    async def release(self, epoch: int, keys: Sequence[str]) -> None:
        """Free rows that were claimed and never handed to a worker. Raises `Superseded`."""
        await self._write(partial(self._lease_table().release, epoch, keys))

    def _lease_table(self) -> LeaseTable:
        from pipeline.ledger.leases import LeaseTable

        return LeaseTable(self._backend)

    async def close(self) -> None:
        """Finish what is queued, and close the database. Closing again does nothing."""
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._close)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._backend.close()

    def _prepare(self, before: Record, after: Record) -> rows.PreparedUpdate:
        if after.key != before.key or after.version != before.version + 1:
            # The compare-and-set relies on it: a transition follows the very version it was decided from.
            raise ValueError(
                f"{before.key}: version {after.version} of {after.key} does not follow {before.version}"
            )
        old_state, new_state = before.state, after.state
        if new_state is not old_state and new_state not in LEGAL_TRANSITIONS[old_state]:
            raise IllegalTransition(before.key, old_state, new_state)
        sql = self._backend.sql
        compare_params: rows.Row = (self._backend.batch, before.key, before.version, old_state.value)
        state_sql, full_sql = sql.record_update, sql.record_update_content
        if self._leases is not None:
            ends_lease = int(new_state is State.DONE)
            # Without a lease the number is `NO_LEASE`, which no row has: the transition becomes a conflict.
            compare_params = (ends_lease, ends_lease, *compare_params, self._leases.get(before.key, NO_LEASE))
            state_sql, full_sql = sql.record_update_fenced, sql.record_update_content_fenced
        content_changed = rows.content_values(before) != rows.content_values(after)
        values = rows.state_values(after)
        if content_changed:
            values = rows.content_values(after) + values
        history_row = (after.key, after.version, old_state.value, new_state.value)
        entry = spending_change(before, after)
        entry_row = None if entry is None else to_row(entry)
        update_sql = full_sql if content_changed else state_sql
        claimed = after.generation_id if after.generation_id != before.generation_id else ""
        # Only the answer to a create may name what an earlier one bought: the log goes by correlation ids.
        claim = claimed, after.key, after.submission_no if old_state is State.SUBMITTING else 0
        params = values + compare_params
        return rows.PreparedUpdate(after, update_sql, params, history_row, entry_row, claim)

    async def _read(self, work: Callable[[], _T]) -> _T:
        return await to_thread.run_sync(work)

    async def _write(self, work: Callable[[], _T]) -> _T:
        result: _T = await self._require_writer().run(work)
        return result

    def _require_writer(self) -> GroupCommitWriter:
        if self._writer is None:
            raise LedgerError("the ledger was opened for reading only")
        return self._writer


def _notify_loop(loop: asyncio.AbstractEventLoop, on_pause: Callable[[str], None], message: str) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and its callers with it
        loop.call_soon_threadsafe(on_pause, message)


def _start_writer(backend: LedgerBackend, loop: asyncio.AbstractEventLoop) -> GroupCommitWriter:
    from pipeline.ledger.writer import GroupCommitWriter

    return GroupCommitWriter(backend, loop)


def _open_backend(
    location: str | Path,
    batch: str,
    read_only: bool,
    exclusive: bool,
    on_pause: Callable[[str], None],
    new_as: str | None,
) -> LedgerBackend:
    text = str(location)
    if text.startswith(("postgresql:", "postgresql+psycopg:", "postgres:")):
        from pipeline.ledger.postgres import PostgresBackend

        return PostgresBackend(
            text, batch, read_only=read_only, exclusive=exclusive, on_pause=on_pause, new_as=new_as
        )
    path = text.removeprefix("sqlite:///")
    if "://" in path:  # not the whole of it in our message: it may hold a password
        scheme = path.partition(":")[0]
        raise UsageError(f"a ledger is a path, sqlite:///path or postgresql://..., not {scheme}://...")
    from pipeline.ledger.sqlite import SqliteBackend

    return SqliteBackend(Path(path), batch, read_only=read_only, new_as=new_as)
