"""The account: the one actor that lends rows, permits to create, the pace of looks, and what is learned.

It owns the epoch in the ledger, the gate, the budget and the list of who is alive. A worker that was silent
for longer than its lease is revoked: its rows go to others, and its slots come back row by row, as those
others find out what became of them. Nothing here is a truth of its own: all of it is rebuilt from the
ledger when another account begins.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final

from pipeline.cluster.budget import UNPRICED, Purse
from pipeline.cluster.limits import Lender, PaceLender
from pipeline.cluster.messages import Reply, Standing
from pipeline.cluster.opening import open_ledger
from pipeline.cluster.shared_durations import Lessons
from pipeline.errors import StopReason, StopRun
from pipeline.events import Event, Level, Topic
from pipeline.ledger.leases import IN_FLIGHT
from pipeline.model import State
from pipeline.poll.rate_limit import LookPace
from pipeline.submit.concurrency import CreateGate
from pipeline.submit.pool import YOUNG_DOUBT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pipeline.cluster.messages import ClusterJob, Leaving, Report
    from pipeline.ledger import Ledger
    from pipeline.ledger.leases import Leased
    from pipeline.model import Record

SAID_ONCE_S: Final = 10.0
UNKNOWN: Final = 60.0


class Account:
    """Lends what is scarce to the workers of one epoch. Ray calls its methods, all in one loop.

    What is wrong with the ledger never raises here: it halts the run, and is told as its reason.
    """

    def __init__(self, job: ClusterJob, epoch: int, orphans: frozenset[str]) -> None:
        self._job = job
        self._epoch = epoch
        settings = job.settings
        pace = settings.poll_interval
        self._lender = Lender(
            CreateGate(settings.concurrency, interval_s=pace, random=random.Random()), orphans
        )
        self._paces = PaceLender(LookPace(interval_s=pace))
        self._purse = Purse(job)
        self._lessons = Lessons(pace, job.memory)
        self._one_at_a_time = asyncio.Lock()
        self._heard: dict[str, float] = {}
        self._looked_at = time.monotonic()
        self._busy: set[str] = set()
        self._lapsed: set[str] = set()
        self._paid_rows = self._unpaid_rows = True
        self._moved: dict[str, Record] = {}
        self._events: list[Event] = []
        self._said_at: dict[str, float] = {}
        self._longest_s = 0.0
        self._left: dict[str, str] = {}
        self._overdue: set[str] = set()
        self._stop: tuple[StopReason, str] | None = None
        self._impatient = self._abandon = False
        self._ledger: Ledger | None = None

    async def begin(self) -> None:
        """Open the ledger and count the money that is spent or set aside."""
        async with self._halting():
            self._ledger = await open_ledger(self._job, "the account", on_pause=self._waits, say=self.say)
            if self._purse.limited:
                self._purse.count(await self._ledger.load())

    async def join(self, worker: str) -> dict[str, Any]:
        """A worker begins; return what is known of durations."""
        self._heard[worker] = time.monotonic()
        return self._lessons.join(worker)

    async def say(self, event: Event) -> None:
        """Hear of whoever has not begun yet, and may never."""
        self._hear(event)

    async def exchange(self, report: Report) -> Reply:
        """Take a worker's report and give it what it needs."""
        worker, now = report.worker, time.monotonic()
        if worker not in self._heard:
            return Reply(known=False)
        self._heard[worker] = inf  # it waits for us, perhaps as long as we wait for the database
        self._note(report)
        over = sum(age_s > self._doubt_renders_s() for age_s in report.doubts)
        self._lender.report(worker, now, report.in_flight - over, report.verdicts)
        share = self._paces.report(worker, now, report.looked)
        permits = self._lender.grant(worker, now, 0 if self._stop else report.permits_wanted)
        rows = await self._lend(worker, report.rows_wanted, report.room)
        known = worker in self._heard
        if known:
            self._heard[worker] = time.monotonic()
        return Reply(
            known=known,
            permits=permits,
            share=share,
            rows=tuple(rows),
            more=self._may_lend() or bool(self._busy),
            lessons=self._lessons.news(worker),
            stop=self._stop,
            impatient=self._impatient,
            abandon=self._abandon,
        )

    async def leave(self, leaving: Leaving) -> None:
        """A worker has ended by itself; what it leaves is lent to nobody else in this epoch."""
        worker = leaving.report.worker
        if worker not in self._heard:
            return
        self._heard[worker] = inf
        self._note(leaving.report)
        self._left.update(leaving.left)
        self._overdue |= leaving.overdue
        await self._revoke(worker, tuple(leaving.left))

    async def gone(self, worker: str) -> None:
        """A worker is known to be dead: its rows need not wait for its lease to end."""
        await self._revoke(worker)

    async def standing(self) -> Standing:
        """Revoke whoever was silent for too long; return how things stand, and forget what was told."""
        now = time.monotonic()
        if now - self._looked_at > self._job.lease_s:  # it was us who were stopped, and deaf
            self._heard = {worker: max(heard, now) for worker, heard in self._heard.items()}
        self._looked_at = now
        for worker, heard in list(self._heard.items()):
            if now - heard > self._job.lease_s:
                self._lapsed.add(worker)
                await self._revoke(worker)
        events, self._events = tuple(self._events), []
        moved, self._moved = tuple(self._moved.values()), {}
        left, self._left = self._left, {}
        overdue, self._overdue = frozenset(self._overdue), set()
        return Standing(
            working=frozenset(self._heard),
            lapsed=frozenset(self._lapsed),
            moved=moved,
            events=events,
            stop=self._stop,
            waiting=self._may_lend(),
            left=left,
            overdue=overdue,
            short=(StopReason.BUDGET, self._purse.words) if self._purse.short else None,
        )

    async def interrupt(self, message: str, *, abandon: bool = False) -> None:
        """The user wants out: finish what is paid, or stop at once."""
        self._impatient = True
        self._abandon = self._abandon or abandon
        self.halt(StopReason.INTERRUPTED, message)

    async def learned(self) -> dict[str, Any]:
        """Return what was learned of durations, for the next run."""
        return self._lessons.known()

    async def end(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            await self._ledger.close()

    def halt(self, reason: StopReason, message: str) -> None:
        """All stop submitting; the first reason is kept."""
        if self._stop is None:
            self._stop = (reason, message)

    def _note(self, report: Report) -> None:
        """Take over what a worker tells of its rows, of durations, and of the run."""
        for event in report.events:
            self._hear(event)
        self._moved.update((record.key, record) for record in report.moved)
        self._purse.settle(report.moved)
        self._longest_s = max(self._longest_s, *map(_rendered_s, report.moved), 0.0)
        self._lessons.learn(report.worker, report.lessons)
        (self._busy.add if report.busy else self._busy.discard)(report.worker)
        if report.stop is not None:
            self.halt(*report.stop)

    def _doubt_renders_s(self) -> float:
        """For how long a row in doubt is taken to be rendering: the doubt may last longer, and others wait.

        Until the longest time that any generation has taken is over twice. As long as none has ended, for
        what the vendor's own client waits for one: 60 looks, ten minutes at the usual pace.
        """
        settings = self._job.settings
        pace = settings.poll_interval
        longest_s = max(2 * self._longest_s, YOUNG_DOUBT * pace) if self._longest_s else UNKNOWN * pace
        return min(settings.timeout, longest_s)

    def _waits(self, words: str) -> None:
        self._hear(Event(Topic.WAITING, words, Level.WARNING))

    def _hear(self, event: Event) -> None:
        """Pass an event on; what all workers wait for is said once."""
        now = time.monotonic()
        if event.topic is Topic.WAITING:
            if now - self._said_at.get(event.message, -inf) < SAID_ONCE_S:
                return
            self._said_at[event.message] = now
        self._events.append(event)

    def _may_lend(self) -> bool:
        """Say whether a worker might get a row: one that is paid, or one that may still be submitted."""
        if self._abandon:
            return False
        return self._paid_rows or (self._unpaid_rows and self._stop is None and not self._purse.short)

    async def _lend(self, worker: str, wanted: int, room: int) -> list[tuple[Leased, float | None]]:
        """Lend rows, each with its price; while all stop, only such as are paid.

        Those under way are lent to whoever has room: they keep slots, without which nobody might ever come
        to want another row.
        """
        lent: list[tuple[Leased, float | None]] = []
        async with self._halting(), self._one_at_a_time:
            most = max(wanted, room) if self._paid_rows else wanted
            if not (most and self._may_lend() and worker in self._heard):
                return lent
            ledger = self._open()
            claimed = await ledger.claim(self._epoch, worker, most)
            self._lender.took(worker, [row.record.key for row in claimed if row.record.state in IN_FLIGHT])
            self._moved.update((row.record.key, row.record) for row in claimed)
            # Those under way come first: whoever got another one, or fewer than asked, got the last of them.
            unpaid = [row for row in claimed if row.record.state is State.PENDING]
            self._paid_rows = self._paid_rows and not unpaid and len(claimed) == most
            self._unpaid_rows = self._unpaid_rows and len(claimed) == most
            paid = [row for row in claimed if row.record.state is not State.PENDING]
            kept = unpaid[: max(0, wanted - len(paid))] if self._stop is None else []
            if len(kept) < len(unpaid):
                await self._give_back([row.record.key for row in unpaid[len(kept) :]])
            claimed = [*paid, *kept]
            lent, unpriced, too_dear = self._purse.sort(claimed)
            if unpriced:
                self._left.update(dict.fromkeys(unpriced, UNPRICED))
                await ledger.revoke(self._epoch, "", unpriced)
            if too_dear:
                await self._give_back(too_dear)
            if lent:
                self._busy.add(worker)
        return lent

    async def _give_back(self, keys: Sequence[str]) -> None:
        await self._open().give_back(self._epoch, keys)
        self._unpaid_rows = True

    async def _revoke(self, worker: str, left: Sequence[str] | None = None) -> None:
        """End a worker's leases. What it has `left` it has told itself; None: it told nothing."""
        async with self._halting(), self._one_at_a_time:
            if worker not in self._heard:
                return
            try:
                had = await self._open().revoke(self._epoch, worker, left or ())
                if left is None and self._purse.limited:
                    # Some row may have failed without a word of it: its money buys another one.
                    self._purse.settle(await self._open().load())
            finally:
                self._forget(worker)  # until now it counts as working: a look must not find nothing left
            self._lender.gone(worker, time.monotonic(), had.in_flight)
            if had.freed:
                self._paid_rows = self._unpaid_rows = True
                self._purse.short = False  # what was set aside for its rows is there for whoever gets them

    def _forget(self, worker: str) -> None:
        del self._heard[worker]
        self._paces.gone(worker)
        self._lessons.gone(worker)
        self._busy.discard(worker)

    @asynccontextmanager
    async def _halting(self) -> AsyncIterator[None]:
        """Let trouble with the ledger, or another driver's epoch, be what halts the run."""
        try:
            yield
        except StopRun as trouble:
            self.halt(trouble.reason, str(trouble))
            self._paid_rows = self._unpaid_rows = False

    def _open(self) -> Ledger:
        if self._ledger is None:
            raise StopRun(StopReason.LEDGER, "the account has no ledger")
        return self._ledger


def _rendered_s(record: Record) -> float:
    """How long a generation took to be seen as ended, 0.0 if it has not."""
    if record.finished_at is None or record.accepted_at is None:
        return 0.0
    return record.finished_at - record.accepted_at
