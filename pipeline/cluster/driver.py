"""The driver: starts the coordinator and the workers, replaces those that die, and reports the run.

To the command it looks like an `Engine`. It decides nothing about a row: it may die at any moment, and the
next one begins a new epoch over the same ledger.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread

from pipeline.cluster import ray_backend, ray_client
from pipeline.cluster.messages import CoordinatorLost
from pipeline.cluster.record_view import RecordView
from pipeline.errors import StopReason, StopRun
from pipeline.events import Event, Level, Topic
from pipeline.ledger.leases import IN_FLIGHT_STATES
from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from anyio.abc import TaskGroup

    from pipeline.cluster.messages import ClusterConfig, StatusSnapshot
    from pipeline.cluster.ray_client import RayCoordinatorClient
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.run_state import RunOutcome

SNAPSHOT_INTERVAL_S: Final = 0.25

MAX_DEATHS_PER_WORKER: Final = 10
"""How often processes may die, per worker, without any row changing, before the run gives up."""

IDLE_CHECK_S: Final = 10.0
"""How long there may be no live worker before Ray itself is checked."""

SHUTDOWN_GRACE_S: Final = 5.0
"""How long workers may take to stop at once before they are killed."""


class ClusterDriver:
    """One run of a batch on many machines. Not to be used twice. `view` is what it shows of the rows."""

    def __init__(
        self,
        records: Sequence[Record],
        config: ClusterConfig,
        ledger: Ledger,
        epoch: tuple[int, frozenset[str]],
        observer: Observer,
        *,
        address: str | None,
        on_joined: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`epoch` is what the ledger answered when it began; `address` is Ray's, None to start it here;
        `on_joined` commits what `records` have and the ledger has not, before the first worker starts."""
        self._config, self._ledger, self._observer = config, ledger, observer
        self.view = RecordView(records, ledger, observer, config.submittable)
        self._epoch, in_flight = epoch
        # The plan, made since, may have taken rows in doubt out of their slots.
        self._orphans = frozenset(
            key for key in in_flight if self.view.records[key].state in IN_FLIGHT_STATES
        )
        self._address, self._on_joined = address, on_joined
        self._coordinator: RayCoordinatorClient | None = None
        self._workers: dict[str, Any] = {}
        self._workers_started = 0
        self._coordinator_error = self._interrupt_message = ""
        self._idle_since = anyio.current_time()
        self._idle_reported = self._stop_reported = self._cancelling = False
        self._stop_error: StopRun | None = None
        self._cancel_scope = anyio.CancelScope()
        self._fatal_stop: tuple[StopReason, str] | None = None
        self._last_snapshot: StatusSnapshot | None = None
        self.learned_durations = dict(config.cached_durations)

    def records(self) -> list[Record]:
        """Return every record as it was when the ledger was last read."""
        return list(self.view.records.values())

    def stop(self, reason: str, notice: str) -> None:
        """Stop submitting on all workers; finish and save what is paid.

        `reason` goes into the outcome, `notice` is reported now.
        """
        self._interrupt_message = reason
        self._observer.on_event(Event(Topic.STOPPING, notice, Level.WARNING))
        if self._coordinator is not None:
            self._coordinator.call_nowait("interrupt", reason)

    def stop_submitting(self, error: StopRun) -> None:
        """Stop submitting for an error that was met here; go on with what is paid."""
        self._stop_error = error
        self._report_stop(str(error))
        if self._coordinator is not None:
            self._coordinator.call_nowait("stop_submitting", error.reason, str(error))

    def cancel(self) -> None:
        """Stop all workers at once; those still alive after `SHUTDOWN_GRACE_S` are killed.

        A database that is away is waited for no longer than that.
        """
        self._cancelling = True
        self._cancel_scope.deadline = min(
            self._cancel_scope.deadline, anyio.current_time() + SHUTDOWN_GRACE_S
        )
        self._ledger.set_shutdown_deadline(SHUTDOWN_GRACE_S)
        if self._coordinator is not None:
            self._coordinator.call_nowait("interrupt", self._interrupt_message, cancel=True)

    async def run(self) -> RunOutcome:
        """Do all there is to do; return how it ended."""
        if not self._outcome().open_rows:
            return self._outcome()
        await to_thread.run_sync(partial(ray_backend.start_or_join, self._address, self._config.workers))
        try:
            ray_backend.reclaim_signals()
            if self._on_joined is not None:
                await self._on_joined()
            with self._cancel_scope:
                await self._run_epoch()
                while self._coordinator_error and await self._begin_next_epoch():
                    await self._run_epoch()
            await self.view.read()
        except StopRun as error:
            self._fatal_stop = (error.reason, str(error))
        finally:
            with anyio.CancelScope(shield=True):
                await self._kill_all()
                await to_thread.run_sync(ray_backend.shutdown)
        return self._outcome()

    async def _run_epoch(self) -> None:
        """Run one coordinator to its end; `_coordinator_error` is set when it was lost."""
        name = f"veobatch-{self._ledger.identity}-{self._epoch}"
        coordinator = self._coordinator = ray_backend.start_coordinator(
            name, self._config, self._epoch, self._orphans
        )
        self._coordinator_error = ""
        try:
            await coordinator.open()
            if self._stop_error is not None:
                await coordinator.stop_submitting(self._stop_error.reason, str(self._stop_error))
            if self._interrupt_message:
                await coordinator.interrupt(self._interrupt_message)
        except CoordinatorLost as error:
            self._coordinator_error = str(error)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.view.keep_current)
            await self._supervise(coordinator, tasks)
            tasks.cancel_scope.cancel()

    async def _begin_next_epoch(self) -> bool:
        """Begin an epoch for another coordinator, from the ledger alone; False when there may be none."""
        self.view.deaths += 1
        await self._kill_all()
        if self._cancelling:
            return False
        if self.view.deaths > MAX_DEATHS_PER_WORKER * self._config.workers:
            self._fatal_stop = (StopReason.UNFINISHED, f"the cluster is lost: {self._coordinator_error}")
            return False
        message = (
            f"the coordinator's process is lost ({self._coordinator_error}): another goes on from the ledger"
        )
        self._observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
        self._epoch, self._orphans = await self._ledger.begin_epoch()
        self.view.unfinished.clear()
        self.view.overdue.clear()
        return True

    async def _kill_all(self) -> None:
        """Kill every process of the epoch."""
        coordinator, self._coordinator = self._coordinator, None
        workers, self._workers = list(self._workers.values()), {}
        await to_thread.run_sync(ray_backend.kill, coordinator, workers)

    async def _supervise(self, coordinator: RayCoordinatorClient, tasks: TaskGroup) -> None:
        """Keep `workers` workers alive while there are rows to lease."""
        try:
            while True:
                snapshot = await self._take_snapshot(coordinator)
                active = self._workers.keys() - snapshot.expired_workers
                if await self._needs_workers(snapshot):
                    for _ in range(self._config.workers - len(active)):
                        self._start_worker(coordinator, tasks)
                elif not snapshot.live_workers:
                    break
                await self._check_idle(snapshot)
                await anyio.sleep(SNAPSHOT_INTERVAL_S)
            if snapshot.budget_exhausted is not None:
                self._report_stop(snapshot.budget_exhausted[1])
            self.learned_durations = await coordinator.learned_durations()
            await coordinator.close()
        except CoordinatorLost as error:
            self._coordinator_error = str(error)
        except StopRun as stop_error:
            self._fatal_stop = (stop_error.reason, str(stop_error))
            self._report_stop(str(stop_error))

    async def _needs_workers(self, snapshot: StatusSnapshot) -> bool:
        """Return whether another worker would have work; once submitting has stopped, only paid rows count.

        The coordinator finds that out by leasing, which it cannot while no worker runs.
        """
        if not snapshot.rows_available or self._fatal_stop is not None or self._cancelling:
            return False
        if snapshot.stop is None or snapshot.live_workers:
            return True
        counts = await self._ledger.counts(), await self._ledger.counts(removed=True)
        return any(count.get(state) for count in counts for state in (*IN_FLIGHT_STATES, State.READY))

    async def _check_idle(self, snapshot: StatusSnapshot) -> None:
        """Check Ray while no worker runs. Raises `StopRun` when it is gone."""
        if snapshot.live_workers:
            self._idle_since = anyio.current_time()
        elif anyio.current_time() > self._idle_since + IDLE_CHECK_S:
            self._idle_since = anyio.current_time()
            await to_thread.run_sync(ray_client.require_ray)
            if not self._idle_reported and self._address is not None:
                self._idle_reported = True
                message = "no worker has started yet: they wait for a free CPU of the cluster"
                self._observer.on_event(Event(Topic.WAITING, message, Level.WARNING))

    async def _take_snapshot(self, coordinator: RayCoordinatorClient) -> StatusSnapshot:
        snapshot = await coordinator.take_snapshot()
        known = self._last_snapshot.expired_workers if self._last_snapshot else frozenset()
        for name in sorted(snapshot.expired_workers - known):
            message = f"worker {name} is silent for {self._config.lease_s:g} s: others go on with its rows"
            self._observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
            self.view.stale = True
        self._last_snapshot = snapshot
        self.view.unfinished.update(snapshot.unfinished)
        self.view.overdue |= snapshot.overdue
        for record in snapshot.changed_records:
            self.view.apply(record)
        for event in snapshot.events:
            self._observer.on_event(event)
        if snapshot.stop is not None and snapshot.stop[0] is not StopReason.INTERRUPTED:
            self._report_stop(snapshot.stop[1])
        return snapshot

    def _report_stop(self, message: str) -> None:
        """Report, once, why submitting stopped; interrupts are reported as they come."""
        if not self._stop_reported:
            self._stop_reported = True
            self._observer.on_event(Event(Topic.STOPPING, message, Level.WARNING))

    def _start_worker(self, coordinator: RayCoordinatorClient, tasks: TaskGroup) -> None:
        self._workers_started += 1
        name = f"{self._epoch}.{self._workers_started}"
        self._workers[name] = ray_backend.start_worker()
        tasks.start_soon(self._watch_worker, coordinator, name)

    async def _watch_worker(self, coordinator: RayCoordinatorClient, name: str) -> None:
        """Wait for a worker's end. One that dies is replaced, and its rows go to others."""
        try:
            stop = await self._workers[name].run.remote(name, self._config.for_worker(), coordinator.actor)
        except ray_client.actor_error_type() as error:
            self._report_death(name, error)
            stop = None
        del self._workers[name]
        self.view.deaths += 1
        with suppress(CoordinatorLost):
            await coordinator.worker_died(name)
            if stop is None and self.view.deaths > MAX_DEATHS_PER_WORKER * self._config.workers:
                stop = (StopReason.UNFINISHED, "workers end as fast as they are started")
            if stop is not None and self._fatal_stop is None:
                self._fatal_stop = stop
                self._report_stop(stop[1])
                await coordinator.interrupt(stop[1])

    def _report_death(self, name: str, error: Exception) -> None:
        self.view.stale = True
        message = f"worker {name} is lost ({ray_client.error_summary(error)}): others go on with its rows"
        self._observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
        self._observer.on_event(Event(Topic.NOTE, f"worker {name}: {error}", Level.DEBUG))

    def _outcome(self) -> RunOutcome:
        return self.view.outcome(self._stop_reasons())

    def _stop_reasons(self) -> Iterator[tuple[StopReason, str]]:
        """Yield what kept rows from being submitted; the first counts."""
        if self._fatal_stop is not None and not self._interrupt_message:
            yield self._fatal_stop
        if self._last_snapshot is not None and self._last_snapshot.stop is not None:
            yield self._last_snapshot.stop
        if self._stop_error is not None:
            yield self._stop_error.reason, str(self._stop_error)
        if self._interrupt_message:
            yield StopReason.INTERRUPTED, self._interrupt_message
        if self._last_snapshot is not None and self._last_snapshot.budget_exhausted is not None:
            yield self._last_snapshot.budget_exhausted
