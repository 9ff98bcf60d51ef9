"""Who watches every run while the engine works: log, CSV, time left, and what outlives the run."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import anyio

from pipeline.batch.retakes import end_retakes
from pipeline.errors import ExitCode, LedgerError, StopReason, StopRun, StoreError, VeobatchError
from pipeline.events import Event, Level, ObserverGroup, Topic
from pipeline.poll.eta import EtaEstimator
from pipeline.results.csv_writer import ResultsWriter
from pipeline.results.next_step import RUN_FACTS_NAME, RunFacts
from pipeline.results.picks import with_picks
from pipeline.results.receipts import ReceiptWriter
from pipeline.results.source_thumbnails import ThumbnailWriter
from pipeline.run_context import describe_exception, format_traceback, known_error
from pipeline.run_state import RunOutcome
from pipeline.runner.hook_targets import make_targets
from pipeline.runner.hooks import Hooks
from pipeline.runner.previous_run_end import RUNNING, save_end
from pipeline.runner.summary import continuing_argv

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from pipeline.batch.one_time_requests import OneTimeRequests
    from pipeline.cluster.driver import ClusterDriver
    from pipeline.engine import Engine
    from pipeline.events import Observer
    from pipeline.ledger.totals import Totals
    from pipeline.poll.learner import DurationLearner
    from pipeline.runner.prepare import PreparedRun
    from pipeline.runner.summary import RunSummary

    MakeWatcher = Callable[[PreparedRun, EtaEstimator], "Watcher"]


class RunControl(Protocol):
    """Who may stop a run from outside: the command by signals, a program by calls.

    `signal_name` and `exit_code` are of the signal that ended the run, "" and None without one; `is_stopping`
    says that it is to submit nothing more, also before an engine runs.
    """

    @property
    def signal_name(self) -> str:
        """The signal's name."""

    @property
    def exit_code(self) -> ExitCode | None:
        """What the process is to end with."""

    @property
    def is_stopping(self) -> bool:
        """Whether somebody has stopped the run."""

    def running(self, engine: Engine | ClusterDriver) -> AbstractContextManager[None]:
        """While the context lasts, `engine` is the one to stop."""


class Watcher(Protocol):
    """What the caller shows of a run: observers, and a context around the engine's work."""

    @property
    def observers(self) -> Sequence[Observer]:
        """The observers of the run."""

    def watching(self) -> AbstractAsyncContextManager[object]:
        """Be there while the context lasts."""

    async def keep_current(self) -> None:
        """Do what is due from time to time, until cancelled."""


def make_results_writer(prepared: PreparedRun) -> ResultsWriter:
    """Return the writer of this run's CSV and page."""
    request = prepared.config.request
    return ResultsWriter(
        prepared.config.store,
        title=request.manifest.stem,
        manifest=str(request.manifest),
        sandbox=request.sandbox,
        ledger=prepared.batch.ledger,
    )


def _make_receipt_writer(prepared: PreparedRun) -> ReceiptWriter:
    config = prepared.config
    manifest, secrets = config.request.manifest.name, [config.key.secret]
    return ReceiptWriter(config.store, manifest, sandbox=config.request.sandbox, secrets=secrets)


def _make_thumbnail_writer(prepared: PreparedRun) -> ThumbnailWriter | None:
    files = prepared.loaded.manifest.files.files
    return ThumbnailWriter(prepared.config.store, files) if files and prepared.config.settings.media else None


def make_hooks(prepared: PreparedRun) -> Hooks:
    """Return the hooks of this run."""
    config = prepared.config
    targets = make_targets(config.request, os.environ)
    return Hooks(targets, config.request, config.paths, config.key.secret)


