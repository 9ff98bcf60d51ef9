"""A worker: the same engine as on one machine, over rows that the account lends it as it goes.

It owns its connections and the beat at which it reports. It trusts its lease by its own clocks alone, from
the moment at which it sent the last report that was answered. Past that, no create leaves it, whatever it
was doing when it was stopped; and its steps are fenced in the ledger by the numbers of its leases.
"""

from __future__ import annotations

import random
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from pipeline.client import Api
from pipeline.client.client import LOG_REQUEST_GAP_S
from pipeline.cluster.limits import LentGate, LentPace
from pipeline.cluster.messages import AccountLost, Leaving, Report
from pipeline.cluster.opening import open_ledger
from pipeline.cluster.shared_durations import SharingLearner
from pipeline.download.downloader import Downloader, DownloadLimits
from pipeline.download.http import open_session
from pipeline.engine import Engine
from pipeline.errors import Conflict, StopReason, StopRun
from pipeline.events import Event, Level, Topic
from pipeline.ledger.leases import ENDED
from pipeline.model import Failure, State
from pipeline.poll.schedule import PollQueue
from pipeline.run_context import Tools
from pipeline.storage import open_store
from pipeline.submit.budget import Budget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from typing import Any

    from aiohttp import ClientSession

    from pipeline.cluster.messages import ClusterJob, Reply
    from pipeline.ledger.leases import Leased
    from pipeline.model import Record
    from pipeline.run_state import Outcome
    from pipeline.storage import Store

SHARE_OF_LEASE: Final = 0.8
"""A worker takes its lease for over a little before the account does."""

CLOSE_S: Final = 5.0

MOST_PERMITS: Final = 16
MOST_ROWS: Final = 500
QUICKEST_BEAT_S: Final = 0.02
LONGEST_BEAT_S: Final = 1.0
HUNGRY_BEAT: Final = 0.1
"""Beats a worker leaves between two reports while it could use more than it has, in poll intervals."""


ONES_OWN: Final = frozenset({StopReason.INTERRUPTED, StopReason.IN_DOUBT})
"""Reasons for which one worker stops while others go on: it was told to, or has nothing left but doubts."""


class AccountLine(Protocol):
    """The way to the account; each call is answered in turn, or raises `AccountLost`."""

    async def join(self, worker: str) -> Mapping[str, Any]: ...
    async def exchange(self, report: Report) -> Reply: ...
    async def leave(self, leaving: Leaving) -> None: ...
    async def say(self, event: Event) -> None: ...


class Watcher:
    """The worker's observer: what is to be reported of rows that moved, and of words that were said."""

    def __init__(self) -> None:
        self._moved: dict[str, Record] = {}
        self._events: list[Event] = []

    def moved(self, before: Record, after: Record) -> None:
        self._moved[after.key] = after

    def said(self, event: Event) -> None:
        if event.level is not Level.DEBUG and event.topic is not Topic.STOPPING:
            self._events.append(event)

    def waits(self, words: str) -> None:
        """The database is waited for, or is back."""
        self.said(Event(Topic.WAITING, words, Level.WARNING))

    def told(self) -> tuple[tuple[Record, ...], tuple[Event, ...]]:
        """Return how the rows that moved stand, and the words; forget both."""
        moved, self._moved = tuple(self._moved.values()), {}
        events, self._events = tuple(self._events), []
        return moved, events


