"""The submitters: rows wait for a slot and for budget, are submitted, and their results are acted on."""

from __future__ import annotations

from contextlib import nullcontext
from math import inf
from typing import TYPE_CHECKING, assert_never

import anyio

from pipeline import backoff
from pipeline.circuit_breaker import CircuitBreaker
from pipeline.client import (
    Accepted,
    AccountBlocked,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    RetryableRejection,
)
from pipeline.client.create_result import QUOTA_RETRY_AFTER_S
from pipeline.errors import Conflict, StopReason, StopRun
from pipeline.events import Level, Topic
from pipeline.images.delivery import body_to_send
from pipeline.images.prepared import PictureError, PictureFault
from pipeline.manifest.local_files import references_in
from pipeline.model import Failure, State
from pipeline.net.retry_after import parse_retry_after
from pipeline.submit.account_refusals import AccountRefusals
from pipeline.submit.budget import PRICE_UNKNOWN_MESSAGE
from pipeline.submit.not_found_responses import NotFoundRows
from pipeline.submit.outage import Outage

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from pipeline.client import CreateResult
    from pipeline.model import Record
    from pipeline.poll.poller_pool import PollerPool
    from pipeline.run_context import RunContext
    from pipeline.submit.create import Submitter


class SubmitterPool:
    """What all submitters share. One at a time waits for a slot, so that a limit is probed by one request."""

    def __init__(self, run: RunContext, submitter: Submitter, poller_pool: PollerPool) -> None:
        self._run, self._submitter, self._poller_pool = run, submitter, poller_pool
        self._queue_lock = anyio.Lock()
        self._policy = backoff.policy_for_interval(run.settings.poll_interval)
        self._outage = Outage(self._policy)
        self._refusals = AccountRefusals(run, self._policy, self._wait_out)
        self._not_found = NotFoundRows(run)
        self._breaker = CircuitBreaker()

    async def work(self) -> None:
        """Submit rows as long as the run lasts."""
        while True:
            record = await self._next_job()
            try:
                await self._run.guard(record.key, self._breaker, self._submit(record))
            finally:
                # Not before: while its result is being applied, nothing else may keep the run alive.
                self._run.state.submitting -= 1
            self._run.notify()

    async def put_back_not_found(self) -> None:
        """Put back rows that failed by a 404: elsewhere it has shown to be the address's or the model's."""
        self._run.state.submitting += 1  # nothing ends the run meanwhile
        try:
            await self._not_found.put_back()
        finally:
            self._run.state.submitting -= 1
        self._run.notify()

    async def _next_job(self) -> Record:
        """Wait for the next row that may be submitted; its slot and its budget are taken on return."""
        run, state = self._run, self._run.state
        # One at a time: several at once would each find the last slot, or the last of the budget, free.
        async with self._queue_lock:
            while True:
                now = run.deps.clock()
                # Among others that are accepted it shows whether a refusal is the row's own.
                record, due_at = state.next_pending(now, refused_first=self._outage.accepts)
                if state.stop_reason is not None or (record is None and due_at is None):
                    await run.wait_changed()
                elif record is None:
                    await run.wait_changed((due_at or now) - now)
                elif (delay_s := self._start_delay_s(now)) > 0:
                    await run.wait_changed(None if delay_s == inf else delay_s)
                elif await self._reserve_budget(record):
                    state.pop_pending(record)
                    state.submitting += 1
                    run.deps.concurrency_limit.on_started(now)
                    return record

    def _start_delay_s(self, now: float) -> float:
        state = self._run.state
        return max(
            inf if self._refusals.hold_creates() else 0.0,
            state.paused_until - now,
            self._run.deps.concurrency_limit.start_delay_s(now, state.occupied_slots()),
        )

    async def _reserve_budget(self, record: Record) -> bool:
        """Reserve the row's price; when the budget has no room, wait for what is in flight or stop."""
        run, state, budget = self._run, self._run.state, self._run.deps.budget
        if budget.limit_usd is None:
            return True
        price = run.deps.price_of(record)
        if price is None:
            state.pop_pending(record)
            state.unfinished[record.key] = PRICE_UNKNOWN_MESSAGE
            run.notify()
            return False
        if budget.reserve(record.key, price):
            state.budget_exhausted = False
            return True
        # What is in flight may fail and give its reservation back, so the budget is not used up yet.
        if state.submitting or state.tracked or state.finishing:
            await run.wait_changed()
            return False
        # A row in doubt counts until the log settles it; it may turn out never to have been accepted.
        if state.in_doubt:
            if not state.budget_exhausted:
                state.budget_exhausted = True
                run.notify()
            await run.wait_changed()
            return False
        run.stop_submitting(StopReason.BUDGET, budget.full_message())
        return False

    async def _submit(self, record: Record) -> None:
        run, state = self._run, self._run.state
        applied = False
        try:
            async with self._body(record) as body:
                if state.stop_reason is not None:  # while the picture was being prepared
                    self._put_back(record)
                    return
                place, sent = state.begin_submission(), self._refusals.rows.on_sent()
                after, result = await self._submitter.submit(record, run.deps.price_of(record), body)
            if isinstance(result, Accepted):
                state.in_flight.add(record.key)
            applied = True
        except Conflict:
            await run.take_over(record.key)
            return
        except PictureError as error:
            await self._on_picture_error(record, error)
            return
        except StopRun:
            # The ledger failed between intent and outcome: the row is shown as the disk has it.
            state.records[record.key] = self._submitter.unresolved.get(record.key, record)
            raise
        finally:
            # The outcome never came, so `_apply_result` will not tell the limit that this create is over.
            if not applied:
                run.deps.concurrency_limit.on_create_ended(run.deps.clock())
        state.submissions[place] = after.correlation_id
        # Both transitions are on disk already, under the submitter's own shield, so not through `run.commit`.
        run.on_transition(record, after)
        await self._apply_result(after, result, sent)

    def _body(self, record: Record) -> AbstractAsyncContextManager[str]:
        """Return what is sent: the body as it stands, or with pictures for the files that it names."""
        if references_in(record.body):
            return body_to_send(self._run.deps.pictures, record)
        return nullcontext(record.body)

    def _put_back(self, record: Record) -> None:
        self._run.deps.budget.release(record.key)
        self._run.state.queue(record)

    async def _on_picture_error(self, record: Record, error: PictureError) -> None:
        """A picture that cannot be sent is its row's failure, before anything is spent; a store's is not."""
        run, message = self._run, f"the picture {record.manifest_image}: {error}"
        match error.kind:
            case PictureFault.PICTURE:
                await self._fail(record, Failure("image", message))
            case PictureFault.STORE:
                self._put_back(record)
                run.stop_submitting(StopReason.IMAGE_STORE, str(error))
            case PictureFault.TRANSIENT:
                run.deps.budget.release(record.key)
                run.state.unfinished[record.key] = f"{message}; the next run tries again"
                run.report_event(Topic.NOTE, f"{record.id}: {message}", Level.WARNING, record)
            case unreachable:
                assert_never(unreachable)

    async def _apply_result(self, record: Record, result: CreateResult, sent: int) -> None:
        """Tell limit, queue and user a create's result; `sent` is its place in the order of sending."""
        run, now = self._run, self._run.deps.clock()
        limit, in_flight = run.deps.concurrency_limit, run.state.occupied_slots()
        match result:
            case Accepted(generation_status=status):
                limit.on_accepted(now, in_flight)
                self._outage.on_accepted(record.key)
                self._refusals.rows.on_accepted(sent)
                self._not_found.on_accepted()
                await self._poller_pool.track_accepted(record, status)
            case Rejected(failure=failure):
                limit.on_create_ended(now)
                self._outage.on_answer()
                if failure.code == "not_found":
                    await self._not_found.on_not_found(record, failure)
            case RateLimited(message=message, retry_after=header) if self._is_quota(header):
                limit.on_create_ended(now)
                await self._refusals.on_refused(
                    record, AccountBlocked(StopReason.QUOTA, message, header), sent
                )
            case RateLimited(message=message, retry_after=header):
                limit.on_rate_limited(now, in_flight, self._retry_after_s(header))
                self._outage.on_answer()
                run.state.queue(record)
                run.report_event(Topic.THROTTLED, message, Level.DEBUG, record)
            case AccountBlocked():
                limit.on_create_ended(now)
                await self._refusals.on_refused(record, result, sent)
            case RetryableRejection(message=message, reached=reached):
                limit.on_create_ended(now)
                await self._retry_later(record, message, now, reached=reached)
            case OutcomeUnknown(message=message):
                limit.on_create_ended(now)
                run.state.in_doubt.add(record.key)
                run.state.doubt_began[record.correlation_id] = now
                run.report_event(Topic.IN_DOUBT, f"{record.id}: {message}", Level.WARNING, record)
            case unreachable:
                assert_never(unreachable)

    def _is_quota(self, header: str | None) -> bool:
        """Whether a 429's wait is a quota's: of answers without `Date`, the client judged the others."""
        return (self._retry_after_s(header) or 0.0) >= QUOTA_RETRY_AFTER_S

    def _retry_after_s(self, header: str | None) -> float | None:
        return parse_retry_after(header, now_utc=self._run.deps.wall())

    async def _wait_out(self, record: Record, refusal: AccountBlocked) -> None:
        """Try a row again once whatever refuses all of them for a while has passed."""
        # Nothing speaks against the account: when it lasts, topping it up would not help.
        is_credits = refusal.reason is StopReason.CREDITS
        reason = StopReason.UNREACHABLE if is_credits else refusal.reason
        message = f"refused, though others were accepted before: {refusal.message}"
        await self._retry_later(record, message, self._run.deps.clock(), reached=True, reason=reason)

    async def _retry_later(
        self,
        record: Record,
        message: str,
        now: float,
        *,
        reached: bool,
        reason: StopReason = StopReason.UNREACHABLE,
    ) -> None:
        """Try again later, unless others get through meanwhile: then the refusal may be the row's own.

        `reason` is why the run stops submitting when it lasts.
        """
        run, outage = self._run, self._outage
        run.report_event(Topic.CREATE_NOT_ACCEPTED, f"{record.id}: {message}", Level.DEBUG, record)
        tried_s = max(0.0, run.deps.wall() - (record.submitted_at or 0.0))
        outage.on_rejected(record.key, now, tried_s, reached=reached)
        if outage.retries_exhausted(record.key):
            await self._give_up(record, message)
            return
        if now >= run.state.paused_until:
            run.state.paused_until = max(run.state.paused_until, now + outage.next_pause_s())
        run.state.queue(record, now + outage.row_wait_s(record.key), refused=True)
        if outage.is_over_limit():
            run.stop_submitting(reason, message)

    async def _give_up(self, record: Record, message: str) -> None:
        """Fail a row that was refused too often while others got through; else leave it for the next run."""
        text = f"{message}; given up after {self._policy.max_rejections} refusals"
        if self._outage.is_rows_own(record.key):
            await self._fail(record, Failure("not_accepted", text))
        else:
            self._run.state.unfinished[record.key] = f"{text}; the next run tries again"

    async def _fail(self, record: Record, failure: Failure) -> None:
        run = self._run
        await run.commit(record, record.evolve(State.FAILED, failure=failure, finished_at=run.deps.wall()))
