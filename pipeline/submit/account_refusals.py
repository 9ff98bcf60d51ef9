"""What a create that is refused in the account's name means for its row, and for the rows that come next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline import backoff
from pipeline.client.refusals import Refusal
from pipeline.errors import StopReason
from pipeline.events import Level, Topic
from pipeline.model import Failure, State
from pipeline.net.retry_after import parse_retry_after
from pipeline.submit.refused_rows import RefusedRows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pipeline.backoff import RetryPolicy
    from pipeline.client import AccountBlocked, Cause
    from pipeline.model import Record
    from pipeline.run_context import RunContext

    WaitOut = Callable[[Record, AccountBlocked], Awaitable[None]]

QUOTA_PAUSE_S: Final = 300.0

MAX_REFUSALS: Final = 3
"""How often a row is refused in the account's name before the run goes on without it, or stops."""


class AccountRefusals:
    """Stops the run for what is the account's by more than one row's answer; one row's refusal is its own."""

    def __init__(self, run: RunContext, policy: RetryPolicy, wait_out: WaitOut) -> None:
        """`wait_out` tries a row again later, as in an outage, and stops the run when that lasts."""
        self._run, self._policy, self._wait_out = run, policy, wait_out
        self.rows = RefusedRows()
        self._quota_refusals, self._quota_refused_after = 0, -1

    def hold_creates(self) -> bool:
        """Return whether no create may leave: after a refusal that nobody could explain, they go singly."""
        return self.rows.is_being_explained or (self.rows.is_unexplained and self._run.state.submitting > 0)

    async def on_refused(self, record: Record, result: AccountBlocked, sent: int) -> None:
        """Find out whose matter the refusal of the create with the place `sent` is, and act on it."""
        run, state = self._run, self._run.state
        # A 429 for the quota is the account's by its own words; no second opinion is needed.
        if result.reason is StopReason.QUOTA or state.stop_reason is not None:
            state.queue(record)
            self._block(result)
            return
        self.rows.on_refused(record.key, sent)
        http_status = 401 if result.reason is StopReason.KEY else 403
        refusal = Refusal(http_status, result.message, run.deps.price_of(record), self._held_usd())
        # A firewall answers one prompt with the 403 of an empty account, so the account is asked first.
        with self.rows.being_explained():
            cause = await run.deps.api.explain_refusal(refusal)
        # A prompt may be what a 403 refuses; no row is the reason of a 401, a redirect or a missing model.
        works = result.reason is StopReason.CREDITS and cause.account_works is True
        if self._is_outage(result, cause) and not self._is_rows_own(record, result):
            await self._wait_out(record, result)
        elif cause.blocked is not None or self.rows.is_accounts_own(account_works=works):
            state.queue(record)
            self._block(cause.blocked or cause.suspected or result)
        elif self._is_rows_own(record, result) and cause.account_works is not False:
            self.rows.on_given_up(record.key)
            failure = Failure("refused", self._told(record, result, cause))
            await run.commit(
                record, record.evolve(State.FAILED, failure=failure, finished_at=run.deps.wall())
            )
        else:
            self._queue_again(record, result, cause)

    def _is_outage(self, result: AccountBlocked, cause: Cause) -> bool:
        """Return whether several rows are refused by what had accepted others, with nothing against it.

        An ingress that is being rolled out or a key store that hiccups refuses all of them for some seconds.
        """
        if cause.blocked is not None or cause.suspected is not None or result.reason is StopReason.MODEL:
            return False
        # Credits explain neither a 401 nor a redirect, so they need not be known for those.
        innocent = result.reason is not StopReason.CREDITS or cause.account_works or cause.unanswered
        return bool(innocent and self.rows.has_accepted and self.rows.is_accounts_own())

    def _is_rows_own(self, record: Record, result: AccountBlocked) -> bool:
        """Return whether the row fails: a key, an address and a model are refused whatever a row holds."""
        return result.reason is StopReason.CREDITS and self.rows.is_rows_own(record.key)

    def _told(self, record: Record, result: AccountBlocked, cause: Cause) -> str:
        """Return what a row's author is told of its refusal."""
        others = self.rows.is_rows_own(record.key) or not cause.account_works
        witness = "others were accepted" if others else "the account works"
        advice = "; it may be its prompt or its picture" if result.reason is StopReason.CREDITS else ""
        return f"refused, though {witness}{advice}: {result.message}"

    def _held_usd(self) -> float:
        """Return what the account may hold for the run's own generations, beyond what it has charged."""
        run, state = self._run, self._run.state
        rows = (state.records[key] for key in state.in_flight | state.in_doubt if key in state.records)
        return sum(run.deps.price_of(record) or 0.0 for record in rows)

    def _queue_again(self, record: Record, result: AccountBlocked, cause: Cause) -> None:
        """Nobody can say yet whose the refusal is: other rows try first, then this one again."""
        run, refusals = self._run, self.rows.refusals(record.key)
        run.report_event(Topic.CREATE_NOT_ACCEPTED, f"{record.id}: {result.message}", Level.DEBUG, record)
        if refusals < MAX_REFUSALS:
            run.state.queue(record, run.deps.clock() + backoff.backoff_s(self._policy, refusals))
        elif cause.account_works or self.rows.is_rows_own(record.key):
            self.rows.on_given_up(record.key)
            run.state.unfinished[record.key] = self._told(record, result, cause)
        else:
            run.state.queue(record)
            self._block(cause.suspected or result)

    def _block(self, result: AccountBlocked) -> None:
        """Stop submitting, or wait for the quota where the user asked for that."""
        run = self._run
        if result.reason is not StopReason.QUOTA or not run.settings.wait_for_quota:
            run.stop_submitting(result.reason, result.message)
            return
        wait_s = parse_retry_after(result.retry_after, now_utc=run.deps.wall())
        pause = QUOTA_PAUSE_S if wait_s is None else max(wait_s, self._least_pause_s())
        run.state.paused_until = max(run.state.paused_until, run.deps.clock() + pause)
        run.report_event(Topic.WAITING, f"{result.message}; trying again in {pause:.0f} s", Level.WARNING)

    def _least_pause_s(self) -> float:
        """Return how long to wait for the quota whatever the answer says: longer each time in succession."""
        if self._quota_refused_after != self.rows.last_accepted:
            self._quota_refused_after, self._quota_refusals = self.rows.last_accepted, 0
        # Creates that left together are refused together: that is one time.
        self._quota_refusals += self._run.deps.clock() >= self._run.state.paused_until
        return backoff.backoff_s(self._policy, self._quota_refusals)
