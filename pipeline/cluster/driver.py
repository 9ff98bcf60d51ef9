"""The driver: starts the account and the workers, replaces who is lost, and shows the run from the ledger.

To the command it looks like an `Engine`. It decides nothing about a row: it may die at any moment, and the
next one begins a new epoch over the same ledger.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread

from pipeline.cluster import rays
from pipeline.engine.board import Board
from pipeline.errors import StopReason
from pipeline.events import Event, Level, Topic
from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import TaskGroup

    from pipeline.cluster.job import ClusterJob, Standing
    from pipeline.engine import Outcome
    from pipeline.errors import StopRun
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record

BEAT_S: Final = 0.25
SHARE: Final = 10.0
"""Reading the whole ledger may take a tenth of the driver's time."""

DEATHS: Final = 10
"""How often each worker may die, on the average, while no row moves, before the run gives up."""

PARTING_S: Final = 10.0
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
        self._epoch, self._orphans = epoch
        self._address = address
        self._account: Any = None
        self._workers: dict[str, Any] = {}
        self._spawned = self._deaths = 0
        self._stopped = ""
        self._held: StopRun | None = None
        self._parting_at: float | None = None
        self._trouble: tuple[StopReason, str] | None = None
        self._seen: Standing | None = None
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
            self._account.interrupt.remote(reason)

    def hold_back(self, trouble: StopRun) -> None:
        """Submit nothing, for a trouble that is known before the run begins; go on with what is paid."""
        self._held = trouble
        self._observer.said(Event(Topic.STOPPING, str(trouble), Level.WARNING))

    def abandon(self) -> None:
        """Let all workers stop at once; whoever has not within some seconds is ended."""
        self._parting_at = time.monotonic()
        if self._account is not None:
            self._account.interrupt.remote(self._stopped, abandon=True)

    async def run(self) -> Outcome:
        """Do all there is to do; return how it ended."""
        await to_thread.run_sync(partial(rays.start, self._address, self._job.workers))
        try:
            name = f"veobatch-{self._ledger.identity}-{self._epoch}"
            self._account = rays.new_account(name, self._job, self._epoch, self._orphans)
            await self._account.begin.remote()
            if self._held is not None:
                await self._account.halt.remote(self._held.reason, str(self._held))
            if self._stopped:
                await self._account.interrupt.remote(self._stopped)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._show)
                await self._oversee(tasks)
                tasks.cancel_scope.cancel()
            self.learned = await self._last_words()
        except rays.lost() as error:
            self._trouble = (StopReason.UNFINISHED, f"the cluster is lost: {rays.words(error)}")
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(partial(rays.stop, self._account, list(self._workers.values())))
        await self._read()
        return self._outcome()

    async def _last_words(self) -> dict[str, Any]:
        learned: dict[str, Any] = await self._account.learned.remote()
        await self._account.end.remote()
        return learned

    async def _oversee(self, tasks: TaskGroup) -> None:
        """Keep as many workers as were asked for while there are rows that none of them has."""
        wanted = self._job.workers
        while True:
            standing = await self._listen()
            active = [name for name in self._workers if name not in standing.lapsed]
            if standing.waiting and not self._stopped and self._trouble is None:
                for _ in range(wanted - len(active)):
                    self._spawn(tasks)
            elif not active:
                return
            if self._parting_at is not None and time.monotonic() > self._parting_at + PARTING_S:
                return
            await anyio.sleep(BEAT_S)

    async def _listen(self) -> Standing:
        standing: Standing = await self._account.standing.remote()
        for name in standing.lapsed - (self._seen.lapsed if self._seen else frozenset()):
            words = f"worker {name} is silent for {self._job.lease_s:g} s: others go on with its rows"
            self._observer.said(Event(Topic.NOTE, words, Level.WARNING))
        self._seen = standing
        for event in standing.events:
            self._observer.said(event)
        return standing

    def _spawn(self, tasks: TaskGroup) -> None:
        self._spawned += 1
        name = f"{self._epoch}.{self._spawned}"
        self._workers[name] = rays.new_worker()
        tasks.start_soon(self._tend, name)

    async def _tend(self, name: str) -> None:
        """Wait for a worker's end. One that dies is replaced; what it had is given to others."""
        try:
            trouble = await self._workers[name].live.remote(name, self._job, self._account)
        except rays.died() as error:
            self._deaths += 1
            words = f"worker {name} is lost ({rays.words(error)}): others go on with its rows"
            self._observer.said(Event(Topic.NOTE, words, Level.WARNING))
            await self._account.gone.remote(name)
            if self._deaths > DEATHS * self._job.workers:
                await self._give_up((StopReason.UNFINISHED, "workers die as fast as they are started"))
        else:
            if trouble is not None:
                await self._account.gone.remote(name)
                await self._give_up(trouble)
        finally:
            self._workers.pop(name, None)

    async def _give_up(self, why: tuple[StopReason, str]) -> None:
        if self._trouble is None:
            self._trouble = why
            self._observer.said(Event(Topic.STOPPING, why[1], Level.WARNING))
            await self._account.interrupt.remote(why[1])

    async def _show(self) -> None:
        """Tell those who watch what has changed in the ledger, as often as reading it is cheap."""
        while True:
            began = time.monotonic()
            await self._read()
            await anyio.sleep(max(2 * BEAT_S, SHARE * (time.monotonic() - began)))

    async def _read(self) -> None:
        for record in await self._ledger.load():
            known = self._records.get(record.key)
            if known is None or known.version != record.version:
                self._records[record.key] = record
                self._deaths = 0
                if known is not None:
                    self._observer.moved(known, record)

    def _outcome(self) -> Outcome:
        board = Board(self._records)
        board.doubts = {key for key, row in self._records.items() if row.state is State.IN_DOUBT}
        if self._seen is not None:
            final = (State.DONE, State.FAILED, State.IN_DOUBT)
            left = self._seen.left.items()
            board.left = {key: why for key, why in left if why and self._records[key].state not in final}
            board.overdue = set(self._seen.overdue & board.left.keys())
            for why in (self._seen.stop, self._seen.short):
                if why is not None:
                    board.halt(*why)
        if self._stopped:
            board.stop, board.message = StopReason.INTERRUPTED, self._stopped
        elif self._trouble is not None:
            board.stop, board.message = self._trouble
        return board.outcome()
