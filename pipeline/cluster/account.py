"""The account: the one actor that lends rows, permits to create, and what is learned of durations.

It owns the epoch in the ledger, the gate, the budget and the list of who is alive. A worker that was silent
for longer than its lease is revoked: its rows go to others, and its slots come back row by row, as those
others find out what became of them. Nothing here is a truth of its own: all of it is rebuilt from the
ledger when another account begins.
"""

from __future__ import annotations

import asyncio
import random
import time
from math import inf
from typing import TYPE_CHECKING, Any

from pipeline.budget import Budget
from pipeline.cluster.job import Reply, Standing
from pipeline.errors import StopReason
from pipeline.ledger import Ledger
from pipeline.ledger.leases import IN_FLIGHT
from pipeline.model import State
from pipeline.pacing import CreateGate, Lender
from pipeline.polling import DurationLearner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cluster.job import ClusterJob, Leaving, Lesson, Report
    from pipeline.events import Event
    from pipeline.ledger.leases import Leased

DRY_S = 1.0
"""How long the ledger is not asked again once it had no row to give."""

LESSONS_KEPT = 5000


class Account:
    """Lends what is scarce to the workers of one epoch. Ray calls its methods, all in one loop."""

    def __init__(self, job: ClusterJob, epoch: int, orphans: frozenset[str]) -> None:
        self._job = job
        self._epoch = epoch
        settings = job.settings
        gate = CreateGate(settings.concurrency, interval_s=settings.poll_interval, random=random.Random())
        self._lender = Lender(gate, orphans)
        self._budget = Budget(settings.max_cost)
        self._learner = DurationLearner(settings.poll_interval)
        self._learner.restore(dict(job.memory))
        self._ledger: Ledger | None = None
        self._one_at_a_time = asyncio.Lock()
        self._heard: dict[str, float] = {}
        self._gone: set[str] = set()
        self._dry_until = -inf
        self._lessons: list[tuple[str, Lesson]] = []
        self._forgotten = 0
        self._read_until: dict[str, int] = {}
        self._events: list[Event] = []
        self._left: dict[str, str] = {}
        self._overdue: set[str] = set()
        self._stop: tuple[StopReason, str] | None = None
        self._short: tuple[StopReason, str] | None = None
        self._impatient = self._abandon = False

    async def begin(self) -> None:
        """Open the ledger and count the money that is spent or set aside."""
        self._ledger = await Ledger.open(self._job.ledger, batch=self._job.batch)
        if self._budget.limit_usd is not None:
            for record in await self._ledger.load():
                self._budget.update(record)

    async def join(self, worker: str) -> dict[str, Any]:
        """A worker begins; return what is known of durations."""
        self._heard[worker] = time.monotonic()
        self._read_until[worker] = self._forgotten + len(self._lessons)
        return self._learner.dump()

    async def exchange(self, report: Report) -> Reply:
        """Take a worker's report and give it what it needs."""
        worker, now = report.worker, time.monotonic()
        if worker not in self._heard:
            return Reply(known=False)
        self._heard[worker] = inf  # it waits for us, perhaps as long as we wait for the database
        reply = await self._answer(report, now)
        if worker in self._heard:
            self._heard[worker] = time.monotonic()
        return reply

    async def _answer(self, report: Report, now: float) -> Reply:
        worker = report.worker
        self._events += report.events
        for record in report.finished:
            self._budget.update(record)
        self._learn(worker, report.lessons)
        self._lender.report(worker, now, report.in_flight, report.verdicts)
        if report.stop is not None:
            self.halt(*report.stop)
        stopped = self._stop is not None
        granted = self._lender.grant(worker, now, 0 if stopped else report.permits_wanted)
        rows: list[tuple[Leased, float | None]] = []
        if report.rows_wanted and not stopped:
            rows = await self._lend(worker, report.rows_wanted)
        return Reply(
            known=worker in self._heard,
            permits=granted.permits,
            wait_s=granted.wait_s,
            rows=tuple(rows),
            more=not stopped and time.monotonic() >= self._dry_until,
            lessons=self._lessons_for(worker),
            stop=self._stop,
            impatient=self._impatient,
            abandon=self._abandon,
        )

    async def leave(self, leaving: Leaving) -> None:
        """A worker has ended by itself; what it leaves is lent to nobody else in this epoch."""
        self._left.update(leaving.left)
        self._overdue |= leaving.overdue
        if leaving.worker in self._heard:
            await self._revoke(leaving.worker, tuple(leaving.left))

    async def gone(self, worker: str) -> None:
        """A worker is known to be dead: its rows need not wait for its lease to end."""
        if worker in self._heard:
            await self._revoke(worker)

    async def standing(self) -> Standing:
        """Revoke whoever was silent for too long; return how things stand."""
        now = time.monotonic()
        for worker, heard in list(self._heard.items()):
            if now - heard > self._job.lease_s:
                self._gone.add(worker)
                await self._revoke(worker)
        events, self._events = tuple(self._events), []
        return Standing(
            frozenset(self._gone),
            events,
            self._stop,
            self._stop is None and time.monotonic() >= self._dry_until,
            self._lender.in_flight,
            self._lender.permits,
            dict(self._left),
            frozenset(self._overdue),
            self._short,
        )

    async def interrupt(self, message: str, *, abandon: bool = False) -> None:
        """The user wants out: finish what is paid, or stop at once."""
        self._impatient = True
        self._abandon = self._abandon or abandon
        self.halt(StopReason.INTERRUPTED, message)

    async def learned(self) -> dict[str, Any]:
        """Return what was learned of durations, for the next run."""
        return self._learner.dump()

    async def end(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            await self._ledger.close()

    def halt(self, reason: StopReason, message: str) -> None:
        """All stop submitting; the first reason is kept."""
        if self._stop is None:
            self._stop = (reason, message)

    async def _lend(self, worker: str, most: int) -> list[tuple[Leased, float | None]]:
        """Lend rows, each with the money that it needs set aside."""
        async with self._one_at_a_time:
            if time.monotonic() < self._dry_until or worker not in self._heard:
                return []
            claimed = await self._open().claim(self._epoch, worker, most)
            self._lender.took(worker, [row.record.key for row in claimed if row.record.state in IN_FLIGHT])
            lent, aside = self._affordable(claimed)
            if aside:
                await self._open().revoke(self._epoch, "", aside)
        if len(claimed) < most:
            self._dry_until = time.monotonic() + DRY_S
        return lent

    def _affordable(self, claimed: Sequence[Leased]) -> tuple[list[tuple[Leased, float | None]], list[str]]:
        lent: list[tuple[Leased, float | None]] = []
        aside: list[str] = []
        for row in claimed:
            record, price = row.record, self._job.price_of(row.record)
            self._budget.update(record)
            if record.state is not State.PENDING or self._budget.limit_usd is None:
                lent.append((row, price))
            elif price is None:
                self._left[record.key] = "its price is unknown: give --assume-price to run it under a budget"
                aside.append(record.key)
            elif self._budget.reserve(record.key, price):
                lent.append((row, price))
            else:
                aside.append(record.key)
                words = f"the budget of {self._budget.limit_usd:.2f} USD has no room for another row"
                self._left.setdefault(record.key, words)
                self._short = (StopReason.BUDGET, words)
        return lent, aside

    async def _revoke(self, worker: str, left: Sequence[str] = ()) -> None:
        async with self._one_at_a_time:
            if self._heard.pop(worker, None) is None:
                return
            had = await self._open().revoke(self._epoch, worker, left)
            self._lender.gone(worker, time.monotonic(), had.in_flight)
            self._read_until.pop(worker, None)
            if had.freed:
                self._dry_until = -inf

    def _open(self) -> Ledger:
        if self._ledger is None:
            raise RuntimeError("the account has not begun")
        return self._ledger

    def _learn(self, worker: str, lessons: Sequence[Lesson]) -> None:
        for kind, from_s, to_s, ended in lessons:
            (self._learner.ended if ended else self._learner.survived)(kind, from_s, to_s)
        self._lessons += [(worker, lesson) for lesson in lessons]
        if len(self._lessons) > 2 * LESSONS_KEPT:
            del self._lessons[:LESSONS_KEPT]
            self._forgotten += LESSONS_KEPT

    def _lessons_for(self, worker: str) -> tuple[Lesson, ...]:
        """What others have learned since this one was last told."""
        end = self._forgotten + len(self._lessons)
        since = max(self._read_until.get(worker, end), self._forgotten)
        self._read_until[worker] = end
        return tuple(lesson for by, lesson in self._lessons[since - self._forgotten :] if by != worker)
