"""The coordinator: the one actor that leases rows and shares permits to create, the poll rate and durations.

It owns the epoch in the ledger, the concurrency limit, the budget and the list of live workers. A worker that
is silent for longer than its lease is revoked: its rows go to others, and its slots come back one by one as
those find out what became of the rows. All of this state is rebuilt from the ledger when another coordinator
starts.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Final

from pipeline import clocks
from pipeline.cluster.budget import ClusterBudget
from pipeline.cluster.heartbeats import ChangeBuffer
from pipeline.cluster.limits import PermitPool, RateLimitPool
from pipeline.cluster.messages import HeartbeatReply, StatusSnapshot
from pipeline.cluster.open_ledger import open_ledger
from pipeline.cluster.shared_durations import SharedDurations
from pipeline.errors import StopReason, StopRun
from pipeline.ledger.leases import IN_FLIGHT_STATES
from pipeline.model import State
from pipeline.poll.poll_rate import AdaptiveRateLimit
from pipeline.run_state import unselected
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from pipeline.cluster.messages import ClusterConfig, FinalReport, Heartbeat
    from pipeline.events import Event
    from pipeline.ledger import Ledger
    from pipeline.ledger.leases import LeasedRow
    from pipeline.model import Record

MIN_RENDER_INTERVALS: Final = 60.0
"""How long the vendor's own client waits for a generation, in polls: ten minutes at the usual pace."""


