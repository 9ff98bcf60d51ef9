"""The reconciler pool: asks about rows in doubt, one pass for all, and says when waiting no longer helps."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.circuit_breaker import CircuitBreaker
from pipeline.client import StatusError, key_id
from pipeline.errors import Conflict, StopReason
from pipeline.events import Level, Topic
from pipeline.model import State
from pipeline.poll.unknown_generations import UnknownIds
from pipeline.reconcile.end_of_run import EndOfRunWait
from pipeline.reconcile.in_doubt import (
    describe,
    describe_unknown_generation,
    is_of_another_key,
    judge_unknown_generation,
    mark_explained,
    settled_message,
)
from pipeline.reconcile.reconciler import Reconciler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.model import Record
    from pipeline.reconcile.in_doubt import Verdict
    from pipeline.reconcile.request_log import LogPass
    from pipeline.run_context import RunContext

FIRST_PASS_INTERVALS: Final = 0.3
MAX_GAP_INTERVALS: Final = 3.0
"""Passes come after 0.3 poll intervals, then further apart, up to 3: a log row comes with its generation's
end and late, so asking faster than the generations are polled finds nothing more."""

SLOT_INTERVALS: Final = 120.0
"""How long a generation that the vendor does not know keeps its slot, in poll intervals: twenty minutes at
10 s. It may render; outages of the status endpoint are over by then."""

NO_WAIT_REASONS: Final = frozenset({StopReason.INTERRUPTED, StopReason.KEY, StopReason.LEDGER})
"""Reasons to stop after which no run stays for its rows in doubt; they are the next run's."""


