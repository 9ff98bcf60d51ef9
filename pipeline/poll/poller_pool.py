"""The pollers: a fixed pool of workers, and what each answer sets in motion."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, assert_never

from pipeline import backoff
from pipeline.circuit_breaker import CircuitBreaker
from pipeline.client import Phase
from pipeline.client.responses import StatusError
from pipeline.errors import StopReason
from pipeline.events import Level, Topic
from pipeline.model import State
from pipeline.poll.apply_status import mark_failed, mark_ready
from pipeline.poll.confirmation import Confirmations, Confirmed, StillRunning, Unconfirmed
from pipeline.poll.dispatch_loop import Dispatcher
from pipeline.poll.duration_key import record_duration_key
from pipeline.poll.key_refusals import KeyRefusals
from pipeline.poll.poll_rate import retry_pause_s
from pipeline.poll.unknown_generations import UnknownIds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.streams.memory import MemoryObjectReceiveStream

    from pipeline.client import GenerationStatus
    from pipeline.model import Record
    from pipeline.run_context import RunContext


MAX_UNKNOWN_STATUSES: Final = 20


class PollerPool:
    """Tracks generations until they are finished, failed, or left for the next run."""

    def __init__(self, run: RunContext, on_ready: Callable[[Record], None]) -> None:
        """`on_ready` takes a finished generation."""
        self._run = run
        self._on_ready = on_ready
        self._breaker = CircuitBreaker()
        self._confirmations = Confirmations(run.settings.poll_interval)
        self.dispatcher = Dispatcher(run)
        self._deadlines = self.dispatcher.deadlines
        self._key_refusals = KeyRefusals(run)
        self._pause_ends_at = 0.0
        self._unknown_statuses: set[str] = set()
        self._last_errors: dict[str, str] = {}
        self._unknown_ids = UnknownIds(run.settings.poll_interval, run.state.unknown, run.state.missing)

    def generating_count(self) -> int:
        """Return how many generations an earlier run left to poll."""
        return sum(record.state is State.GENERATING for record in self._run.state.records.values())

    def resume(self) -> None:
        """Track what an earlier run submitted; one poll after its deadline is always granted."""
        for record in list(self._run.state.records.values()):
            if record.state is State.GENERATING:
                self.track(record)

    def track(self, record: Record) -> None:
        """Count a generation that another process may have polled as in flight, and plan its polls."""
        self._confirmations.on_taken_over(record.key)
        now = self._run.deps.wall()
        self._schedule(record, max(0.0, now - (record.accepted_at or record.submitted_at or now)))

    async def track_accepted(self, record: Record, status: GenerationStatus) -> None:
        """Follow a generation that was just accepted; the create's answer may be final already."""
        self._schedule(record, 0.0)
        if status.phase in (Phase.COMPLETED, Phase.FAILED):
            await self._on_status(record, status)

    def _schedule(self, record: Record, age_s: float) -> None:
        run, now = self._run, self._run.deps.clock()
        run.state.in_flight.add(record.key)
        run.deps.schedule.waiting = run.state.waiting_count()
        run.deps.schedule.add(record.key, record_duration_key(record), now=now, age_s=age_s)
        self._deadlines.set(record.key, max(run.started_at, now - age_s) + run.settings.timeout)
        run.state.tracked += 1
        self.dispatcher.wake()

    async def work(self, due: MemoryObjectReceiveStream[str]) -> None:
        """Poll whatever is due as long as the run lasts."""
        async with due:
            async for key in due:
                next_key: str | None = key
                while next_key is not None:
                    if not await self._run.guard(next_key, self._breaker, self._poll(next_key)):
                        self._untrack(next_key)
                    buffered = due.statistics().current_buffer_used
                    next_key = None if buffered else self.dispatcher.take_due()

    async def _poll(self, key: str) -> None:
        run = self._run
        record = run.state.records[key]
        # A kept-alive connection leads to the same replica again; a second opinion needs another.
        status = await run.deps.api.get_status(
            record.generation_id, new_connection=key in self._confirmations
        )
        self.dispatcher.polling.discard(key)
        run.state.poll_counts[key] += 1
        if isinstance(status, StatusError):
            await self._poll_failed(record, status)
            return
        run.state.status_known_at = run.deps.clock()
        run.deps.rate_limit.on_success(run.state.status_known_at)
        self._last_errors.pop(key, None)
        if key in run.state.unknown:  # it may have lost its slot meanwhile
            run.state.in_flight.add(key)
        self._unknown_ids.forget(key)
        self._key_refusals.on_answer()
        await self._on_status(record, status)

    async def _on_status(self, record: Record, status: GenerationStatus) -> None:
        run, now = self._run, self._run.deps.clock()
        completed_before = record.completed_at is not None
        match self._confirmations.confirm(record.key, status, now, completed_before=completed_before):
            case StillRunning():
                if status.phase is Phase.UNKNOWN:
                    self._warn_unknown_status(record, status.status)
                self._still_running(record)
            case Unconfirmed(wait_s=wait_s):
                await self._confirm_later(record, status, wait_s)
            case Confirmed(status=final):
                self._untrack(record.key, finished=final.phase is Phase.COMPLETED)
                # Its slot at the vendor is free before our disk has it: the next create need not wait.
                run.state.in_flight.discard(record.key)
                run.notify()
                await self._finish(run.state.records[record.key], final)
            case unreachable:
                assert_never(unreachable)

    async def _confirm_later(self, record: Record, status: GenerationStatus, wait_s: float) -> None:
        """Poll again to confirm a final answer; that the generation was completed is committed at once."""
        run = self._run
        failure = status.failure
        if failure is not None:
            self._last_errors[record.key] = failure.message
        if status.is_charged and record.completed_at is None:
            # On disk at once: the next run must not take a later error for a free generation.
            record = await run.commit(record, record.evolve(completed_at=run.deps.wall()))
        now = run.deps.clock()
        # Else a deadline that is shorter than the confirmation would leave the row to run after run.
        self._deadlines.extend(record.key, now + wait_s)
        # Another poll may have ended it while that was committed.
        if record.key in run.deps.schedule and not self._drop_without_key(record, now):
            run.deps.schedule.poll_again(record.key, now=now, retry_after_s=wait_s)
            self.dispatcher.wake()

    def _still_running(self, record: Record) -> None:
        run, now = self._run, self._run.deps.clock()
        run.state.not_yet_at[record.key] = run.deps.wall()
        self._mark_overdue(record, now)
        run.deps.schedule.still_running(record.key, now=now)
        self.dispatcher.wake()

    async def _poll_failed(self, record: Record, error: StatusError) -> None:
        """A poll without an answer about the generation: it comes again soon, paced, until the deadline."""
        run, now = self._run, self._run.deps.clock()
        retry_after_s = retry_pause_s(error.retry_after, run.deps.wall(), run.settings.poll_interval)
        first_of_kind = error.misdirected and record.key not in self._last_errors
        level = Level.WARNING if first_of_kind else Level.DEBUG
        run.report_event(Topic.POLL_FAILED, f"{record.id}: {error.message}", level, record)
        self._last_errors[record.key] = error.message
        if error.http_status == 429:
            self._report_pause(error, retry_after_s or 0.0, now)
            run.deps.rate_limit.on_rate_limited(now, retry_after_s)
        if error.http_status != 401:
            self._key_refusals.on_answer()
        elif await self._key_refusals.on_refused(error):
            self._deadlines.expire_all()
        if await self._confirmed_by_404(record, error, now) or self._drop_without_key(record, now):
            return
        run.deps.schedule.poll_again(record.key, now=now, retry_after_s=retry_after_s)
        self.dispatcher.wake()

    def _report_pause(self, error: StatusError, pause_s: float, now: float) -> None:
        """Report, once a pause and not for a short one, that no poll leaves for a while."""
        if pause_s > self._run.settings.poll_interval and now >= self._pause_ends_at:
            self._pause_ends_at = now + pause_s
            message = f"{error.message}; as the vendor asks, nothing is polled for {pause_s:,.0f} s"
            self._run.report_event(Topic.WAITING, message, Level.WARNING)

    async def _confirmed_by_404(self, record: Record, error: StatusError, now: float) -> bool:
        """End a generation that failed and is answered with nothing but 404 since; return whether it was."""
        run = self._run
        self._unknown_ids.on_error(record.key, error.http_status, now, run.state.status_known_at)
        if record.key not in run.state.unknown:
            return False
        failed = self._confirmations.last_error(record.key)
        is_missing = record.key in run.state.missing
        # 404 proves no failure, and a completed generation is paid: the log has to say more, and polls go on.
        if failed is None or record.completed_at is not None or not is_missing:
            run.notify()
            return False
        self._untrack(record.key)
        await self._finish(record, failed)
        return True

    def give_up_unknown(self, key: str) -> bool:
        """Stop polling a generation as unknown; False when a poll has said more, or is about to."""
        if key not in self._unknown_ids.unknown or key in self.dispatcher.polling:
            return False
        # The next 404 confirms that.
        if key in self._run.state.missing and self._confirmations.last_error(key) is not None:
            return False
        self._untrack(key)
        return True

    def _drop_without_key(self, record: Record, now: float) -> bool:
        """Mark a generation past its deadline; stop polling it, and return True, when the key is refused."""
        self._mark_overdue(record, now)
        if self._run.state.stop_reason is not StopReason.KEY or record.key in self._deadlines:
            return False
        self._run.deps.schedule.drop(record.key, now=now)
        return True

    def _mark_overdue(self, record: Record, now: float) -> None:
        """Wait no longer for a generation past its deadline: *not yet* is never *failed*.

        It is polled on while the run has other work: its slot is free only once it has ended.
        """
        run = self._run
        if not self._deadlines.has_passed(record.key, now):
            return
        self._deadlines.remove(record.key)
        run.state.tracked -= 1
        refused = run.state.stop_reason is StopReason.KEY
        reason = "the key was refused" if refused else "not finished by its deadline"
        if (error := self._last_errors.pop(record.key, "")) and not refused:
            reason += f"; its last poll failed: {error}"
        run.state.overdue.add(record.key)
        run.state.unfinished[record.key] = f"{reason}; the next run goes on with it"
        run.notify()

    def _untrack(self, key: str, *, finished: bool = False) -> None:
        """Stop polling a generation; whatever kept it waiting is forgotten. More than once does no harm."""
        run, now = self._run, self._run.deps.clock()
        run.deps.schedule.waiting = run.state.waiting_count()
        if finished and key in run.deps.schedule:
            run.deps.schedule.finished(key, now=now)
        run.deps.schedule.drop(key, now=now)
        self._confirmations.forget(key)
        self._unknown_ids.forget(key)
        self.dispatcher.polling.discard(key)
        if self._deadlines.remove(key):
            run.state.tracked -= 1
        # It ended after its deadline but within the run: it is no longer the next run's.
        elif key in run.state.overdue:
            run.state.overdue.discard(key)
            run.state.unfinished.pop(key, None)

    def _warn_unknown_status(self, record: Record, status: str) -> None:
        """Report an unknown status once; it is not final."""
        if status not in self._unknown_statuses and len(self._unknown_statuses) < MAX_UNKNOWN_STATUSES:
            self._unknown_statuses.add(status)
            message = f"unknown status {status[:80]!r}: taken for 'not finished yet'"
            self._run.report_event(Topic.UNKNOWN_STATUS, message, Level.WARNING, record)

    async def _finish(self, record: Record, status: GenerationStatus) -> None:
        """The generation has ended: commit that and hand it on."""
        run, state = self._run, self._run.state
        polled = state.take_poll_stats(record)
        state.finishing += 1
        try:
            if status.phase is Phase.COMPLETED:
                after = replace(mark_ready(record, status, run.deps.wall()), **polled)
                self._on_ready(await run.commit(record, after))
            else:
                await self._fail_or_retry(record, status, polled)
        finally:
            state.finishing -= 1
            run.notify()

    async def _fail_or_retry(
        self, record: Record, status: GenerationStatus, polled: Mapping[str, Any]
    ) -> None:
        """A failed generation is not charged: a provider's fault is worth another one, a refusal is not."""
        run = self._run
        failed = replace(mark_failed(record, status, run.deps.wall()), **polled)
        failure = failed.failure
        # Completed once is charged: a later answer that says otherwise buys no other generation.
        retryable = failure is not None and failure.retryable and failed.completed_at is None
        max_retries = run.settings.generation_retries
        if not backoff.should_regenerate(
            retryable=retryable, faults=failed.faults - 1, generation_retries=max_retries
        ):
            # `failed` keeps what the vendor charged, which the budget counts.
            await run.commit(record, failed)
            return
        again = run.state.stop_reason is None and run.state.may_submit(record)
        when = "generating it again" if again else "the next run generates it again"
        message = f"{record.id}: {failure.message if failure else ''}; {when}"
        run.report_event(Topic.NOTE, message, Level.WARNING, record)
        retried = failed.evolve(State.PENDING, failure=None, generation_id="", finished_at=None)
        # Both in one transaction: a kill in between would leave a failure that nobody retries.
        await run.commit_both(record, failed, retried)
        run.state.queue(retried)