class Coordinator:
    """Shares what is scarce among the workers of one epoch. Ray calls its methods, all in one loop.

    An error of the ledger never raises here: it stops the run, and is reported as the reason.
    """

    def __init__(self, config: ClusterConfig, epoch: int, orphans: frozenset[str]) -> None:
        self._config, self._epoch = config, epoch
        concurrency, interval_s = config.settings.concurrency, config.settings.poll_interval
        limit = AdaptiveConcurrencyLimit(concurrency, interval_s=interval_s, random=clocks.new_random())
        self._permit_pool = PermitPool(limit, orphans)
        self._poll_rate_pool = RateLimitPool(AdaptiveRateLimit(interval_s=interval_s))
        self._budget = ClusterBudget(config)
        self._shared_durations = SharedDurations(interval_s, config.cached_durations)
        self._lease_lock = asyncio.Lock()
        self._last_heartbeat_at: dict[str, float] = {}
        self._last_snapshot_at = clocks.monotonic()
        self._workers_with_work: set[str] = set()
        self._expired_workers: set[str] = set()
        self._may_have_paid_rows = self._may_have_unpaid_rows = True
        self._changes = ChangeBuffer()
        self._longest_render_s = 0.0
        self._unfinished: dict[str, str] = {}
        self._overdue: set[str] = set()
        self._stop: tuple[StopReason, str] | None = None
        self._stop_requested = self._cancel = False
        self._ledger: Ledger | None = None

    async def open(self) -> None:
        """Open the ledger, set aside the rows that are not selected, and count the money."""
        async with self._stopping_on_error():
            pause, report = self._changes.on_ledger_pause, self.report_event
            opening = open_ledger(self._config, "the coordinator", on_pause=pause, report_event=report)
            self._ledger = await opening
            if (chosen := self._config.submittable) is not None:
                await self._ledger.revoke(self._epoch, "", [*unselected(await self._ledger.load(), chosen)])
            if self._budget.has_limit:
                self._budget.load(await self._ledger.submissions())

    async def join(self, worker: str) -> dict[str, Any]:
        """Register a worker; return what is known of durations."""
        self._last_heartbeat_at[worker] = clocks.monotonic()
        return self._shared_durations.join(worker)

    async def report_event(self, event: Event) -> None:
        """Take an event of a worker that has not joined yet, and may never."""
        self._changes.add_event(event)

    async def heartbeat(self, report: Heartbeat) -> HeartbeatReply:
        """Take a worker's report; return the rows, permits and rate that it gets."""
        worker, now = report.worker, clocks.monotonic()
        if worker not in self._last_heartbeat_at:
            return HeartbeatReply(registered=False)
        self._last_heartbeat_at[worker] = inf  # alive while it waits for this answer
        self._apply_report(report)
        expired_in_doubt = sum(age_s > self._assumed_render_s() for age_s in report.in_doubt_ages_s)
        self._permit_pool.update_worker(
            worker, now, report.in_flight - expired_in_doubt, report.permit_results
        )
        share = self._poll_rate_pool.update_worker(worker, now, report.poll_stats)
        permits = self._permit_pool.grant(worker, now, 0 if self._stop else report.permits_wanted)
        rows = await self._lease_rows(worker, report.rows_wanted, report.takeover_capacity)
        if known := worker in self._last_heartbeat_at:
            self._last_heartbeat_at[worker] = clocks.monotonic()
        return HeartbeatReply(
            registered=known,
            permits=permits,
            rate_share=share,
            rows=tuple(rows),
            submittable=frozenset(filter(self._config.may_submit, (row.record.key for row, _ in rows))),
            more_rows_expected=self._may_lease_rows() or bool(self._workers_with_work),
            observations=self._shared_durations.since(worker),
            stop=self._stop,
            stop_requested=self._stop_requested,
            cancel=self._cancel,
        )

    async def leave(self, final_report: FinalReport) -> None:
        """A worker has ended by itself; nobody else gets the rows it leaves in this epoch."""
        worker = final_report.last_heartbeat.worker
        if worker not in self._last_heartbeat_at:
            return
        self._last_heartbeat_at[worker] = inf
        self._apply_report(final_report.last_heartbeat)
        self._unfinished.update(final_report.unfinished)
        self._overdue |= final_report.overdue
        await self._revoke(worker, tuple(final_report.unfinished))

    async def worker_died(self, worker: str) -> None:
        """Revoke a worker that is known to be dead, without waiting for its lease to expire."""
        await self._revoke(worker)

    async def take_snapshot(self) -> StatusSnapshot:
        """Revoke workers that were silent for too long; return what is new since the last snapshot."""
        now = clocks.monotonic()
        if now - self._last_snapshot_at > self._config.lease_s:  # this process was stopped, not they
            self._last_heartbeat_at = {
                worker: max(heard_at, now) for worker, heard_at in self._last_heartbeat_at.items()
            }
        self._last_snapshot_at = now
        for worker, heard in list(self._last_heartbeat_at.items()):
            if now - heard > self._config.lease_s:
                self._expired_workers.add(worker)
                await self._revoke(worker)
        changed_records, events = self._changes.take_changes()
        unfinished, self._unfinished = self._unfinished, {}
        overdue, self._overdue = frozenset(self._overdue), set()
        return StatusSnapshot(
            live_workers=frozenset(self._last_heartbeat_at),
            expired_workers=frozenset(self._expired_workers),
            changed_records=changed_records,
            events=events,
            stop=self._stop,
            rows_available=self._may_lease_rows(),
            unfinished=unfinished,
            overdue=overdue,
            budget_exhausted=self._budget.stop_reason(),
        )

    async def interrupt(self, message: str, *, cancel: bool = False) -> None:
        """Stop for the user: finish what is paid, or with `cancel` stop at once."""
        self._stop_requested = True
        self._cancel = self._cancel or cancel
        self.stop_submitting(StopReason.INTERRUPTED, message)

    async def learned_durations(self) -> dict[str, Any]:
        return self._shared_durations.dump()

    async def close(self) -> None:
        if self._ledger is not None:
            await self._ledger.close()

    def stop_submitting(self, reason: StopReason, message: str) -> None:
        """Stop all submitting; the first reason is kept."""
        if self._stop is None:
            self._stop = (reason, message)

    def _apply_report(self, report: Heartbeat) -> None:
        """Apply what a worker reports of its rows, of durations, and of the run."""
        for event in report.events:
            self._changes.add_event(event)
        self._changes.add_records(report.changed_records)
        self._budget.update(report.changed_records)
        self._longest_render_s = max(
            self._longest_render_s, *map(_render_duration_s, report.changed_records), 0.0
        )
        self._shared_durations.add(report.worker, report.observations)
        (self._workers_with_work.add if report.has_work else self._workers_with_work.discard)(report.worker)
        if report.stop is not None:
            self.stop_submitting(*report.stop)

    def _assumed_render_s(self) -> float:
        """For how long a row in doubt is taken to be rendering: the doubt may last longer, and others wait.

        Until the longest time that any generation has taken is over twice, and never for less than the
        vendor's own client waits for one: a few that were quick say nothing of the longest.
        """
        least_s = MIN_RENDER_INTERVALS * self._config.settings.poll_interval
        return min(self._config.settings.timeout, max(2 * self._longest_render_s, least_s))

    def _may_lease_rows(self) -> bool:
        """Return whether a worker might get a row: one that is paid, or one that may still be submitted."""
        if self._cancel:
            return False
        return self._may_have_paid_rows or (
            self._may_have_unpaid_rows and self._stop is None and not self._budget.exhausted
        )

    async def _lease_rows(
        self, worker: str, wanted: int, takeover_capacity: int
    ) -> list[tuple[LeasedRow, float | None]]:
        """Lease rows, each with its price; once submitting has stopped, only paid ones.

        Rows in flight go to any worker with room: they occupy slots that nobody else can free.
        """
        leased: list[tuple[LeasedRow, float | None]] = []
        async with self._stopping_on_error(), self._lease_lock:
            limit = max(wanted, takeover_capacity) if self._may_have_paid_rows else wanted
            if not (limit and self._may_lease_rows() and worker in self._last_heartbeat_at):
                return leased
            ledger = self._require_ledger()
            claimed = await ledger.claim(self._epoch, worker, limit)
            self._permit_pool.assign(
                worker, [row.record.key for row in claimed if row.record.state in IN_FLIGHT_STATES]
            )
            self._changes.add_records(row.record for row in claimed)
            # Those under way come first: whoever got another one, or fewer than asked, got the last of them.
            unpaid = [row for row in claimed if row.record.state is State.PENDING]
            self._may_have_paid_rows = self._may_have_paid_rows and not unpaid and len(claimed) == limit
            self._may_have_unpaid_rows = self._may_have_unpaid_rows and len(claimed) == limit
            paid = [row for row in claimed if row.record.state is not State.PENDING]
            kept = unpaid[: max(0, wanted - len(paid))] if self._stop is None else []
            if len(kept) < len(unpaid):
                await self._release([row.record.key for row in unpaid[len(kept) :]])
            claimed = [*paid, *kept]
            leased, over_budget, left = await self._budget.lease(claimed, ledger.submissions)
            # An older ledger may learn of more spending than was planned for.
            if self._budget.is_overdrawn:
                self.stop_submitting(StopReason.BUDGET, self._budget.full_message())
            if left:
                self._unfinished.update(left)
                await ledger.revoke(self._epoch, "", list(left))
            if over_budget:
                await self._release(over_budget)
            if leased:
                self._workers_with_work.add(worker)
        return leased

    async def _release(self, keys: Sequence[str]) -> None:
        await self._require_ledger().release(self._epoch, keys)
        self._may_have_unpaid_rows = True

    async def _revoke(self, worker: str, unfinished: Sequence[str] | None = None) -> None:
        """End a worker's leases. `unfinished` are the rows it reported as left; None: it reported nothing."""
        async with self._stopping_on_error(), self._lease_lock:
            if worker not in self._last_heartbeat_at:
                return
            try:
                revoked = await self._require_ledger().revoke(self._epoch, worker, unfinished or ())
                if unfinished is None and self._budget.has_limit:
                    # Some row may have failed unreported: its money buys another one.
                    self._budget.load(await self._require_ledger().submissions())
                    self._budget.update(await self._require_ledger().load())
            finally:
                # It counts as working until now, so that no snapshot finds nothing left.
                self._remove_worker(worker)
            self._permit_pool.remove_worker(worker, clocks.monotonic(), revoked.in_flight)
            if revoked.rows_freed:
                self._may_have_paid_rows = self._may_have_unpaid_rows = True
                self._budget.exhausted = False  # its rows keep their reservations

    def _remove_worker(self, worker: str) -> None:
        del self._last_heartbeat_at[worker]
        self._poll_rate_pool.remove_worker(worker)
        self._shared_durations.remove_worker(worker)
        self._workers_with_work.discard(worker)

    @asynccontextmanager
    async def _stopping_on_error(self) -> AsyncIterator[None]:
        """Let an error of the ledger, or another driver's epoch, stop the run."""
        try:
            yield
        except StopRun as error:
            self.stop_submitting(error.reason, str(error))
            self._may_have_paid_rows = self._may_have_unpaid_rows = False

    def _require_ledger(self) -> Ledger:
        if self._ledger is None:
            raise StopRun(StopReason.LEDGER, "the coordinator has no ledger")
        return self._ledger


def _render_duration_s(record: Record) -> float:
    """How long a generation took until a poll found it ended, 0.0 if none has."""
    if record.finished_at is None or record.accepted_at is None:
        return 0.0
    return record.finished_at - record.accepted_at
