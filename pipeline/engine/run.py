"""The whole run: submitters, lookers, savers and the reconciler around one board.

It owns concurrency and shutdown and must not know the command line. Each pool takes from its own queue
and none waits for another's slots: a finished generation frees its slot when it is noticed, not when it
is saved. Every stream is bounded by the number of rows, so that handing on never blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio import create_memory_object_stream, create_task_group

from pipeline.engine.board import Board, Outcome
from pipeline.engine.doubts import Reconciler
from pipeline.engine.looks import Looks
from pipeline.engine.saves import Saves
from pipeline.engine.submits import Submits
from pipeline.errors import StopReason, StopRun
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.stages.submit import Submitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from random import Random

    from pipeline.api import Api
    from pipeline.budget import Budget
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.pacing import CreateGate, LookPace
    from pipeline.polling import PollQueue
    from pipeline.settings import Settings
    from pipeline.stages.download import Downloader

MAX_SUBMITTERS = 64
MAX_LOOKERS = 128
CHECKERS = 4


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run works with: the edges, the rules' state, and the two clocks (monotonic, epoch)."""

    api: Api
    ledger: Ledger
    downloader: Downloader
    polling: PollQueue
    gate: CreateGate
    pace: LookPace
    budget: Budget
    price_of: Callable[[Record], float | None]
    clock: Callable[[], float]
    wall: Callable[[], float]
    random: Random


class Run:
    """What the pools of one run share: the board, the tools, and the bell that wakes who waits."""

    def __init__(self, board: Board, tools: Tools, settings: Settings, observer: Observer) -> None:
        self.board = board
        self.tools = tools
        self.settings = settings
        self.observer = observer
        self.started_at = tools.clock()
        self._bell = anyio.Event()

    def ring(self) -> None:
        """Something changed: let everyone who waits look again."""
        self._bell.set()
        self._bell = anyio.Event()

    async def changed(self, within_s: float | None = None) -> None:
        """Wait until something changes, at most `within_s` seconds."""
        bell = self._bell
        with anyio.move_on_after(within_s):
            await bell.wait()

    async def commit(self, before: Record, after: Record) -> Record:
        """Make a step durable, then known. Raises `Conflict` or a `StopRun`."""
        with anyio.CancelScope(shield=True):
            record = await self.tools.ledger.commit(before, after)
        self.moved(before, record)
        return record

    def moved(self, before: Record, after: Record) -> None:
        """A step is durable: show it to the board and to those who watch."""
        self.board.records[after.key] = after
        self.tools.budget.update(after)
        self.observer.moved(before, after)
        self.ring()

    def halt(self, reason: StopReason, message: str) -> None:
        """Stop submitting and finish what is paid."""
        if self.board.halt(reason, message):
            self.say(Topic.STOPPING, message, Level.WARNING)
        self.ring()

    def say(
        self, topic: Topic, message: str, level: Level = Level.INFO, record: Record | None = None
    ) -> None:
        self.observer.said(Event(topic, message, level, record.key if record else ""))


class Engine:
    """One run over the rows of one batch. Not to be used twice."""

    def __init__(
        self, records: Sequence[Record], tools: Tools, settings: Settings, observer: Observer
    ) -> None:
        self._run = Run(Board.of(records), tools, settings, observer)
        self._submitter = Submitter(tools.api, tools.ledger, wall=tools.wall)
        self._scope = anyio.CancelScope()
        self._ended = False

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
        with self._scope:
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
        ready_out.close()
        due_out.close()
        self._ended = True
        return board.outcome()

    async def _guarded(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a worker; trouble of the whole run ends the run, with everything on disk as it is."""
        try:
            await work(*args)
        except StopRun as trouble:
            self._run.halt(trouble.reason, str(trouble))
            self.abandon()

    def stop(self, message: str) -> None:
        """Submit no more; finish and save what is paid. Safe to call from a signal's task."""
        self._run.board.impatient = True
        self._run.board.halt(StopReason.INTERRUPTED, message)
        self._run.say(Topic.STOPPING, message, Level.WARNING)
        self._run.ring()

    def abandon(self) -> None:
        """Stop at once: creates in flight get a moment to learn their outcome, the rest is resumable."""
        self._submitter.hurry()
        self._scope.cancel()

    def records(self) -> list[Record]:
        """Return every record as it stands now, in the manifest's order."""
        return list(self._run.board.records.values())

    def in_flight(self) -> int:
        """Return how many generations are accepted and not finished."""
        return self._run.board.generating

    def pending(self) -> int:
        """Return how many rows wait to be submitted."""
        return sum(record.state is State.PENDING for record in self._run.board.records.values())
