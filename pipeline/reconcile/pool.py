"""The reconciler: rows in doubt against the vendor's log, one pass for all, until they are settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.errors import Conflict, StopReason
from pipeline.events import Level, Topic
from pipeline.model import State
from pipeline.reconcile.request_log import absence_conclusive_at, fetch_log, reconcile_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.model import Record
    from pipeline.reconcile.request_log import LogPass
    from pipeline.run_context import RunContext

FIRST_PASS_INTERVALS: Final = 0.3
MAX_GAP_INTERVALS: Final = 3.0
"""Passes come after 0.3 poll intervals, then further apart, up to 3: a log row comes with its generation's
end and late, so asking faster than the generations are looked at finds nothing more."""

NO_WAIT_REASONS: Final = frozenset({StopReason.INTERRUPTED, StopReason.KEY, StopReason.LEDGER})
"""Reasons to stop after which no run stays for its rows in doubt; they are the next run's."""


class ReconcilerPool:
    """Owns the rows in doubt of one run."""

    def __init__(self, run: RunContext, track: Callable[[Record], None]) -> None:
        self._run = run
        self._track = track
        self._passes = 0
        self._asked_since: set[str] = set()
        for record in run.state.records.values():
            if record.state is State.IN_DOUBT:
                run.state.in_doubt.add(record.key)

    async def work(self) -> None:
        """Read the log as long as there are doubts; a new doubt is looked for soon."""
        run, interval = self._run, self._run.settings.poll_interval
        gap = FIRST_PASS_INTERVALS
        known: frozenset[str] = frozenset()
        while True:
            if not run.state.in_doubt:
                gap = FIRST_PASS_INTERVALS
                await run.wait_changed()
                continue
            await self._wait(max(self._next_gap(gap * interval), run.deps.log_gap_s))
            fresh = not run.state.in_doubt <= known
            gap = FIRST_PASS_INTERVALS if fresh else min(gap * 1.7, MAX_GAP_INTERVALS)
            known = frozenset(run.state.in_doubt)
            await self._run_pass()

    async def _wait(self, wait_s: float) -> None:
        """Wait out the whole gap, however often the bell rings."""
        clock = self._run.deps.clock
        until = clock() + wait_s
        while (rest := until - clock()) > 0:
            await self._run.wait_changed(rest)

    def _next_gap(self, gap_s: float) -> float:
        """Shorten a gap when some row's absence becomes a proof within it."""
        now = self._run.deps.wall()
        waits = [
            absence_conclusive_at(record, self._run.settings.reconcile_after_s) - now
            for record in self._records_in_doubt()
        ]
        soonest = min((wait for wait in waits if wait > 0), default=gap_s)
        return min(gap_s, soonest + 0.01)

    def _records_in_doubt(self) -> list[Record]:
        return [self._run.state.records[key] for key in self._run.state.in_doubt]

    async def _run_pass(self) -> None:
        run = self._run
        doubtful = self._records_in_doubt()
        asked_at = run.deps.wall()
        seen = await fetch_log(run.deps.api, doubtful, asked_at, gap_s=run.deps.log_gap_s)
        if seen.error:
            run.report_event(Topic.WAITING, f"the vendor's log cannot be read: {seen.error}", Level.DEBUG)
        for record in doubtful:
            await self._settle(record, seen, asked_at)
        self._asked_since.update(record.key for record in doubtful)
        run.notify()

    async def _settle(self, record: Record, log_pass: LogPass, asked_at: float) -> None:
        run = self._run
        after = reconcile_record(
            record, log_pass, asked_at=asked_at, reconcile_after_s=run.settings.reconcile_after_s
        )
        if after is None:
            return
        try:
            after = await run.commit(record, after)
        except Conflict:
            run.state.unfinished[record.key] = "another process has it"
            run.state.in_doubt.discard(record.key)
            return
        run.state.in_doubt.discard(record.key)
        if after.state is State.GENERATING:
            self._track(after)
            run.report_event(Topic.RECONCILED, f"{record.id}: found in the vendor's log", Level.INFO, record)
        else:
            run.state.queue(after)
            run.report_event(
                Topic.RECONCILED, f"{record.id}: never accepted; submitting it again", Level.INFO, record
            )

    async def until_settled(self) -> None:
        """Return when nothing is alive any more; stay for rows in doubt as long as the user allows."""
        run, board = self._run, self._run.state
        idle_since: float | None = None
        while board.busy() or self._worth_waiting():
            if board.busy():
                idle_since = None
                await run.wait_changed()
                continue
            now = run.deps.clock()
            if idle_since is None:
                idle_since = now
                self._report_waiting()
            patience = run.settings.reconcile_wait
            rest = None if patience is None else idle_since + patience - now
            if rest is not None and rest <= 0 and board.in_doubt <= self._asked_since:
                words = (
                    f"{len(board.in_doubt)} row(s) are in doubt and the vendor's log does not settle them yet"
                )
                run.stop_submitting(StopReason.IN_DOUBT, words)
                return
            await run.wait_changed(None if rest is None else max(rest, 0.05))

    def _worth_waiting(self) -> bool:
        board = self._run.state
        return bool(board.in_doubt) and not board.stop_requested and board.stop_reason not in NO_WAIT_REASONS

    def _report_waiting(self) -> None:
        run = self._run
        last = max(
            (
                absence_conclusive_at(record, run.settings.reconcile_after_s)
                for record in self._records_in_doubt()
            ),
            default=0.0,
        )
        wait = max(0.0, last - run.deps.wall())
        words = (
            f"waiting for {len(run.state.in_doubt)} row(s) in doubt: the vendor's log shows them, "
            f"or proves within {wait:.0f} s that they were never accepted"
        )
        run.report_event(Topic.WAITING, words, Level.WARNING)