class Worker:
    """One worker's life."""

    def __init__(self, name: str, job: ClusterJob, line: AccountLine) -> None:
        self._name = name
        self._job = job
        self._line = line
        self._gate = LentGate()
        self._pace = LentPace(interval_s=job.settings.poll_interval)
        self._learner = SharingLearner(job.settings.poll_interval)
        self._watcher = Watcher()
        self._leases: dict[str, int] = {}
        self._prices: dict[str, float | None] = {}
        self._sure_until = self._sure_until_wall = 0.0
        self._told_stop = False
        self._revoked = False
        share = job.settings.concurrency // (2 * job.workers)
        self._hand = max(2, min(MOST_ROWS, share))
        self._room = 2 * MOST_ROWS + job.settings.concurrency

    def may_create(self) -> bool:
        """Say whether the lease still holds, so that a create may leave.

        The monotonic clock of Linux stands still while the machine sleeps; the other one may be set back.
        """
        return time.monotonic() < self._sure_until and time.time() < self._sure_until_wall

    async def live(self) -> None:
        """Work until there is nothing left to do, or the account wants no more of this worker.

        Raises `AccountLost` when there is no account to begin with, and a `StopRun` for a ledger or a place
        that cannot be opened.
        """
        job = self._job
        async with _closed_whatever_happens() as stack:
            ledger = open_ledger(
                job, f"worker {self._name}", on_pause=self._watcher.waits, say=self._line.say
            )
            self._ledger = await stack.enter_async_context(await ledger)
            self._ledger.fence(self._leases)
            timeout_s = job.settings.request_timeout
            api = Api(job.base_url, job.key, timeout_s=timeout_s, may_create=self.may_create)
            await stack.enter_async_context(api)
            cdn = await stack.enter_async_context(open_session())
            store = open_store(job.output)
            stack.push_async_callback(store.aclose)
            self._learner.restore(dict(await self._line.join(self._name)))
            engine = self._engine(api, self._downloader(cdn, store))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_in_touch, engine)
                outcome = await engine.run()
                tasks.cancel_scope.cancel()
            if not self._revoked:
                await self._say_goodbye(engine, outcome)

    async def _say_goodbye(self, engine: Engine, outcome: Outcome) -> None:
        """Leave what is open to the next run: here is nothing more to be done for it."""
        with anyio.CancelScope(shield=True), suppress(AccountLost):
            report = self._report(engine)
            left = {
                row.key: outcome.left.get(row.key, "") for row in outcome.records if row.state not in ENDED
            }
            await self._line.leave(Leaving(report, left, frozenset(engine.board.overdue)))

    def _downloader(self, cdn: ClientSession, store: Store) -> Downloader:
        settings = self._job.settings
        return Downloader(session=cdn, store=store, limits=DownloadLimits.of(settings), media=settings.media)

    def _engine(self, api: Api, downloader: Downloader) -> Engine:
        settings, chance = self._job.settings, random.Random()
        tools = Tools(
            api=api,
            ledger=self._ledger,
            downloader=downloader,
            polling=PollQueue(self._learner, interval_s=settings.poll_interval, random=chance),
            gate=self._gate,
            pace=self._pace,
            budget=Budget(None),
            price_of=lambda record: self._prices.get(record.key),
            clock=time.monotonic,
            wall=time.time,
            random=chance,
            log_gap_s=LOG_REQUEST_GAP_S * self._job.workers,
        )
        return Engine([], tools, settings, self._watcher, expecting=inf)

    async def _keep_in_touch(self, engine: Engine) -> None:
        """Report and take what is given as long as there is an account; without one, stop at once."""
        try:
            while not self._revoked:
                pause_s = await self._beat(engine)
                await anyio.sleep(pause_s)
        except AccountLost:
            self._lose(engine)
        except StopRun as trouble:
            engine.hold_back(trouble)
            engine.abandon()

    async def _beat(self, engine: Engine) -> float:
        """Report once and heed the answer; return the seconds until the next time."""
        report = self._report(engine)
        held_s = SHARE_OF_LEASE * self._job.lease_s
        sure = time.monotonic() + held_s, time.time() + held_s
        reply = await self._line.exchange(report)
        if reply.known and not reply.abandon:
            self._sure_until, self._sure_until_wall = sure
        await self._heed(engine, reply)
        if reply.permits or reply.rows:
            return QUICKEST_BEAT_S
        longest = min(self._job.lease_s / 5, LONGEST_BEAT_S)
        hungry = reply.more or self._pace.limited or engine.board.due(time.monotonic(), 1)
        return (
            min(longest, max(QUICKEST_BEAT_S, self._job.settings.poll_interval * HUNGRY_BEAT))
            if hungry
            else longest
        )

    def _report(self, engine: Engine) -> Report:
        board = engine.board
        moved, events = self._watcher.told()
        self._forget(engine, [record.key for record in moved if record.state in ENDED])
        due = 0 if board.stop is not None else board.due(time.monotonic(), max(MOST_PERMITS, self._hand))
        # Pending rows leave as much room to those under way: they may wait for the very slots of these.
        room = max(0, min(self._hand, self._room - board.under_way()))
        return Report(
            self._name,
            board.in_flight(),
            self._pace.told(board.tracked),
            tuple(time.time() - (board.records[key].submitted_at or 0.0) for key in board.doubts),
            permits_wanted=self._permits_wanted(0 if board.paused_until > time.monotonic() else due),
            verdicts=tuple(self._gate.verdicts()),
            rows_wanted=max(0, min(self._hand - due, self._room - board.held())),
            room=room,
            moved=moved,
            lessons=self._learner.seen(),
            events=events,
            stop=self._own_stop(engine),
            busy=board.has_work(),
        )

    def _forget(self, engine: Engine, ended: Sequence[str]) -> None:
        """Let go of rows that are done or failed for good: there may be very many."""
        engine.forget(ended)
        for key in ended:
            self._leases.pop(key, None)
            self._prices.pop(key, None)

    def _permits_wanted(self, due: int) -> int:
        """Return how many more permits there is use for; those beyond are given back."""
        useful = min(due, MOST_PERMITS)
        if self._gate.permits > useful:
            self._gate.give_back(self._gate.permits - useful)
        return useful - self._gate.permits

    def _own_stop(self, engine: Engine) -> tuple[StopReason, str] | None:
        """Return, once, what this worker has met that stops them all."""
        board = engine.board
        if board.stop in ONES_OWN or board.stop is None or self._told_stop:
            return None
        self._told_stop = True
        return board.stop, board.message

    async def _heed(self, engine: Engine, reply: Reply) -> None:
        if not reply.known:
            self._lose(engine)
            return
        if reply.abandon:
            engine.abandon()
            return
        self._pace.lent(time.monotonic(), reply.share)
        for lesson in reply.lessons:
            self._learner.hear(lesson)
        if reply.rows:
            await self._admit(engine, reply.rows)
        if reply.permits:
            self._gate.granted(reply.permits)
            engine.ring()
        if reply.stop is not None and engine.board.stop is None:
            self._told_stop = True
            engine.hold_back(StopRun(*reply.stop))
        if reply.impatient and not engine.board.impatient:
            engine.stop(engine.board.message, engine.board.message)
        engine.expect(more=reply.more or bool(reply.rows))

    def _lose(self, engine: Engine) -> None:
        """Everything that was borrowed is gone: no create leaves any more, and no step would be taken."""
        self._revoked = True
        self._sure_until = 0.0
        engine.abandon()

    async def _admit(self, engine: Engine, lent: tuple[tuple[Leased, float | None], ...]) -> None:
        """Take rows over; a create that somebody else sent without hearing the answer is in doubt."""
        records = []
        for leased, price in lent:
            record = leased.record
            self._leases[record.key] = leased.lease
            self._prices[record.key] = price
            if record.state is State.SUBMITTING:
                failure = Failure("in_doubt", "its worker ended before the answer came")
                doubtful = record.evolve(State.IN_DOUBT, doubted_at=time.time(), failure=failure)
                try:
                    record = await self._ledger.commit(record, doubtful)
                except Conflict:
                    continue
                self._watcher.moved(leased.record, record)
            records.append(record)
        await engine.admit(records)


@asynccontextmanager
async def _closed_whatever_happens() -> AsyncIterator[AsyncExitStack]:
    """Close what is put on the stack, also when its owner is cancelled."""
    stack = AsyncExitStack()
    try:
        yield stack
    finally:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await stack.aclose()
