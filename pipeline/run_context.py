"""What the pools of one run share: dependencies, state, commits, and the guard around each row's work."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.client.log_responses import LOG_REQUEST_GAP_S
from pipeline.errors import Conflict, StopReason, StopRun, VeobatchError
from pipeline.events import Event, Level, Topic
from pipeline.model import State, Transition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from random import Random

    from pipeline.circuit_breaker import CircuitBreaker
    from pipeline.client import Api
    from pipeline.download.downloader import Downloader
    from pipeline.events import Observer
    from pipeline.images.delivery import Pictures
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.poll.poll_rate import RateLimit
    from pipeline.poll.schedule import PollSchedule
    from pipeline.run_state import RunState
    from pipeline.settings import Settings
    from pipeline.submit.budget import Budget
    from pipeline.submit.create_limits import ConcurrencyLimit

MAY_BE_RENDERING: Final = frozenset({State.SUBMITTING, State.GENERATING, State.IN_DOUBT})


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a run works with: the edges, the rules' state, and the two clocks (monotonic, epoch).

    `journal_submission` is told of each submission before it leaves; `log_gap_s` is the least time between
    two requests for the vendor's log; `pictures` is there when rows name files.
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
    journal_submission: Callable[[Record], None]
    log_gap_s: float = LOG_REQUEST_GAP_S
    pictures: Pictures | None = None


class RunContext:
    """What the pools of one run share."""

    def __init__(self, state: RunState, deps: Dependencies, settings: Settings, observer: Observer) -> None:
        self.state = state
        self.deps = deps
        self.settings = settings
        self.observer = observer
        self.started_at = deps.clock()
        self._changed = anyio.Event()

    def notify(self) -> None:
        """Wake everyone in `wait_changed`: something they may be waiting for has changed."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_changed(self, timeout_s: float | None = None) -> None:
        """Wait until something changes, at most `timeout_s` seconds."""
        changed = self._changed
        if timeout_s is None:
            await changed.wait()
            return
        with anyio.move_on_after(timeout_s):
            await changed.wait()

    async def commit(self, before: Record, after: Record) -> Record:
        """Make a transition durable, then visible. Raises `Conflict` or a `StopRun`."""
        # Shielded: once it is on the disk, memory has to follow.
        with anyio.CancelScope(shield=True):
            record = await self.deps.ledger.commit(before, after)
        self.on_transition(before, record)
        return record

    async def commit_both(self, before: Record, intermediate: Record, after: Record) -> None:
        """Make two transitions durable together: a kill finds both or neither, observers see one."""
        transitions = [Transition(before, intermediate), Transition(intermediate, after)]
        with anyio.CancelScope(shield=True):
            for result in await self.deps.ledger.commit_many(transitions):
                if isinstance(result, Conflict):
                    raise result
        self.deps.budget.apply(before, intermediate)
        self.on_transition(before, after)

    def on_transition(self, before: Record, after: Record) -> None:
        """Apply a durable transition to the run's state and report it to the observers."""
        self.state.records[after.key] = after
        if after.state not in (State.SUBMITTING, State.GENERATING, State.IN_DOUBT):
            self.state.in_flight.discard(after.key)  # proven to have ended: its slot is free
        self.deps.budget.apply(before, after)
        self.observer.on_transition(before, after)
        self.notify()

    async def guard(self, key: str, breaker: CircuitBreaker, work: Awaitable[None]) -> bool:
        """Do a piece of one row's work; return whether it went through.

        A transition that somebody else made first, and any unexpected exception, costs this row alone: it
        stays as the ledger has it and is left for the next run. Raises a `StopRun` of the work, and one of
        its own when the pool's `breaker` says that the failures have a cause in common.
        """
        try:
            await work
        except Conflict:
            self.leave_to_other_process(key)
        except StopRun:
            raise
        except Exception as error:  # whatever a row's data causes, the other rows go on
            await self._on_crash(key, breaker, error)
        else:
            breaker.on_success()
            return True
        return False

    async def guard_each(
        self,
        keys: Sequence[str],
        breaker: CircuitBreaker,
        work: Callable[[Sequence[str]], Awaitable[None]],
    ) -> list[str]:
        """Do `work` for all rows at once, and for each alone if that raises something unexpected.

        So the row bears it whose data causes it. Returns the keys of rows whose work did not go through.
        Raises as `guard` does; `work` may be done again for a row that it has finished.
        """
        try:
            await work(keys)
        except StopRun:
            raise
        except Exception:  # each row alone raises it again, where it is reported
            return [key for key in keys if not await self.guard(key, breaker, work([key]))]
        return []

    async def _on_crash(self, key: str, breaker: CircuitBreaker, error: Exception) -> None:
        if (stop := _stop_inside(error)) is not None:
            raise stop from error
        record = self.state.records[key]
        self.observer.on_event(crash_event(record, error))
        self.state.unfinished[key] = crash_reason(error)
        if (on_disk := await self.deps.ledger.get(key)) is not None:
            self.state.records[key] = record = on_disk
        # It is not polled any more, so this run never learns that its slot is free.
        hold = self.state.in_flight.add if record.state in MAY_BE_RENDERING else self.state.in_flight.discard
        hold(key)
        self.notify()
        if breaker.on_crash(key):
            raise common_crash(error) from error

    async def take_over(self, key: str) -> None:
        """Another process moved this row: take over how it stands now."""
        current = await self.deps.ledger.get(key)
        if current is not None:
            self.state.records[key] = current
            self.deps.budget.update(current)
            self.state.unfinished[key] = f"another process has it ({current.state})"

    def leave_to_other_process(self, key: str) -> None:
        """Another process moved this row: it is left to it."""
        self.state.unfinished[key] = "another process has it"
        self.notify()

    def stop_submitting(self, reason: StopReason, message: str) -> None:
        """Stop submitting and finish what is paid."""
        if self.state.stop_submitting(reason, message):
            self.report_event(Topic.STOPPING, message, Level.WARNING)
        self.notify()

    def report_event(
        self,
        topic: Topic,
        message: str,
        level: Level = Level.INFO,
        record: Record | None = None,
        *,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Report an event to the observers; `facts` go to the log only."""
        self.observer.on_event(Event(topic, message, level, record.key if record else "", facts or {}))


def crash_event(record: Record, error: BaseException) -> Event:
    """Return the event of one row's unexpected error; its traceback goes to the log only."""
    message = f"{record.id}: unexpected error, left for the next run (the traceback is in run.log)"
    facts = {"error": describe_exception(error), "traceback": format_traceback(error)}
    return Event(Topic.CRASH, message, Level.WARNING, record.key, facts)


def crash_reason(error: BaseException) -> str:
    """Return why a row that met an unexpected error is left to the next run."""
    return f"unexpected error: {describe_exception(error)}; the next run tries again"


def common_crash(error: BaseException) -> StopRun:
    """Return what stops a run in which several rows met unexpected errors, the last of them `error`."""
    message = f"several rows met unexpected errors, the last: {describe_exception(error)}"
    return StopRun(StopReason.CRASH, message)


def describe_exception(error: BaseException) -> str:
    """Return an exception on one line, for messages: its type and the first line of its text.

    Of a group that is the first of its exceptions: "unhandled errors in a TaskGroup" explains nothing.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def format_traceback(error: BaseException) -> str:
    """Return an exception's traceback, for the log."""
    return "".join(traceback.format_exception(error))


def known_error(errors: ExceptionGroup[Exception]) -> VeobatchError | None:
    """Return the first of several errors that users are told of as they are; None when one is a bug."""
    known, unexpected = errors.split(VeobatchError)
    if known is None or unexpected is not None:
        return None
    error: Exception = known
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, VeobatchError) else None


def _stop_inside(error: Exception) -> StopRun | None:
    """Return the reason to stop that a group of exceptions holds, if it holds one."""
    if isinstance(error, StopRun):
        return error
    if isinstance(error, ExceptionGroup):
        return next(filter(None, map(_stop_inside, error.exceptions)), None)
    return None
