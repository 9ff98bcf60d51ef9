"""A worker: the same engine as on one machine, over rows that the coordinator leases to it.

It owns its connections and its heartbeat. It judges its lease by its own clocks, from the moment at which it
sent the last heartbeat that was answered. After that no create leaves it, even if the process was stopped
meanwhile, and its transitions are fenced in the ledger by the numbers of its leases.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import anyio

from pipeline import clocks
from pipeline.client import Api
from pipeline.client.log_responses import LOG_REQUEST_GAP_S
from pipeline.client.reachability import learn_time
from pipeline.cluster.heartbeats import DoubtAges, HeartbeatObserver
from pipeline.cluster.limits import RemoteConcurrencyLimit, RemoteRateLimit
from pipeline.cluster.messages import CoordinatorLost, FinalReport, Heartbeat
from pipeline.cluster.open_ledger import open_ledger
from pipeline.cluster.shared_durations import SharingLearner
from pipeline.download.downloader import Downloader
from pipeline.download.guarded_session import open_session
from pipeline.download.retry_state import DownloadLimits
from pipeline.engine import Engine
from pipeline.errors import Conflict, StopReason, StopRun
from pipeline.images.delivery import Pictures
from pipeline.ledger.leases import TERMINAL_STATES
from pipeline.model import Failure, State
from pipeline.poll.schedule import PollSchedule
from pipeline.run_context import Dependencies
from pipeline.run_state import RunOutcome, RunState
from pipeline.storage import open_store
from pipeline.submit.budget import Budget
from pipeline.submit.submission_journal import SubmissionJournal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aiohttp import ClientSession

    from pipeline.cluster.heartbeats import CoordinatorClient
    from pipeline.cluster.messages import ClusterConfig, HeartbeatReply
    from pipeline.ledger.leases import LeasedRow
    from pipeline.model import Record
    from pipeline.storage import OutputStore

LEASE_SAFETY_FACTOR: Final = 0.8
"""A worker regards its lease as expired a little before the coordinator does."""

CLOSE_TIMEOUT_S: Final = 5.0
MAX_PERMITS: Final = 16
MAX_ROWS: Final = 500
MIN_HEARTBEAT_S: Final = 0.02
MAX_HEARTBEAT_S: Final = 1.0
HEARTBEAT_INTERVALS_WHEN_WAITING: Final = 0.1
"""Heartbeat interval while the worker wants more rows, in poll intervals."""

LOCAL_STOP_REASONS: Final = frozenset({StopReason.INTERRUPTED, StopReason.IN_DOUBT})
"""Reasons for which one worker stops while others go on: interrupted, or only rows in doubt are left."""


class ClusterWorker:
    """One worker."""

    def __init__(self, name: str, config: ClusterConfig, coordinator: CoordinatorClient) -> None:
        self._name = name
        self._config = config
        self._coordinator = coordinator
        self._concurrency_limit = RemoteConcurrencyLimit()
        self._rate_limit = RemoteRateLimit(interval_s=config.settings.poll_interval)
        self._learner = SharingLearner(config.settings.poll_interval)
        self._observer = HeartbeatObserver()
        self._leases: dict[str, int] = {}
        self._prices: dict[str, float | None] = {}
        self._submittable: set[str] = set()
        self._ended: set[str] = set()
        self._lease_until = self._lease_until_wall = 0.0
        self._stop_reported = self._revoked = False
        self._prefetch_rows = max(2, min(MAX_ROWS, config.settings.concurrency // (2 * config.workers)))
        self._max_rows = 2 * MAX_ROWS + config.settings.concurrency

    def may_create(self) -> bool:
        """Return whether the lease still holds, so that a create may leave.

        The monotonic clock of Linux stands still while the machine sleeps; the wall clock may be set back.
        """
        return clocks.monotonic() < self._lease_until and clocks.wall() < self._lease_until_wall

    async def run(self) -> None:
        """Work until there is nothing left to do, or the coordinator ends this worker.

        Raises `CoordinatorLost` when there is no coordinator to begin with, and a `StopRun` for a ledger or
        an output that cannot be opened.
        """
        config = self._config
        async with _shielded_exit_stack() as stack:
            on_pause, report_event = self._observer.on_ledger_pause, self._coordinator.report_event
            ledger = open_ledger(config, f"worker {self._name}", on_pause=on_pause, report_event=report_event)
            self._ledger = await stack.enter_async_context(await ledger)
            self._ledger.fence(self._leases)
            timeout_s, key, name = config.settings.request_timeout, config.api_key, config.api_name
            api = Api(config.base_url, key, timeout_s=timeout_s, may_create=self.may_create, name=name)
            await stack.enter_async_context(api)
            await learn_time(api)
            self._doubt_ages = DoubtAges(api.vendor_now)
            session = await stack.enter_async_context(open_session())
            store = open_store(config.output)
            stack.push_async_callback(store.aclose)
            self._learner.restore(dict(await self._coordinator.join(self._name)))
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="veobatch-pictures-")))
            pictures = Pictures(config.pictures, folder, api.keyless_session) if config.pictures else None
            engine = self._make_engine(api, self._make_downloader(session, store), pictures)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._heartbeat_loop, engine)
                outcome = await engine.run()
                tasks.cancel_scope.cancel()
            if not self._revoked:
                await self._send_final_report(engine, outcome)

    async def _send_final_report(self, engine: Engine, outcome: RunOutcome) -> None:
        """Report the rows that are left to the next run."""
        with anyio.CancelScope(shield=True), suppress(CoordinatorLost):
            report = self._build_heartbeat(engine)
            unfinished = {
                row.key: outcome.unfinished.get(row.key, "")
                for row in outcome.records
                if row.state not in TERMINAL_STATES
            }
            await self._coordinator.leave(FinalReport(report, unfinished, frozenset(engine.state.overdue)))

    def _make_downloader(self, session: ClientSession, store: OutputStore) -> Downloader:
        settings = self._config.settings
        limits = DownloadLimits.from_settings(settings)
        return Downloader(session=session, store=store, limits=limits, media=settings.media)

    def _make_engine(self, api: Api, downloader: Downloader, pictures: Pictures | None) -> Engine:
        settings, rng = self._config.settings, clocks.new_random()
        dependencies = Dependencies(
            api=api,
            ledger=self._ledger,
            downloader=downloader,
            schedule=PollSchedule(self._learner, interval_s=settings.poll_interval, random=rng),
            concurrency_limit=self._concurrency_limit,
            rate_limit=self._rate_limit,
            budget=Budget(None),  # the coordinator leases a pending row with its price reserved
            price_of=lambda record: self._prices.get(record.key),
            clock=clocks.monotonic,
            wall=clocks.wall,
            random=rng,
            journal_submission=SubmissionJournal(self._ledger.identity).append,
            log_gap_s=LOG_REQUEST_GAP_S * self._config.workers,  # a limit of the key, which all share
            pictures=pictures,
        )
        state = RunState({}, self._submittable)
        return Engine(state, dependencies, settings, self._observer, expected_more=inf)

    async def _heartbeat_loop(self, engine: Engine) -> None:
        """Send heartbeats as long as there is a coordinator; without one, stop at once."""
        try:
            while not self._revoked:
                pause_s = await self._heartbeat(engine)
                await anyio.sleep(pause_s)
        except CoordinatorLost:
            self._on_lease_lost(engine)
        except StopRun as error:
            engine.stop_submitting(error)
            engine.cancel()

    async def _heartbeat(self, engine: Engine) -> float:
        """Send one heartbeat and apply the answer; return the seconds until the next one."""
        report = self._build_heartbeat(engine)
        lease_s = LEASE_SAFETY_FACTOR * self._config.lease_s
        # From before the heartbeat leaves: the coordinator counts from its arrival, which is later.
        lease_until = clocks.monotonic() + lease_s, clocks.wall() + lease_s
        reply = await self._coordinator.heartbeat(report)
        if reply.registered and not reply.cancel:
            self._lease_until, self._lease_until_wall = lease_until
        await self._apply_reply(engine, reply)
        if reply.permits or reply.rows:
            return MIN_HEARTBEAT_S
        max_interval_s = min(self._config.lease_s / 5, MAX_HEARTBEAT_S)
        due = engine.state.submittable_count(clocks.monotonic(), 1)
        if not (reply.more_rows_expected or self._rate_limit.limited or due):
            return max_interval_s
        waiting_s = self._config.settings.poll_interval * HEARTBEAT_INTERVALS_WHEN_WAITING
        return min(max_interval_s, max(MIN_HEARTBEAT_S, waiting_s))

    def _build_heartbeat(self, engine: Engine) -> Heartbeat:
        state = engine.state
        changed_records, events = self._observer.take_changes()
        self._forget_rows(engine, changed_records)
        due = 0
        if state.stop_reason is None:
            due = state.submittable_count(clocks.monotonic(), max(MAX_PERMITS, self._prefetch_rows))
        useful = 0 if state.paused_until > clocks.monotonic() else min(due, MAX_PERMITS)
        # Leave room for rows in flight: pending ones may be waiting for their slots.
        takeover_capacity = max(0, min(self._prefetch_rows, self._max_rows - state.started_count()))
        return Heartbeat(
            self._name,
            state.occupied_slots(),
            self._rate_limit.take_poll_stats(state.tracked),
            self._doubt_ages.ages_s(map(state.records.__getitem__, state.in_doubt), state.doubt_began),
            permits_wanted=self._concurrency_limit.permits_wanted(useful),
            permit_results=tuple(self._concurrency_limit.take_results()),
            rows_wanted=max(0, min(self._prefetch_rows - due, self._max_rows - state.open_count())),
            takeover_capacity=takeover_capacity,
            changed_records=changed_records,
            observations=self._learner.take_observations(),
            events=events,
            stop=self._stop_to_report(engine),
            has_work=state.has_work(),
        )

    def _forget_rows(self, engine: Engine, changed: Iterable[Record]) -> None:
        """Drop rows that are done or failed for good: there may be very many."""
        for record in changed:
            (self._ended.add if record.state in TERMINAL_STATES else self._ended.discard)(record.key)
        final = self._ended - engine.state.may_come_back
        engine.drop_finished(final)
        for key in final:
            self._leases.pop(key, None)
            self._prices.pop(key, None)
            self._submittable.discard(key)
        self._ended -= final

    def _stop_to_report(self, engine: Engine) -> tuple[StopReason, str] | None:
        """Return, once, a reason of this worker's that stops them all."""
        state = engine.state
        if state.stop_reason in LOCAL_STOP_REASONS or state.stop_reason is None or self._stop_reported:
            return None
        self._stop_reported = True
        return state.stop_reason, state.stop_message

    async def _apply_reply(self, engine: Engine, reply: HeartbeatReply) -> None:
        if not reply.registered:
            self._on_lease_lost(engine)
            return
        if reply.cancel:
            engine.cancel()
            return
        self._rate_limit.set_share(clocks.monotonic(), reply.rate_share)
        for observation in reply.observations:
            self._learner.apply(observation)
        self._submittable.update(reply.submittable)
        if reply.rows:
            await self._admit(engine, reply.rows)
        if reply.permits:
            self._concurrency_limit.add_permits(reply.permits)
            engine.notify()
        if reply.stop is not None and engine.state.stop_reason is None:
            self._stop_reported = True
            engine.stop_submitting(StopRun(*reply.stop))
            if reply.stop[0] is StopReason.MODEL:
                await engine.put_back_not_found()
        if reply.stop_requested and not engine.state.stop_requested:
            engine.stop(engine.state.stop_message, engine.state.stop_message)
        engine.set_expects_more(more=reply.more_rows_expected or bool(reply.rows))

    def _on_lease_lost(self, engine: Engine) -> None:
        """The leases are gone: no create may leave, and the ledger would take no transition."""
        self._revoked = True
        self._lease_until = 0.0
        engine.cancel()

    async def _admit(self, engine: Engine, leased_rows: tuple[tuple[LeasedRow, float | None], ...]) -> None:
        """Take rows over; one that another worker submitted without an answer is in doubt."""
        records = []
        for leased, price in leased_rows:
            record = leased.record
            self._leases[record.key] = leased.lease
            self._prices[record.key] = price
            # Its first worker died between intent and outcome: only the log can tell whether it was paid.
            if record.state is State.SUBMITTING:
                failure = Failure("in_doubt", "its worker ended before the answer came")
                in_doubt = record.evolve(State.IN_DOUBT, doubted_at=clocks.wall(), failure=failure)
                try:
                    record = await self._ledger.commit(record, in_doubt)
                except Conflict:
                    continue
                self._observer.on_transition(leased.record, record)
            records.append(record)
        await engine.admit(records)


@asynccontextmanager
async def _shielded_exit_stack() -> AsyncIterator[AsyncExitStack]:
    """Close what is on the stack, also when its owner is cancelled."""
    stack = AsyncExitStack()
    try:
        yield stack
    finally:
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await stack.aclose()