class ReconcilerPool:
    """Owns the rows in doubt of one run, and asks about generations that the vendor does not know."""

    def __init__(
        self, run: RunContext, track: Callable[[Record], None], give_up_unknown: Callable[[str], bool]
    ) -> None:
        """`track` polls a generation, `give_up_unknown` ends that unless a poll has said more of it."""
        self._run = run
        self._track = track
        self._give_up_unknown = give_up_unknown
        self._unknown_notes: dict[str, str] = {}
        self._breaker = CircuitBreaker()
        # A row that a pass settles and the run's end explains at once would conflict with itself.
        self._settling = anyio.Lock(fast_acquire=True)
        deps, wait_s = run.deps, run.settings.reconcile_after
        self._reconciler = Reconciler(
            deps.api,
            deps.ledger.identity,
            wait_s,
            deps.clock,
            deps.wall,
            deps.log_gap_s,
            key_id(deps.api.key.secret, deps.ledger.identity),
            deps.ledger.load,
            UnknownIds(run.settings.poll_interval, {}, set()),
        )
        pass_gap_s = max(MAX_GAP_INTERVALS * run.settings.poll_interval, 4 * deps.log_gap_s)
        self._wait = EndOfRunWait(wait_s, run.settings.reconcile_wait, pass_gap_s)
        for record in run.state.records.values():
            if record.state is State.IN_DOUBT:
                run.state.in_doubt.add(record.key)

    async def work(self) -> None:
        """Read the log as long as there is something to ask; a new doubt is asked about soon."""
        run, interval = self._run, self._run.settings.poll_interval
        gap = FIRST_PASS_INTERVALS
        previous: frozenset[str] = frozenset()
        while True:
            if not (run.state.in_doubt or run.state.unknown):
                gap = FIRST_PASS_INTERVALS
                await run.wait_changed()
                continue
            await self._sleep(max(self._wait.next_pass_s(gap * interval), run.deps.log_gap_s))
            has_new = not run.state.in_doubt <= previous
            gap = FIRST_PASS_INTERVALS if has_new else min(gap * 1.7, MAX_GAP_INTERVALS)
            previous = frozenset(run.state.in_doubt)
            asked = sorted({*run.state.in_doubt, *run.state.unknown})  # a set has no order to repeat
            for key in await run.guard_each(asked, self._breaker, self._run_pass):
                self._leave(key)

    async def _sleep(self, wait_s: float) -> None:
        """Wait out the whole gap, however often something else changes."""
        clock = self._run.deps.clock
        deadline = clock() + wait_s
        while (remaining_s := deadline - clock()) > 0:
            await self._run.wait_changed(remaining_s)

    async def _run_pass(self, keys: Sequence[str]) -> None:
        """Ask about the rows of `keys` that are not settled yet."""
        run = self._run
        in_doubt = [run.state.records[key] for key in keys if key in run.state.in_doubt]
        unknown = [run.state.records[key] for key in keys if key in run.state.unknown]
        # For submissions of this run the monotonic clock alone measures: the wall clock may be set.
        self._reconciler.timer.sent = run.state.doubt_began
        known = run.state.records.values()
        # The time before the pass: what entered the log while it was read need not be in it.
        began = run.deps.clock()
        asked, order = [*in_doubt, *unknown], run.state.submission_order()
        log, verdicts = await self._reconciler.ask(asked, known, order)
        verdicts = await self._reconciler.ask_failed(in_doubt, verdicts)
        if log.error:
            run.report_event(Topic.WAITING, f"the vendor's log cannot be read: {log.error}", Level.DEBUG)
        if unknown:
            await self._ask_for_a_known_one()
            if not self._unknown_notes:
                self._report_unknown(len(unknown))
        self._wait.on_pass(log, {record.key: verdicts[record.key] for record in in_doubt}, began)
        async with self._settling:
            for record in in_doubt:
                if record.key in run.state.in_doubt:
                    await self._reconcile(run.state.records[record.key], verdicts[record.key])
            for record in unknown:
                await self._settle_unknown(record, log, verdicts[record.key])
        run.notify()

    def _leave(self, key: str) -> None:
        """Ask no more about a row in this run."""
        self._run.state.in_doubt.discard(key)
        self._give_up_unknown(key)
        self._run.notify()

    async def _reconcile(self, record: Record, verdict: Verdict) -> None:
        retries = self._run.settings.generation_retries
        after = self._reconciler.settle(record, verdict, generation_retries=retries)
        if after is not record:
            await self._commit(record, after, f"{record.id}: {settled_message(record, after)}")

    async def _commit(self, record: Record, after: Record, message: str) -> None:
        run = self._run
        try:
            after = await run.commit(record, after)
        except Conflict:
            run.leave_to_other_process(record.key)
            run.state.in_doubt.discard(record.key)
            return
        if after.state is State.IN_DOUBT:
            return
        run.state.in_doubt.discard(record.key)
        if after.state is State.GENERATING:
            self._track(after)
        # Only now, with its absence proven and on disk, may the row be sent again.
        elif after.state is State.PENDING:
            run.state.queue(after)
        run.report_event(Topic.RECONCILED, message, Level.INFO, record)

    async def _ask_for_a_known_one(self) -> None:
        """Poll the generation that ended last: whether any is known tells a lost one from an outage."""
        run = self._run
        ended = (r for r in run.state.records.values() if r.state in (State.READY, State.DONE))
        last = max(ended, key=lambda record: record.finished_at or 0.0, default=None)
        if last is None or not last.generation_id:
            return
        status = await run.deps.api.get_status(last.generation_id, new_connection=True)
        if not isinstance(status, StatusError):
            run.state.status_known_at = run.deps.clock()

    def _report_unknown(self, count: int) -> None:
        message = (
            f"the vendor answers {count} generation(s) with 404 for minutes: they are polled on until their "
            "deadline, unless its log proves that they are over"
        )
        self._run.report_event(Topic.WAITING, message, Level.WARNING)

    async def _settle_unknown(self, record: Record, log: LogPass, verdict: Verdict) -> None:
        """Close a generation that is proven not to be there, or leave it to the next run.

        While the vendor knows no other generation either, it is polled on: that may be a matter of minutes.
        """
        run, key = self._run, record.key
        since, interval_s = run.state.unknown.get(key, inf), run.settings.poll_interval
        is_missing = key in run.state.missing
        after = judge_unknown_generation(record, log, verdict, run.deps.wall(), is_missing=is_missing)
        known = self._unknown_notes[key] = describe_unknown_generation(record, log, verdict)
        if after is None and not is_missing and not is_of_another_key(verdict):
            # What still rendered when it was last known has ended since: its slot is free.
            if run.deps.clock() - since > SLOT_INTERVALS * interval_s:
                run.state.in_flight.discard(key)
            return
        # Since the log was asked, a poll may have said more.
        if run.state.records[key] is not record or not self._give_up_unknown(key):
            return
        if after is None:
            run.state.unfinished[key] = known
            return
        run.state.finishing += 1
        try:
            await run.commit(record, after)
        except Conflict:
            run.leave_to_other_process(key)
        finally:
            run.state.finishing -= 1

    async def wait_until_idle(self) -> None:
        """Return when nothing is alive any more, and no row in doubt is worth waiting for."""
        await self._wait_until_idle()
        # A pass that was under way may have settled rows: those go on.
        while not await self._explain():
            await self._wait_until_idle()

    async def _wait_until_idle(self) -> None:
        run, state = self._run, self._run.state
        idle_since: float | None = None
        while state.busy() or self._should_wait():
            if state.busy():
                idle_since = None
                await run.wait_changed()
                continue
            now = run.deps.clock()
            if idle_since is None:
                idle_since = now
                self._report_waiting()
            remaining_s = self._wait.remaining_s(state.in_doubt, idle_since, now)
            if remaining_s <= 0:
                break
            # The floor keeps a remainder of microseconds from turning the loop at full speed.
            await run.wait_changed(max(remaining_s, 0.05))

    def _should_wait(self) -> bool:
        state = self._run.state
        return bool(state.in_doubt) and not state.stop_requested and state.stop_reason not in NO_WAIT_REASONS

    def _report_waiting(self) -> None:
        count = len(self._run.state.in_doubt)
        message = (
            f"waiting for {count} row(s) in doubt: the vendor's log shows them, or proves within "
            f"{self._wait.longest_needed_s(self._run.state.in_doubt):.0f} s that they were never accepted"
        )
        self._run.report_event(Topic.WAITING, message, Level.WARNING)

    async def _explain(self) -> bool:
        """Write down what each row still lacks, for whoever reads the table, and say it once.

        Returns False, and writes nothing, when a pass has brought rows back to life meanwhile.
        """
        run = self._run
        async with self._settling:
            if run.state.busy():
                return False
            reasons = {
                key: describe(missing)
                for key in sorted(run.state.in_doubt)
                if (missing := self._wait.missing.get(key)) is not None
            }
            for key, reason in reasons.items():
                record = run.state.records[key]
                run.state.unfinished[key] = f"in doubt: {reason}"
                explained = mark_explained(record, reason)
                if explained is not None:
                    await self._commit(record, explained, "")
            for key in sorted(run.state.unknown.keys() & run.state.overdue & self._unknown_notes.keys()):
                run.state.unfinished[key] = self._unknown_notes[key]
        if run.state.in_doubt:
            first = next(iter(reasons.values()), "the vendor's log has not been asked yet")
            message = f"{len(run.state.in_doubt)} row(s) are in doubt: {first}"
            run.stop_submitting(StopReason.IN_DOUBT, message)
        return True
