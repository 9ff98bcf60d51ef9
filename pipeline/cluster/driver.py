"""The driver: starts the account and the workers, replaces who is lost, and shows the run from the ledger.

To the command it looks like an `Engine`. It decides nothing about a row: it may die at any moment, and the
next one begins a new epoch over the same ledger.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread

from pipeline.cluster import ray_backend
from pipeline.cluster.messages import AccountLost
from pipeline.errors import LedgerTrouble, StopReason, StopRun
from pipeline.events import Event, Level, Topic
from pipeline.ledger.leases import IN_FLIGHT
from pipeline.model import State
from pipeline.run_state import Board

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anyio.abc import TaskGroup

    from pipeline.cluster.messages import ClusterJob, Standing
    from pipeline.cluster.ray_backend import RayLine
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.run_state import Outcome

BEAT_S: Final = 0.25
SHARE: Final = 50.0
REREAD_S: Final = 60.0
"""Rows are shown as workers report them. The whole ledger is read again after a death, and then every
minute at most, taking up to a fiftieth of the driver's time."""

DEATHS: Final = 10
"""How often each process may end, on the average, while no row moves, before the run gives up."""

IDLE_S: Final = 10.0
"""How long nobody may be at work before a look at what is in the way."""

PARTING_S: Final = 5.0
"""How long workers that were told to stop at once may take for it."""


