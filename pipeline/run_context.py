"""What the pools of a run share: its tools, its board, and the bell that wakes who waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from pipeline.client.client import LOG_REQUEST_GAP_S
from pipeline.errors import Conflict
from pipeline.events import Event, Level, Topic
from pipeline.model import Transition

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from pipeline.client import Api
    from pipeline.download.downloader import Downloader
    from pipeline.errors import StopReason
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.poll.rate_limit import RateLimit
    from pipeline.poll.schedule import PollSchedule
    from pipeline.run_state import RunState
    from pipeline.settings import Settings
    from pipeline.submit.budget import Budget
    from pipeline.submit.concurrency import ConcurrencyLimit


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a run works with: the edges, the rules' state, and the two clocks (monotonic, epoch).

    `log_gap_s` is left between two readings of the vendor's log.
    """

    api: Api
    ledger: Ledger
    downloader: Downloader
    schedule: PollSchedule
    concurrency_limit: ConcurrencyLimit
    rate_limit: RateLimit
    budget: Budget
    price_of: Callable[[Record], float | None]
    clock: Callable[[], float]
    wall: Callable[[], float]
    random: Random
    log_gap_s: float = LOG_REQUEST_GAP_S


class RunContext:
    """What the pools of one run share: the board, the tools, and the bell that wakes who waits."""

    def __init__(self, board: RunState, tools: Dependencies, settings: Settings, observer: Observer) -> None:
        self.state = board
        self.deps = tools
        self.settings = settings
        self.observer = observer
        self.started_at = tools.clock()
        self._changed = anyio.Event()

    def notify(self) -> None:
        """Something changed: let everyone who waits look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_changed(self, within_s: float | None = None) -> None:
        """Wait until something changes, at most `within_s` seconds."""
        bell = self._changed
        with anyio.move_on_after(within_s):
            await bell.wait()

    async def commit(self, before: Record, after: Record) -> Record:
        """Make a step durable, then known. Raises `Conflict` or a `StopRun`."""
        with anyio.CancelScope(shield=True):
            record = await self.deps.ledger.commit(before, after)
        self.on_transition(before, record)
        return record

    async def commit_both(self, before: Record, between: Record, after: Record) -> None:
        """Make two steps of one record durable together: a kill finds both or neither; watchers see one."""
        steps = [Transition(before, between), Transition(between, after)]
        with anyio.CancelScope(shield=True):
            for made in await self.deps.ledger.commit_many(steps):
                if isinstance(made, Conflict):
                    raise made
        self.deps.budget.apply(before, between)
        self.on_transition(before, after)

    def on_transition(self, before: Record, after: Record) -> None:
        """A step is durable: show it to the board and to those who watch."""
        self.state.records[after.key] = after
        self.deps.budget.apply(before, after)
        self.observer.on_transition(before, after)
        self.notify()

    def stop_submitting(self, reason: StopReason, message: str) -> None:
        """Stop submitting and finish what is paid."""
        if self.state.stop_submitting(reason, message):
            self.report_event(Topic.STOPPING, message, Level.WARNING)
        self.notify()

    def report_event(
        self, topic: Topic, message: str, level: Level = Level.INFO, record: Record | None = None
    ) -> None:
        self.observer.on_event(Event(topic, message, level, record.key if record else ""))
