"""Who watches a run while the engine works: signals, bars, log, CSV, and the live page when asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO, cast

import anyio
import click

from pipeline.batch.ledger_memory import LedgerMemory
from pipeline.batch.takes import end_retakes
from pipeline.cli import signals
from pipeline.cli.ends.ci import log_group, on_github
from pipeline.cli.ends.last_end import RUNNING, save_end
from pipeline.cli.ends.summary import redacted_argv
from pipeline.cli.ends.terminal import BestEffortStream
from pipeline.cli.progress import Progress
from pipeline.errors import LedgerError, StopReason, StopRun, StoreError, VeobatchError
from pipeline.events import Event, Level, ObserverGroup, Topic
from pipeline.poll.eta import EtaEstimator
from pipeline.results.next_step import RUN_FACTS_NAME, RunFacts
from pipeline.results.writer import ResultsWriter
from pipeline.run_context import describe_exception, format_traceback
from pipeline.run_state import RunOutcome

if TYPE_CHECKING:
    from pipeline.cli.setup import PreparedRun
    from pipeline.cluster.driver import ClusterDriver
    from pipeline.engine import Engine
    from pipeline.errors import ExitCode
    from pipeline.events import Observer
    from pipeline.ledger.totals import Totals
    from pipeline.poll.learner import DurationLearner


CLUSTER_EXIT_LIMIT_S: Final = 12.0
"""How long a cluster may take to stop at once: its workers hear of it, and Ray ends."""


class RunObservers:
    """The observers of one run, and the tasks that some of them need."""

    def __init__(self, prepared: PreparedRun, learner: DurationLearner) -> None:
        """`learner` holds what earlier runs have left of rendering times."""
        config, plan = prepared.config, prepared.plan
        options, settings = config.options, config.settings
        rows = sum(record.position >= 0 for record in plan.records)
        self._config = config
        self._ledger = prepared.ledger
        self.batch_usd = prepared.cost_estimate.batch_usd
        self._eta = EtaEstimator(
            plan.records, settings.concurrency, interval_s=settings.poll_interval, learner=learner
        )
        self._progress = Progress(
            rows,
            cast("TextIO", BestEffortStream(sys.stderr)),
            known=plan.records,
            quiet=options.quiet,
            verbose=options.verbose,
            sandbox=options.sandbox,
            eta=self._eta,
            estimate_usd=self.batch_usd,
        )
        self.results_writer = ResultsWriter(
            config.store,
            title=options.manifest.stem,
            manifest=str(options.manifest),
            sandbox=options.sandbox,
            ledger=prepared.ledger,
        )
        observers: list[Observer] = [prepared.run_log, self._progress, self._eta, self.results_writer]
        self._memory = LedgerMemory(prepared.api, prepared.ledger.identity, prepared.runs, plan.records)
        observers.append(self._memory)
        self._feed = None
        if options.serve is not None:
            from pipeline.results.live import ChangeFeed

            self._feed = ChangeFeed(plan.records)
            observers.append(self._feed)
        self.observer = ObserverGroup(*observers)

    async def remember_run(self, stop_reason: StopReason | None, *, ended: bool = True) -> None:
        """Keep in the ledger what `veobatch report` needs to name the next command."""
        self._memory.save()
        facts = RunFacts(redacted_argv(self._config.options.argv), stop_reason, self.batch_usd)
        with contextlib.suppress(LedgerError, StoreError):  # the run itself reports a ledger that is gone
            await self._ledger.meta_set(RUN_FACTS_NAME, facts.to_json())
            if ended and stop_reason is None:
                await end_retakes(self._ledger)
            await save_end(self._ledger, signals.current().signal_name if ended else RUNNING)

    async def money(self) -> Totals | None:
        """Return the sums over the ledger's book, None when the ledger is gone."""
        with contextlib.suppress(LedgerError, StoreError):
            from pipeline.ledger.totals import Book

            return Book(await self._ledger.submissions()).totals()
        return None

    async def run_engine(self, engine: Engine | ClusterDriver) -> tuple[RunOutcome, ExitCode | None]:
        """Run the engine; return how it ended and the exit code of the signal that ended it, if one did."""
        guard = signals.current()
        async with AsyncExitStack() as stack:
            await self._start_live_page(stack)
            if on_github(os.environ) and not self._config.options.quiet:
                stack.enter_context(
                    log_group("veobatch: progress", cast("TextIO", BestEffortStream(sys.stderr)))
                )
            stack.enter_context(self._progress)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self.results_writer.rewrite_on_change, engine.records)
                    tasks.start_soon(self._tick)
                    with guard.running(engine, limit_s=self._signal_limit_s()):
                        outcome = await engine.run()
                    tasks.cancel_scope.cancel()
            except ExceptionGroup as errors:
                match errors.exceptions:
                    case (VeobatchError() as error,):  # a cluster that cannot be joined
                        raise error from None
                raise
        return outcome, guard.exit_code

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

    def _signal_limit_s(self) -> float:
        clustered = self._config.options.cluster is not None
        return CLUSTER_EXIT_LIMIT_S if clustered else signals.EXIT_LIMIT_S

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(0.5)
            self._progress.tick()

    async def _start_live_page(self, stack: AsyncExitStack) -> None:
        """Serve the live page when asked to; raises `UsageError` when the place is taken."""
        config = self._config
        if self._feed is None or config.options.serve is None:
            return
        from pipeline.results.live import LivePage, parse_bind

        root = None if "://" in config.paths.output else Path(config.paths.output)
        page = LivePage(
            self._feed,
            parse_bind(config.options.serve),
            title=config.options.manifest.stem,
            manifest=str(config.options.manifest),
            output_folder=root,
            eta=self._eta,
            sandbox=config.options.sandbox,
        )
        await stack.enter_async_context(page)
        click.echo(f"live page: {page.url}", err=True)