class Cluster:
    """One run of a batch on many machines. Not to be used twice."""

    def __init__(
        self,
        records: Sequence[Record],
        job: ClusterJob,
        ledger: Ledger,
        epoch: tuple[int, frozenset[str]],
        observer: Observer,
        *,
        address: str | None,
    ) -> None:
        """`epoch` is what the ledger answered when it began; `address` is Ray's, None to start it here."""
        self._records = {record.key: record for record in records}
        self._job, self._ledger, self._observer = job, ledger, observer
        self._epoch, flying = epoch
        # The plan, made since, may have taken rows in doubt out of their slots.
        self._orphans = frozenset(key for key in flying if self._records[key].state in IN_FLIGHT)
        self._address = address
        self._account: RayLine | None = None
        self._workers: dict[str, Any] = {}
        self._spawned = self._deaths = 0
        self._lost = ""
        self._stale = False
        self._idle_since = anyio.current_time()
        self._told_idle = False
        self._stopped = ""
        self._held: StopRun | None = None
        self._parting = False
        self._patience = anyio.CancelScope()
        self._trouble: tuple[StopReason, str] | None = None
        self._told_stop = False
        self._seen: Standing | None = None
        self._left: dict[str, str] = {}
        self._overdue: set[str] = set()
        self.learned = dict(job.memory)

    def records(self) -> list[Record]:
        """Return every record as it was when the ledger was last read."""
        return list(self._records.values())

    def stop(self, reason: str, notice: str) -> None:
        """Let all workers submit no more, and finish and save what is paid.

        `reason` is what the outcome will say, `notice` is said now.
        """
        self._stopped = reason
        self._observer.said(Event(Topic.STOPPING, notice, Level.WARNING))
        if self._account is not None:
            self._account.tell("interrupt", reason)

    def hold_back(self, trouble: StopRun) -> None:
        """Submit nothing more, for a trouble that was met here; go on with what is paid."""
        self._held = trouble
        self._say_why(str(trouble))
        if self._account is not None:
            self._account.tell("halt", trouble.reason, str(trouble))

    def abandon(self) -> None:
        """Let all workers stop at once; whoever has not within some seconds is ended.

        A database that is away is waited for no longer than that.
        """
        self._parting = True
        self._patience.deadline = min(self._patience.deadline, anyio.current_time() + PARTING_S)
        self._ledger.hurry(PARTING_S)
        if self._account is not None:
            self._account.tell("interrupt", self._stopped, abandon=True)

    async def run(self) -> Outcome:
        """Do all there is to do; return how it ended."""
        if not self._outcome().open_rows:
            return self._outcome()
        await to_thread.run_sync(partial(ray_backend.start, self._address, self._job.workers))
        try:
            ray_backend.reclaim_signals()
            with self._patience:
                await self._reign()
                while self._lost and await self._succeeded():
                    await self._reign()
            await self._read()
        except StopRun as trouble:
            self._trouble = (trouble.reason, str(trouble))
        finally:
            with anyio.CancelScope(shield=True):
                await self._end_all()
                await to_thread.run_sync(ray_backend.leave)
        return self._outcome()

    async def _reign(self) -> None:
        """Let one account lend all there is to do; `_lost` says afterwards what became of it, if anything."""
        name = f"veobatch-{self._ledger.identity}-{self._epoch}"
        account = self._account = ray_backend.new_account(name, self._job, self._epoch, self._orphans)
        self._lost = ""
        try:
            await account.begin()
            if self._held is not None:
                await account.halt(self._held.reason, str(self._held))
            if self._stopped:
                await account.interrupt(self._stopped)
        except AccountLost as error:
            self._lost = str(error)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._reread)
            await self._oversee(account, tasks)
            tasks.cancel_scope.cancel()

    async def _succeeded(self) -> bool:
        """Make way for another account, which begins with the ledger alone; say whether there may be one."""
        self._deaths += 1
        await self._end_all()
        if self._parting:
            return False
        if self._deaths > DEATHS * self._job.workers:
            self._trouble = (StopReason.UNFINISHED, f"the cluster is lost: {self._lost}")
            return False
        words = f"the account's process is lost ({self._lost}): another goes on from the ledger"
        self._observer.said(Event(Topic.NOTE, words, Level.WARNING))
        self._epoch, self._orphans = await self._ledger.begin_epoch()
        self._left.clear()
        self._overdue.clear()
        return True

    async def _end_all(self) -> None:
        """End every process; from now on there is nobody to be told anything."""
        account, self._account = self._account, None
        workers, self._workers = list(self._workers.values()), {}
        await to_thread.run_sync(ray_backend.end, account, workers)

    async def _oversee(self, account: RayLine, tasks: TaskGroup) -> None:
        """Keep as many workers as were asked for while there are rows that none of them has."""
        try:
            while True:
                standing = await self._listen(account)
                active = self._workers.keys() - standing.lapsed
                if await self._needs_workers(standing):
                    for _ in range(self._job.workers - len(active)):
                        self._spawn(account, tasks)
                elif not standing.working:
                    break
                await self._need_somebody(standing)
                await anyio.sleep(BEAT_S)
            if standing.short is not None:
                self._say_why(standing.short[1])
            self.learned = await account.learned()
            await account.end()
        except AccountLost as error:
            self._lost = str(error)
        except StopRun as trouble:
            self._trouble = (trouble.reason, str(trouble))
            self._say_why(str(trouble))

    async def _needs_workers(self, standing: Standing) -> bool:
        """Say whether there is something to do for another worker; while all stop, only what is paid is.

        The account finds that out by lending, which it cannot as long as no worker has a place.
        """
        if not standing.waiting or self._trouble is not None or self._parting:
            return False
        if standing.stop is None or standing.working:
            return True
        counts = await self._ledger.counts(), await self._ledger.counts(removed=True)
        return any(count.get(state) for count in counts for state in (*IN_FLIGHT, State.READY))

    async def _need_somebody(self, standing: Standing) -> None:
        """While nobody works, look at what keeps workers from it. Raises `StopRun` when there is no Ray."""
        if standing.working:
            self._idle_since = anyio.current_time()
        elif anyio.current_time() > self._idle_since + IDLE_S:
            self._idle_since = anyio.current_time()
            await to_thread.run_sync(ray_backend.need_ray)
            if not self._told_idle and self._address is not None:
                self._told_idle = True
                words = "no worker has begun yet: they wait for a free CPU of the cluster"
                self._observer.said(Event(Topic.WAITING, words, Level.WARNING))

    async def _listen(self, account: RayLine) -> Standing:
        standing = await account.standing()
        for name in standing.lapsed - (self._seen.lapsed if self._seen else frozenset()):
            words = f"worker {name} is silent for {self._job.lease_s:g} s: others go on with its rows"
            self._observer.said(Event(Topic.NOTE, words, Level.WARNING))
            self._stale = True
        self._seen = standing
        self._left.update(standing.left)
        self._overdue |= standing.overdue
        for record in standing.moved:
            self._show(record)
        for event in standing.events:
            self._observer.said(event)
        if standing.stop is not None and standing.stop[0] is not StopReason.INTERRUPTED:
            self._say_why(standing.stop[1])
        return standing

    def _say_why(self, words: str) -> None:
        """Say, once, why nothing more is submitted; interrupts are said as they come."""
        if not self._told_stop:
            self._told_stop = True
            self._observer.said(Event(Topic.STOPPING, words, Level.WARNING))

    def _spawn(self, account: RayLine, tasks: TaskGroup) -> None:
        self._spawned += 1
        name = f"{self._epoch}.{self._spawned}"
        self._workers[name] = ray_backend.new_worker()
        tasks.start_soon(self._tend, account, name)

    async def _tend(self, account: RayLine, name: str) -> None:
        """Wait for a worker's end. One that dies is replaced; what it had is given to others."""
        try:
            trouble = await self._workers[name].live.remote(name, self._job.for_a_worker(), account.actor)
        except ray_backend.lost() as error:
            self._bury(name, error)
            trouble = None
        del self._workers[name]
        self._deaths += 1
        with suppress(AccountLost):
            await account.gone(name)
            if trouble is None and self._deaths > DEATHS * self._job.workers:
                trouble = (StopReason.UNFINISHED, "workers end as fast as they are started")
            if trouble is not None and self._trouble is None:
                self._trouble = trouble
                self._say_why(trouble[1])
                await account.interrupt(trouble[1])

    def _bury(self, name: str, error: Exception) -> None:
        self._stale = True
        words = f"worker {name} is lost ({ray_backend.words(error)}): others go on with its rows"
        self._observer.said(Event(Topic.NOTE, words, Level.WARNING))
        self._observer.said(Event(Topic.NOTE, f"worker {name}: {error}", Level.DEBUG))

    async def _reread(self) -> None:
        """Read the ledger again, where what is shown may have come to differ from it."""
        cost_s, read_at = 0.0, time.monotonic()
        while True:
            await anyio.sleep(max(BEAT_S, SHARE * cost_s))
            began = time.monotonic()
            if self._stale or began > read_at + REREAD_S:
                self._stale = False
                with suppress(LedgerTrouble):  # nothing was lost by not looking
                    await self._read()
                read_at = time.monotonic()
                cost_s = read_at - began

    async def _read(self) -> None:
        for record in await self._ledger.load():
            self._show(record)

    def _show(self, record: Record) -> None:
        known = self._records.get(record.key)
        if known is not None and known.version >= record.version:
            return
        self._records[record.key] = record
        self._deaths = 0
        if known is not None:
            self._observer.moved(known, record)

    def _outcome(self) -> Outcome:
        board = Board(self._records)
        board.doubts = {key for key, row in self._records.items() if row.state is State.IN_DOUBT}
        final = (State.DONE, State.FAILED, State.IN_DOUBT)
        left = self._left.items()
        board.left = {key: why for key, why in left if why and self._records[key].state not in final}
        board.overdue = self._overdue & board.left.keys()
        for why in self._reasons():
            board.halt(*why)
        return board.outcome()

    def _reasons(self) -> Iterator[tuple[StopReason, str]]:
        """Give what kept rows from being submitted; the first counts."""
        if self._trouble is not None and not self._stopped:
            yield self._trouble
        if self._seen is not None and self._seen.stop is not None:
            yield self._seen.stop
        if self._held is not None:
            yield self._held.reason, str(self._held)
        if self._stopped:
            yield StopReason.INTERRUPTED, self._stopped
        if self._seen is not None and self._seen.short is not None:
            yield self._seen.short
