"""The whole run: submitters, lookers, savers and the reconciler around one board.

It owns concurrency and shutdown and must not know the command line. Each pool takes from its own queue
and none waits for another's slots: a finished generation frees its slot when it is noticed, not when it
is saved. Every stream is bounded by the number of rows, so that handing on never blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from anyio import create_memory_object_stream, create_task_group

from pipeline.engine.board import Board, Outcome
from pipeline.engine.doubts import Reconciler
from pipeline.engine.looks import Looks
from pipeline.engine.saves import Saves
from pipeline.engine.shared import Run, Tools
from pipeline.engine.submits import Submits
from pipeline.errors import StopReason, StopRun
from pipeline.events import Level, Topic
from pipeline.stages.submit import HURRY_S, Submitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

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
        self, records: Sequence[Record], tools: Tools, settings: Settings, observer: Observer
    ) -> None:
        self._run = Run(Board.of(records), tools, settings, observer)
        self._submitter = Submitter(tools.api, tools.ledger, wall=tools.wall)
        self._scope = anyio.CancelScope()

    async def run(self) -> Outcome:
        """Do all there is to do; return how it ended. Only bugs raise: a run's trouble is in the outcome."""
        run, board = self._run, self._run.board
        settings = run.settings
        ready_in, ready_out = create_memory_object_stream[str](max(1, len(board.records)))
        due_in, due_out = create_memory_object_stream[str](MAX_LOOKERS)
        saves = Saves(run, ready_in)
        looks = Looks(run, saves.push)
        submits = Submits(run, self._submitter, looks)
        doubts = Reconciler(run, looks.track)
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

    def stop(self, reason: str, notice: str) -> None:
        """Submit no more; finish and save what is paid. Safe to call from a signal's task.

        `reason` is what the outcome will say, `notice` is said now.
        """
        self._run.board.impatient = True
        self._run.board.halt(StopReason.INTERRUPTED, reason)
        self._run.say(Topic.STOPPING, notice, Level.WARNING)
        self._run.ring()

    def hold_back(self, trouble: StopRun) -> None:
        """Submit nothing, for a trouble that is known before the run begins; go on with what is paid."""
        self._run.halt(trouble.reason, str(trouble))

    def abandon(self) -> None:
        """Stop at once: creates in flight get a moment to learn their outcome, the rest is resumable."""
        self._submitter.hurry()
        self._run.tools.ledger.hurry(HURRY_S)
        self._scope.cancel()

    def records(self) -> list[Record]:
        """Return every record as it stands now, in the manifest's order."""
        return list(self._run.board.records.values())
