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

if TYPE_CHECKING:
    from pipeline.client import CreateResult
    from pipeline.model import Record
    from pipeline.poll.pool import Looks
    from pipeline.run_context import Run
    from pipeline.submit.create import Submitter

QUOTA_PAUSE_S: Final = 300.0

YOUNG_DOUBT: Final = 12.0
"""For how many poll intervals a row in doubt is taken to be in flight: the rendering it may have begun takes
minutes, and a doubt may last for most of an hour, in which the others must go on."""


class Submits:
    """What all submitters share. One asks the gate at a time, so that a limit is probed by one request."""

    def __init__(self, run: Run, submitter: Submitter, looks: Looks) -> None:
        self._run = run
        self._submitter = submitter
        self._looks = looks
        self._turn = anyio.Lock()
        self._policy = backoff.policy_for_interval(run.settings.poll_interval)
        self._accepted = 0
        self._refusals: Counter[str] = Counter()
        self._first_refusal: dict[str, int] = {}
        self._refused_since: set[str] = set()
        self._reached = False
        self._silent_s = 0.0
        self._refused_at: float | None = None
        self._outages = 0

    async def work(self) -> None:
        """Submit rows as long as the run lasts."""
        while True:
            await self._submit(await self._next())

    async def _next(self) -> Record:
        """Wait for a row whose turn it is; its slot and its money are taken when this returns."""
        run, board = self._run, self._run.board
        async with self._turn:
            while True:
                now = run.tools.clock()
                record, when = board.next_pending(now)
                if board.stop is not None or (record is None and when is None):
                    await run.changed()
                elif record is None:
                    await run.changed((when or now) - now)
                elif (wait := self._gate_wait(now)) > 0:
                    await run.changed(None if wait == inf else wait)
                elif await self._affordable(record):
                    board.take(record)
                    board.submitting += 1
                    run.tools.gate.on_started(now)
                    return record

    def _gate_wait(self, now: float) -> float:
        run = self._run
        wait = max(run.board.paused_until - now, run.tools.gate.start_delay_s(now, self._in_flight()))
        return min(wait, run.settings.poll_interval) if run.board.doubts else wait

    def _in_flight(self) -> int:
        """Count what the vendor may be rendering: a young doubt too, for it may have been accepted."""
        run = self._run
        since = run.tools.wall() - YOUNG_DOUBT * run.settings.poll_interval
        return run.board.generating + sum(
            (run.board.records[key].submitted_at or 0.0) > since for key in run.board.doubts
        )

    async def _affordable(self, record: Record) -> bool:
        """Reserve the row's price; when the budget has no room, wait for what is in flight or stop."""
        run, budget = self._run, self._run.tools.budget
        if budget.limit_usd is None:
            return True
        price = run.tools.price_of(record)
        if price is None:
            run.board.take(record)
            run.board.left[record.key] = "its price is unknown: give --assume-price to run it under a budget"
            run.ring()
            return False
        if budget.reserve(record.key, price):
            run.board.no_room = False
            return True
        if run.board.submitting or run.board.generating or run.board.settling:
            await run.changed()
            return False
        if run.board.doubts:
            if not run.board.no_room:
                run.board.no_room = True
                run.ring()
            await run.changed()
            return False
        run.halt(StopReason.BUDGET, f"the budget of {budget.limit_usd:.2f} USD has no room for another row")
        return False

    async def _submit(self, record: Record) -> None:
        run, board = self._run, self._run.board
        try:
            after, verdict = await self._submitter.submit(record, run.tools.price_of(record))
        except Conflict:
            await self._lost(record)
            return
        except StopRun:
            board.records[record.key] = self._submitter.unsettled.get(record.key, record)
            raise
        finally:
            board.submitting -= 1
        board.generating += isinstance(verdict, Accepted)
        run.moved(record, after)
        await self._heed(after, verdict)
        if isinstance(verdict, Accepted):
            await self._looks.begin(after, verdict.generation_status)
        run.ring()

    async def _lost(self, record: Record) -> None:
        """Someone else moved the row: take their word for it."""
        run = self._run
        run.tools.gate.on_ended(run.tools.clock())
        current = await run.tools.ledger.get(record.key)
        if current is not None:
            run.board.records[record.key] = current
            run.tools.budget.update(current)
            run.board.left[record.key] = f"another process has it ({current.state})"
        run.ring()

    async def _heed(self, record: Record, verdict: CreateResult) -> None:
        """Tell gate, queue and user what the verdict means for those who come next."""
        run, now = self._run, self._run.tools.clock()
        gate, generating = run.tools.gate, self._in_flight()
        match verdict:
            case Accepted():
                gate.on_accepted(now, generating)
                self._answered()
                self._accepted += 1
            case Rejected():
                gate.on_ended(now)
                self._answered()
            case RateLimited(message=message, retry_after=header):
                gate.on_rate_limited(now, generating, parse_retry_after(header, now_utc=run.tools.wall()))
                self._answered()
                run.board.queue(record)
                run.say(Topic.THROTTLED, message, Level.DEBUG, record)
            case AccountBlocked(reason=reason, message=message, retry_after=header):
                gate.on_ended(now)
                run.board.queue(record)
                self._halted(reason, message, parse_retry_after(header, now_utc=run.tools.wall()))
            case RetryableRejection(message=message, reached=reached):
                gate.on_ended(now)
                await self._not_accepted(record, message, now, reached=reached)
            case OutcomeUnknown(message=message):
                gate.on_ended(now)
                run.board.doubts.add(record.key)
                run.say(Topic.IN_DOUBT, f"{record.id}: {message}", Level.WARNING, record)
            case unreachable:
                assert_never(unreachable)

    def _answered(self) -> None:
        self._reached, self._silent_s, self._refused_at, self._outages = True, 0.0, None, 0
        self._refused_since.clear()

    def _halted(self, reason: StopReason, message: str, retry_after_s: float | None) -> None:
        run = self._run
        if reason is StopReason.QUOTA and run.settings.wait_for_quota:
            pause = QUOTA_PAUSE_S if retry_after_s is None else retry_after_s
            run.board.paused_until = max(run.board.paused_until, run.tools.clock() + pause)
            run.say(Topic.WAITING, f"{message}; trying again in {pause:.0f} s", Level.WARNING)
            return
        run.halt(reason, message)

    async def _not_accepted(self, record: Record, message: str, now: float, *, reached: bool) -> None:
        """Try again later. An outage is nobody's fault; a refusal while others get through is the row's."""
        run = self._run
        run.say(Topic.CREATE_NOT_ACCEPTED, f"{record.id}: {message}", Level.DEBUG, record)
        self._reached = self._reached or reached
        self._count_silence(record, now)
        if reached:
            self._refusals[record.key] += 1
            self._first_refusal.setdefault(record.key, self._accepted)
            self._refused_since.add(record.key)
        if backoff.retries_exhausted(self._policy, self._refusals[record.key]):
            await self._give_up(record, message)
            return
        self._pause(now)
        wait = backoff.backoff_s(self._policy, max(self._refusals[record.key], 1))
        run.board.queue(record, now + wait)
        if self._silent_s >= backoff.outage_limit_s(ever_reached=self._reached):
            run.halt(StopReason.UNREACHABLE, message)

    def _count_silence(self, record: Record, now: float) -> None:
        """Count for how long creates were tried in vain; the time without a slot to try with is not part."""
        if self._refused_at is not None:
            tried_s = max(0.0, self._run.tools.wall() - (record.submitted_at or 0.0))
            self._silent_s += min(now - self._refused_at, self._policy.max_wait_s + tried_s)
        self._refused_at = now

    async def _give_up(self, record: Record, message: str) -> None:
        """Enough refusals. Blame the row when others got through meanwhile, or none but it is refused."""
        run = self._run
        words = f"{message}; given up after {self._policy.max_rejections} refusals"
        others = self._accepted > self._first_refusal[record.key]
        if others or (self._accepted and self._refused_since == {record.key}):
            failure = Failure("not_accepted", words)
            failed = record.evolve(State.FAILED, failure=failure, finished_at=run.tools.wall())
            try:
                await run.commit(record, failed)
            except Conflict:
                run.board.left[record.key] = "another process has it"
        else:
            run.board.left[record.key] = f"{words}; the next run tries again"

    def _pause(self, now: float) -> None:
        """After two refusals with nothing accepted between them, let one create at a time find out."""
        board = self._run.board
        if now < board.paused_until:
            return
        self._outages += 1
        if self._outages > 1:
            board.paused_until = now + backoff.backoff_s(self._policy, self._outages - 1)
