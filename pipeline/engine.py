"""The whole run: submitters, pollers, downloaders and the reconciler around one state.

It owns concurrency and shutdown and must not know the command line. Each pool takes from its own queue
and none waits for another's slots: a finished generation frees its slot when that is noticed, not when its
video is saved. Every stream is bounded by the number of rows, so that handing on never blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from anyio import create_memory_object_stream, create_task_group

from pipeline.download.downloader_pool import DownloaderPool
from pipeline.errors import StopReason, StopRun
from pipeline.events import Level, Topic
from pipeline.images.delivery import PREPARERS
from pipeline.model import State
from pipeline.poll.poller_pool import PollerPool
from pipeline.reconcile.reconciler_pool import ReconcilerPool
from pipeline.run_context import Dependencies, RunContext
from pipeline.submit.create import SHUTDOWN_GRACE_S, Submitter
from pipeline.submit.submitter_pool import SubmitterPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pipeline.events import Observer
    from pipeline.model import Record
    from pipeline.run_state import RunOutcome, RunState
    from pipeline.settings import Settings

MAX_SUBMITTERS: Final = 64
MAX_POLLERS: Final = 128


class Engine:
    """One run over the rows of one batch. Not to be used twice."""

    def __init__(
        self,
        state: RunState,
        deps: Dependencies,
        settings: Settings,
        observer: Observer,
        *,
        expected_more: float = 0,
    ) -> None:
        """Begin with `state`; `expected_more` other rows at a time, or inf, may be admitted meanwhile."""
        self._run = RunContext(state, deps, settings, observer)
        self._run.state.slots = settings.concurrency
        self._run.state.expects_more = expected_more > 0
        self._stream_capacity = max(1, len(state.records)) + expected_more
        self._started = anyio.Event()
        self._submitter = Submitter(deps.api, deps.ledger, wall=deps.wall, note=deps.journal_submission)
        self._scope = anyio.CancelScope()

    async def run(self) -> RunOutcome:
        """Do all there is to do; return how it ended. Only bugs raise: what stops a run is in the outcome."""
        run, settings = self._run, self._run.settings
        ready_in, ready_out = create_memory_object_stream[str](self._stream_capacity)
        due_in, due_out = create_memory_object_stream[str](MAX_POLLERS)
        downloader_pool = DownloaderPool(run, ready_in)
        poller_pool = PollerPool(run, downloader_pool.push)
        reconciler_pool = ReconcilerPool(run, poller_pool.track, poller_pool.give_up_unknown)
        submitter_pool = SubmitterPool(run, self._submitter, poller_pool)
        self._downloader_pool, self._poller_pool = downloader_pool, poller_pool
        self._submitter_pool = submitter_pool
        with self._scope, ready_out, due_out:
            async with ready_in, due_in, create_task_group() as tasks:
                downloader_pool.spawn = lambda *work: tasks.start_soon(self._run_worker, *work)
                for _ in range(min(settings.concurrency, MAX_SUBMITTERS)):
                    tasks.start_soon(self._run_worker, submitter_pool.work)
                for _ in range(min(max(settings.concurrency, poller_pool.generating_count()), MAX_POLLERS)):
                    tasks.start_soon(self._run_worker, poller_pool.work, due_out.clone())
                for _ in range(settings.downloads):
                    tasks.start_soon(self._run_worker, downloader_pool.work, ready_out.clone())
                tasks.start_soon(self._run_worker, poller_pool.dispatcher.dispatch, due_in)
                tasks.start_soon(self._run_worker, poller_pool.dispatcher.expire_deadlines, due_in.clone())
                tasks.start_soon(self._run_worker, reconciler_pool.work)
                if (pictures := run.deps.pictures) is not None:
                    pictures.expect(run.state.records[key] for _, _, key in sorted(run.state.pending))
                    for _ in range(PREPARERS):
                        tasks.start_soon(pictures.prepare_ahead)
                await downloader_pool.resume()
                poller_pool.resume()
                self._started.set()
                await self._run_worker(reconciler_pool.wait_until_idle)
                tasks.cancel_scope.cancel()
        return run.state.outcome()

    async def _run_worker(self, worker: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a worker; what stops the whole run ends it, with everything on disk as it is."""
        try:
            await worker(*args)
        except StopRun as error:
            self._run.stop_submitting(error.reason, str(error))
            self.cancel()

    async def admit(self, records: Sequence[Record]) -> None:
        """Take further rows in, wherever they stand, as if the run had begun with them."""
        await self._started.wait()
        state = self._run.state
        if self._run.deps.pictures is not None:
            self._run.deps.pictures.expect(row for row in records if row.state is State.PENDING)
        for record in records:
            state.records[record.key] = record
            state.unfinished.pop(record.key, None)
            if record.state is State.PENDING:
                state.queue(record)
            elif record.state is State.GENERATING:
                self._poller_pool.track(record)
            elif record.state is State.READY:
                self._downloader_pool.push(record)
            elif record.state is State.IN_DOUBT:
                state.in_doubt.add(record.key)
        self._run.notify()

    def drop_finished(self, keys: Iterable[str]) -> None:
        """Drop those rows that are done or failed for good."""
        records = self._run.state.records
        for key in keys:
            if key in records and records[key].state in (State.DONE, State.FAILED):
                del records[key]

    def set_expects_more(self, *, more: bool) -> None:
        """Return whether further rows may come; when none do, the run ends with those that it has."""
        self._run.state.expects_more = more
        self._run.notify()

    def notify(self) -> None:
        """Wake everyone who waits: something outside has changed."""
        self._run.notify()

    @property
    def state(self) -> RunState:
        """The run's state, to be read only."""
        return self._run.state

    def stop(self, reason: str, notice: str) -> None:
        """Submit no more; finish and save what is paid. Safe to call from a signal's task.

        `reason` goes into the outcome, `notice` is reported now.
        """
        self._run.state.stop_requested = True
        self._run.state.stop_submitting(StopReason.INTERRUPTED, reason)
        self._run.report_event(Topic.STOPPING, notice, Level.WARNING)
        self._run.notify()

    def stop_submitting(self, error: StopRun) -> None:
        """Submit no more, for an error that was met elsewhere; go on with what is paid."""
        self._run.stop_submitting(error.reason, str(error))

    async def put_back_not_found(self) -> None:
        """Put back rows that failed by a 404, once `stop_submitting` was told that it was not their own."""
        await self._started.wait()
        await self._submitter_pool.put_back_not_found()

    def cancel(self) -> None:
        """Stop at once: creates in flight get a moment to learn their outcome, the rest is resumable."""
        self._submitter.set_shutdown_deadline()
        self._run.deps.ledger.set_shutdown_deadline(SHUTDOWN_GRACE_S)
        self._scope.cancel()

    def records(self) -> list[Record]:
        """Return every record as it stands now, in the manifest's order."""
        return list(self._run.state.records.values())
