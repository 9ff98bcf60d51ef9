"""The reconciler: rows in doubt against the vendor's log, one pass for all, until they are settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.errors import Conflict, StopReason
from pipeline.events import Level, Topic
from pipeline.model import State
from pipeline.reconcile.request_log import judged, read_log, settles_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.model import Record
    from pipeline.reconcile.request_log import LogPass
    from pipeline.run_context import Run

FIRST_PASS: Final = 0.3
LONGEST_GAP: Final = 3.0
"""Passes come after 0.3 poll intervals, then further apart, up to 3: a log row comes with its generation's
end and late, so asking faster than the generations are looked at finds nothing more."""

NO_STAYING: Final = frozenset({StopReason.INTERRUPTED, StopReason.KEY, StopReason.LEDGER})
"""Reasons to stop after which no run stays for its rows in doubt; they are the next run's."""


class Reconciler:
    """Owns the rows in doubt of one run."""

    def __init__(self, run: Run, track: Callable[[Record], None]) -> None:
        self._run = run
        self._track = track
        self._passes = 0
        self._asked_since: set[str] = set()
        for record in run.board.records.values():
            if record.state is State.IN_DOUBT:
                run.board.doubts.add(record.key)

    async def work(self) -> None:
        """Read the log as long as there are doubts; a new doubt is looked for soon."""
        run, interval = self._run, self._run.settings.poll_interval
        gap = FIRST_PASS
        known: frozenset[str] = frozenset()
        while True:
            if not run.board.doubts:
                gap = FIRST_PASS
                await run.changed()
                continue
            await self._wait(max(self._next_gap(gap * interval), run.tools.log_gap_s))
            fresh = not run.board.doubts <= known
            gap = FIRST_PASS if fresh else min(gap * 1.7, LONGEST_GAP)
            known = frozenset(run.board.doubts)
            await self._pass()

    async def _wait(self, wait_s: float) -> None:
        """Wait out the whole gap, however often the bell rings."""
        clock = self._run.tools.clock
        until = clock() + wait_s
        while (rest := until - clock()) > 0:
            await self._run.changed(rest)

    def _next_gap(self, gap_s: float) -> float:
        """Shorten a gap when some row's absence becomes a proof within it."""
        now = self._run.tools.wall()
        waits = [settles_at(record, self._run.settings.doubt_s) - now for record in self._doubtful()]
        soonest = min((wait for wait in waits if wait > 0), default=gap_s)
        return min(gap_s, soonest + 0.01)

    def _doubtful(self) -> list[Record]:
        return [self._run.board.records[key] for key in self._run.board.doubts]

    async def _pass(self) -> None:
        run = self._run
        doubtful = self._doubtful()
        asked_at = run.tools.wall()
        seen = await read_log(run.tools.api, doubtful, asked_at, gap_s=run.tools.log_gap_s)
        if seen.trouble:
            run.say(Topic.WAITING, f"the vendor's log cannot be read: {seen.trouble}", Level.DEBUG)
        for record in doubtful:
            await self._settle(record, seen, asked_at)
        self._asked_since.update(record.key for record in doubtful)
        run.ring()

    async def _settle(self, record: Record, seen: LogPass, asked_at: float) -> None:
        run = self._run
        after = judged(record, seen, asked_at=asked_at, doubt_s=run.settings.doubt_s)
        if after is None:
            return
        try:
            after = await run.commit(record, after)
        except Conflict:
            run.board.left[record.key] = "another process has it"
            run.board.doubts.discard(record.key)
            return
        run.board.doubts.discard(record.key)
        if after.state is State.GENERATING:
            self._track(after)
            run.say(Topic.RECONCILED, f"{record.id}: found in the vendor's log", Level.INFO, record)
        else:
            run.board.queue(after)
            run.say(Topic.RECONCILED, f"{record.id}: never accepted; submitting it again", Level.INFO, record)

    async def until_settled(self) -> None:
        """Return when nothing is alive any more; stay for rows in doubt as long as the user allows."""
        run, board = self._run, self._run.board
        idle_since: float | None = None
        while board.busy() or self._worth_waiting():
            if board.busy():
                idle_since = None
                await run.changed()
                continue
            now = run.tools.clock()
            if idle_since is None:
                idle_since = now
                self._say_waiting()
            patience = run.settings.reconcile_wait
            rest = None if patience is None else idle_since + patience - now
            if rest is not None and rest <= 0 and board.doubts <= self._asked_since:
                words = (
                    f"{len(board.doubts)} row(s) are in doubt and the vendor's log does not settle them yet"
                )
                run.halt(StopReason.IN_DOUBT, words)
                return
            await run.changed(None if rest is None else max(rest, 0.05))

    def _worth_waiting(self) -> bool:
        board = self._run.board
        return bool(board.doubts) and not board.impatient and board.stop not in NO_STAYING

    def _say_waiting(self) -> None:
        run = self._run
        last = max((settles_at(record, run.settings.doubt_s) for record in self._doubtful()), default=0.0)
        wait = max(0.0, last - run.tools.wall())
        words = (
            f"waiting for {len(run.board.doubts)} row(s) in doubt: the vendor's log shows them, "
            f"or proves within {wait:.0f} s that they were never accepted"
        )
        run.say(Topic.WAITING, words, Level.WARNING)
