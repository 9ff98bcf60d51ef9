"""The whole run: submitters, lookers, savers and the reconciler around one board.

It owns concurrency and shutdown and must not know the command line. Each pool takes from its own queue
and none waits for another's slots: a finished generation frees its slot when it is noticed, not when it
is saved. Every stream is bounded by the number of rows, so that handing on never blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from anyio import create_memory_object_stream, create_task_group

from pipeline.download.pool import Saves
from pipeline.errors import StopReason, StopRun
from pipeline.events import Level, Topic
from pipeline.model import State
from pipeline.poll.pool import Looks
from pipeline.reconcile.pool import Reconciler
from pipeline.run_context import Run, Tools
from pipeline.run_state import Board, Outcome
from pipeline.submit.create import HURRY_S, Submitter
from pipeline.submit.pool import Submits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pipeline.events import Observer
    from pipeline.model import Record
    from pipeline.settings import Settings

MAX_SUBMITTERS: Final = 64
MAX_LOOKERS: Final = 128
CHECKERS: Final = 4
"""Saved files that are hashed at once when a run begins."""


class Engine:
    """One run over the rows of one batch. Not to be used twice."""

    def __init__(
        self,
        records: Sequence[Record],
        tools: Tools,
        settings: Settings,
        observer: Observer,
        *,
        expecting: float = 0,
    ) -> None:
        """Begin with `records`; up to `expecting` others at a time, or inf, may be admitted while it runs."""
        self._run = Run(Board.of(records), tools, settings, observer)
        self._run.board.expecting = expecting > 0
        self._room = max(1, len(records)) + expecting
        self._running = anyio.Event()
        self._submitter = Submitter(tools.api, tools.ledger, wall=tools.wall)
        self._scope = anyio.CancelScope()

    async def run(self) -> Outcome:
        """Do all there is to do; return how it ended. Only bugs raise: a run's trouble is in the outcome."""
        run, board = self._run, self._run.board
        settings = run.settings
        ready_in, ready_out = create_memory_object_stream[str](self._room)
        due_in, due_out = create_memory_object_stream[str](MAX_LOOKERS)
        saves = Saves(run, ready_in)
        looks = Looks(run, saves.push)
        submits = Submits(run, self._submitter, looks)
        doubts = Reconciler(run, looks.track)
        self._saves, self._looks = saves, looks
        with self._scope, ready_out, due_out:
            async with ready_in, due_in, create_task_group() as pools:
                saves.spawn = lambda *work: pools.start_soon(self._guarded, *work)
                for _ in range(min(settings.concurrency, MAX_SUBMITTERS)):
                    pools.start_soon(self._guarded, submits.work)
                for _ in range(min(max(settings.concurrency, looks.backlog()), MAX_LOOKERS)):
                    pools.start_soon(self._guarded, looks.work, due_out.clone())
                for _ in range(settings.downloads):
                    pools.start_soon(self._guarded, saves.work, ready_out.clone())
                pools.start_soon(self._guarded, looks.dispatch, due_in)
                pools.start_soon(self._guarded, looks.expire, due_in.clone())
                pools.start_soon(self._guarded, doubts.work)
                await saves.take_up(CHECKERS)
                looks.take_up()
                self._running.set()
                await doubts.until_settled()
                pools.cancel_scope.cancel()
        return board.outcome()

    async def _guarded(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a worker; trouble of the whole run ends the run, with everything on disk as it is."""
        try:
            await work(*args)
        except StopRun as trouble:
            self._run.halt(trouble.reason, str(trouble))
            self.abandon()

    async def admit(self, records: Sequence[Record]) -> None:
        """Take further rows in, wherever they stand, as if the run had begun with them."""
        await self._running.wait()
        board = self._run.board
        for record in records:
            board.records[record.key] = record
            board.left.pop(record.key, None)
            if record.state is State.PENDING:
                board.queue(record)
            elif record.state is State.GENERATING:
                self._looks.track(record)
            elif record.state is State.READY:
                self._saves.push(record)
            elif record.state is State.IN_DOUBT:
                board.doubts.add(record.key)
        self._run.ring()

    def forget(self, keys: Iterable[str]) -> None:
        """Let go of those rows that are done or failed for good."""
        records = self._run.board.records
        for key in keys:
            if key in records and records[key].state in (State.DONE, State.FAILED):
                del records[key]

    def expect(self, *, more: bool) -> None:
        """Say whether further rows may come; when none do, the run ends with those that it has."""
        self._run.board.expecting = more
        self._run.ring()

    def ring(self) -> None:
        """Let everyone who waits look again: something outside has changed."""
        self._run.ring()

    @property
    def board(self) -> Board:
        """Everything as it stands; to be read."""
        return self._run.board

    def stop(self, reason: str, notice: str) -> None:
        """Submit no more; finish and save what is paid. Safe to call from a signal's task.

        `reason` is what the outcome will say, `notice` is said now.
        """
        self._run.board.impatient = True
        self._run.board.halt(StopReason.INTERRUPTED, reason)
        self._run.say(Topic.STOPPING, notice, Level.WARNING)
        self._run.ring()

    def hold_back(self, trouble: StopRun) -> None:
        """Submit no more, for a trouble that was met elsewhere; go on with what is paid."""
        self._run.halt(trouble.reason, str(trouble))

    def abandon(self) -> None:
        """Stop at once: creates in flight get a moment to learn their outcome, the rest is resumable."""
        self._submitter.hurry()
        self._run.tools.ledger.set_shutdown_deadline(HURRY_S)
        self._scope.cancel()

    def records(self) -> list[Record]:
        """Return every record as it stands now, in the manifest's order."""
        return list(self._run.board.records.values())
