"""The submitters: rows take their turn through one gate, money is reserved, verdicts are acted on."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final, assert_never

import anyio

from pipeline import backoff
from pipeline.client import (
    Accepted,
    AccountBlocked,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    RetryableRejection,
)
from pipeline.errors import Conflict, StopReason, StopRun
from pipeline.events import Level, Topic
from pipeline.model import Failure, State
from pipeline.net.retry_after import parse_retry_after
from pipeline.submit.budget import PRICE_UNKNOWN_MESSAGE

if TYPE_CHECKING:
    from pipeline.client import CreateResult
    from pipeline.model import Record
    from pipeline.poll.pool import PollerPool
    from pipeline.run_context import RunContext
    from pipeline.submit.create import Submitter

QUOTA_PAUSE_S: Final = 300.0

IN_DOUBT_SLOT_INTERVALS: Final = 12.0
"""For how many poll intervals a row in doubt is taken to be in flight: the rendering it may have begun takes
minutes, and a doubt may last for most of an hour, in which the others must go on."""


class SubmitterPool:
    """What all submitters share. One asks the gate at a time, so that a limit is probed by one request."""

    def __init__(self, run: RunContext, submitter: Submitter, looks: PollerPool) -> None:
        self._run = run
        self._submitter = submitter
        self._poller_pool = looks
        self._queue_lock = anyio.Lock()
        self._policy = backoff.policy_for_interval(run.settings.poll_interval)
        self._accepted = 0
        self._submissions = 0
        self._refusals: Counter[str] = Counter()
        self._first_refusal: dict[str, int] = {}
        self._refused_since: set[str] = set()
        self._reached = False
        self._outage_s = 0.0
        self._refused_at: float | None = None
        self._outages = 0

    async def work(self) -> None:
        """Submit rows as long as the run lasts."""
        while True:
            await self._submit(await self._next_job())

    async def _next_job(self) -> Record:
        """Wait for a row whose turn it is; its slot and its money are taken when this returns."""
        run, board = self._run, self._run.state
        async with self._queue_lock:
            while True:
                now = run.deps.clock()
                record, when = board.next_pending(now)
                if board.stop_reason is not None or (record is None and when is None):
                    await run.wait_changed()
                elif record is None:
                    await run.wait_changed((when or now) - now)
                elif (wait := self._start_delay_s(now)) > 0:
                    await run.wait_changed(None if wait == inf else wait)
                elif await self._reserve_budget(record):
                    board.take(record)
                    board.submitting += 1
                    run.deps.concurrency_limit.on_started(now)
                    return record

    def _start_delay_s(self, now: float) -> float:
        run = self._run
        wait = max(
            run.state.paused_until - now, run.deps.concurrency_limit.start_delay_s(now, self._in_flight())
        )
        return min(wait, run.settings.poll_interval) if run.state.in_doubt else wait

    def _in_flight(self) -> int:
        """Count what the vendor may be rendering: a young doubt too, for it may have been accepted."""
        run = self._run
        since = run.deps.wall() - IN_DOUBT_SLOT_INTERVALS * run.settings.poll_interval
        return run.state.generating + sum(
            (run.state.records[key].submitted_at or 0.0) > since for key in run.state.in_doubt
        )

    async def _reserve_budget(self, record: Record) -> bool:
        """Reserve the row's price; when the budget has no room, wait for what is in flight or stop."""
        run, budget = self._run, self._run.deps.budget
        if budget.limit_usd is None:
            return True
        price = run.deps.price_of(record)
        if price is None:
            run.state.take(record)
            run.state.unfinished[record.key] = PRICE_UNKNOWN_MESSAGE
            run.notify()
            return False
        if budget.reserve(record.key, price):
            run.state.budget_exhausted = False
            return True
        if run.state.submitting or run.state.generating or run.state.settling:
            await run.wait_changed()
            return False
        if run.state.in_doubt:
            if not run.state.budget_exhausted:
                run.state.budget_exhausted = True
                run.notify()
            await run.wait_changed()
            return False
        run.stop_submitting(StopReason.BUDGET, budget.full_message())
        return False

    async def _submit(self, record: Record) -> None:
        run, board = self._run, self._run.state
        order = self._submissions = self._submissions + 1
        try:
            after, result = await self._submitter.submit(record, run.deps.price_of(record))
        except Conflict:
            await self._accept_conflict(record)
            return
        except StopRun:
            board.records[record.key] = self._submitter.unsettled.get(record.key, record)
            raise
        finally:
            board.submitting -= 1
        board.submission_order[after.correlation_id] = order
        board.generating += isinstance(result, Accepted)
        run.on_transition(record, after)
        await self._apply_result(after, result)
        if isinstance(result, Accepted):
            await self._poller_pool.track_accepted(after, result.generation_status)
        run.notify()

    async def _accept_conflict(self, record: Record) -> None:
        """Someone else moved the row: take their word for it."""
        run = self._run
        run.deps.concurrency_limit.on_ended(run.deps.clock())
        current = await run.deps.ledger.get(record.key)
        if current is not None:
            run.state.records[record.key] = current
            run.deps.budget.update(current)
            run.state.unfinished[record.key] = f"another process has it ({current.state})"
        run.notify()

    async def _apply_result(self, record: Record, result: CreateResult) -> None:
        """Tell gate, queue and user what the verdict means for those who come next."""
        run, now = self._run, self._run.deps.clock()
        gate, generating = run.deps.concurrency_limit, self._in_flight()
        match result:
            case Accepted():
                gate.on_accepted(now, generating)
                self._reset_outage()
                self._accepted += 1
            case Rejected():
                gate.on_ended(now)
                self._reset_outage()
            case RateLimited(message=message, retry_after=header):
                gate.on_rate_limited(now, generating, parse_retry_after(header, now_utc=run.deps.wall()))
                self._reset_outage()
                run.state.queue(record)
                run.report_event(Topic.THROTTLED, message, Level.DEBUG, record)
            case AccountBlocked(reason=reason, message=message, retry_after=header):
                gate.on_ended(now)
                run.state.queue(record)
                self._account_blocked(reason, message, parse_retry_after(header, now_utc=run.deps.wall()))
            case RetryableRejection(message=message, reached=reached):
                gate.on_ended(now)
                await self._retry_later(record, message, now, reached=reached)
            case OutcomeUnknown(message=message):
                gate.on_ended(now)
                run.state.in_doubt.add(record.key)
                run.state.doubt_began[record.correlation_id] = now
                run.report_event(Topic.IN_DOUBT, f"{record.id}: {message}", Level.WARNING, record)
            case unreachable:
                assert_never(unreachable)

    def _reset_outage(self) -> None:
        self._reached, self._outage_s, self._refused_at, self._outages = True, 0.0, None, 0
        self._refused_since.clear()

    def _account_blocked(self, reason: StopReason, message: str, retry_after_s: float | None) -> None:
        run = self._run
        if reason is StopReason.QUOTA and run.settings.wait_for_quota:
            pause = QUOTA_PAUSE_S if retry_after_s is None else retry_after_s
            run.state.paused_until = max(run.state.paused_until, run.deps.clock() + pause)
            run.report_event(Topic.WAITING, f"{message}; trying again in {pause:.0f} s", Level.WARNING)
            return
        run.stop_submitting(reason, message)

    async def _retry_later(self, record: Record, message: str, now: float, *, reached: bool) -> None:
        """Try again later. An outage is nobody's fault; a refusal while others get through is the row's."""
        run = self._run
        run.report_event(Topic.CREATE_NOT_ACCEPTED, f"{record.id}: {message}", Level.DEBUG, record)
        self._reached = self._reached or reached
        self._add_outage_time(record, now)
        if reached:
            self._refusals[record.key] += 1
            self._first_refusal.setdefault(record.key, self._accepted)
            self._refused_since.add(record.key)
        if backoff.retries_exhausted(self._policy, self._refusals[record.key]):
            await self._give_up(record, message)
            return
        self._pause(now)
        wait = backoff.backoff_s(self._policy, max(self._refusals[record.key], 1))
        run.state.queue(record, now + wait)
        if self._outage_s >= backoff.outage_limit_s(ever_reached=self._reached):
            run.stop_submitting(StopReason.UNREACHABLE, message)

    def _add_outage_time(self, record: Record, now: float) -> None:
        """Count for how long creates were tried in vain; the time without a slot to try with is not part."""
        if self._refused_at is not None:
            tried_s = max(0.0, self._run.deps.wall() - (record.submitted_at or 0.0))
            self._outage_s += min(now - self._refused_at, self._policy.max_wait_s + tried_s)
        self._refused_at = now

    async def _give_up(self, record: Record, message: str) -> None:
        """Enough refusals. Blame the row when others got through meanwhile, or none but it is refused."""
        run = self._run
        words = f"{message}; given up after {self._policy.max_rejections} refusals"
        others = self._accepted > self._first_refusal[record.key]
        if others or (self._accepted and self._refused_since == {record.key}):
            failure = Failure("not_accepted", words)
            failed = record.evolve(State.FAILED, failure=failure, finished_at=run.deps.wall())
            try:
                await run.commit(record, failed)
            except Conflict:
                run.state.unfinished[record.key] = "another process has it"
        else:
            run.state.unfinished[record.key] = f"{words}; the next run tries again"

    def _pause(self, now: float) -> None:
        """After two refusals with nothing accepted between them, let one create at a time find out."""
        board = self._run.state
        if now < board.paused_until:
            return
        self._outages += 1
        if self._outages > 1:
            board.paused_until = now + backoff.backoff_s(self._policy, self._outages - 1)