class RunObservers:
    """The observers of one run, and the tasks that some of them need."""

    def __init__(
        self,
        prepared: PreparedRun,
        learner: DurationLearner,
        make_watcher: MakeWatcher,
        results_writer: ResultsWriter,
    ) -> None:
        """`learner` holds what earlier runs have left of rendering times; the writer has begun."""
        settings, records = prepared.config.settings, prepared.plan.begun().records
        self._config, self._ledger = prepared.config, prepared.batch.ledger
        self.batch_usd, self._submits = prepared.cost_estimate.batch_usd, prepared.submits
        wanted = prepared.submittable
        counted = [r for r in records if wanted is None or r.state != "pending" or r.key in wanted]
        eta = EtaEstimator(counted, settings.concurrency, interval_s=settings.poll_interval, learner=learner)
        self._watcher = make_watcher(prepared, eta)
        self.results_writer = results_writer
        self._journal = prepared.batch.journal
        self._hooks = make_hooks(prepared)
        self._receipts = _make_receipt_writer(prepared) if self._config.request.receipts else None
        self._thumbnails = _make_thumbnail_writer(prepared)
        kept: list[Observer] = [prepared.batch.run_log, eta, self.results_writer, self._journal, self._hooks]
        kept += [one for one in (self._receipts, self._thumbnails) if one is not None]
        self.observer = self._hooks.observer = ObserverGroup(*kept, *self._watcher.observers)

    async def remember_run(
        self, stop_reason: StopReason | None, signal_name: str = "", *, outcome: RunOutcome | None = None
    ) -> None:
        """Keep in the ledger what `veobatch report` needs to name the next command."""
        argv = continuing_argv(self._config.request.argv, outcome, submits=self._submits)
        facts, ended = RunFacts(argv, stop_reason, self.batch_usd), outcome is not None
        with contextlib.suppress(LedgerError, StoreError):  # the run itself reports a ledger that is gone
            await self._ledger.meta_set(RUN_FACTS_NAME, facts.to_json())
            await self._journal.mark(self._ledger)
            await save_end(self._ledger, signal_name if ended else RUNNING)

    async def money(self) -> Totals | None:
        """Return what all submissions cost, None when the ledger is gone."""
        with contextlib.suppress(LedgerError, StoreError):
            return await self._ledger.totals()
        return None

    async def run_engine(
        self, engine: Engine | ClusterDriver, control: RunControl, requests: OneTimeRequests | None = None
    ) -> RunOutcome:
        """Run the engine with everybody watching; return how it ended. `requests` are committed before."""
        async with self._watcher.watching():
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._contain, self.results_writer.rewrite_on_change, engine.records)
                    tasks.start_soon(self._contain, self._journal.keep_marked, self._ledger)
                    for work in (self._watcher, self._hooks, self._receipts, self._thumbnails):
                        if work is not None:
                            tasks.start_soon(self._contain, work.keep_current)
                    with control.running(engine):
                        # Last of all: where anything has kept the run from beginning, failed rows are
                        # failed still, and rows in doubt are left to the vendor's log.
                        if requests is not None:
                            await requests.commit(self._ledger)
                        outcome = await engine.run()
                    tasks.cancel_scope.cancel()
            except ExceptionGroup as errors:
                if (error := known_error(errors)) is not None:  # no cluster to join, or no ledger
                    raise error from None
                raise
        return await self._with_picks(outcome)

    async def _contain(self, work: Callable[..., Awaitable[bool | None]], *args: object) -> bool:
        """Do what goes on beside the run; return False if it failed, or said so. A bug in it is reported."""
        try:
            return await work(*args) is not False
        except VeobatchError:
            raise
        except Exception as error:  # what goes on beside a run must not cost it anything
            owner = type(getattr(work, "__self__", work)).__name__
            message = f"{owner} met an unexpected error (the traceback is in run.log)"
            facts = {"traceback": format_traceback(error)}
            self.observer.on_event(Event(Topic.CRASH, message, Level.WARNING, facts=facts))
            return False

    async def _with_picks(self, outcome: RunOutcome) -> RunOutcome:
        """Return the outcome with what reviewers have said meanwhile; the engine does not follow them."""
        with contextlib.suppress(LedgerError, StoreError):  # the run itself reports a ledger that is gone
            return replace(outcome, records=tuple(with_picks(outcome.records, await self._ledger.picks())))
        return outcome

    async def write_results(self, summary: RunSummary) -> bool:
        """Write CSV, page and missing receipts as the run leaves them; return whether all are there."""
        records, money = summary.outcome.records, summary.money
        next_command = str(summary.next_step())
        written = await self.results_writer.finish(records, next_command=next_command, money=money)
        for note in self.results_writer.pick_notes:
            self.observer.on_event(Event(Topic.NOTE, note, Level.WARNING))
        if self._thumbnails is not None:
            await self._contain(self._thumbnails.finish, records)
        if self._receipts is not None:
            written = await self._contain(self._receipts.finish, records) and written
        return written

    async def report_end(self, summary: RunSummary) -> None:
        """Report the run's end to the observers, then to the hooks; with that, its `--retake` is met."""
        message = f"exit {int(summary.exit_code)}: {summary.headline()}"
        self.observer.on_event(Event(Topic.ENDED, message))
        await self._hooks.finish(summary)
        # Last of all: a run that is killed before, or exits with 3, is started again with the same command.
        if summary.exit_code in (ExitCode.DONE, ExitCode.SOME_FAILED):
            with contextlib.suppress(LedgerError, StoreError):  # the takes stay asked for
                await end_retakes(self._ledger)

    async def crash_outcome(self, engine: Engine | ClusterDriver, error: Exception) -> RunOutcome:
        """Report a bug of ours that ended the run; return how its rows stand, as the ledger has them."""
        message = (
            f"unexpected error, a bug of veobatch: {describe_exception(error)}; run.log has the traceback"
        )
        facts = {"traceback": format_traceback(error)}
        self.observer.on_event(Event(Topic.CRASH, message, Level.ERROR, facts=facts))
        records = {record.key: record for record in engine.records()}
        with contextlib.suppress(StopRun):
            records.update({row.key: row for row in await self._ledger.load() if row.key in records})
        return RunOutcome(tuple(records.values()), StopReason.CRASH, message, {})
