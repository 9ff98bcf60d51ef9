"""One `veobatch run` in the simulated world: the package's own parts, put together as the command does."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from pipeline import clocks
from pipeline.batch.record_plan import plan_batch
from pipeline.cli.signals import SignalGuard
from pipeline.client import ApiKey, key_id
from pipeline.download.downloader import Downloader
from pipeline.download.retry_state import DownloadLimits
from pipeline.engine import Engine
from pipeline.errors import StopRun, StoreError, VeobatchError
from pipeline.events import ObserverGroup, Topic
from pipeline.ledger import Ledger
from pipeline.model import State
from pipeline.plan import RetrySelection
from pipeline.poll.learner import DurationLearner
from pipeline.poll.poll_rate import AdaptiveRateLimit
from pipeline.poll.schedule import PollSchedule
from pipeline.reconcile.restored_ledger import recall_forgotten
from pipeline.results.csv_rows import csv_bytes
from pipeline.results.csv_writer import ResultsWriter
from pipeline.run_context import Dependencies
from pipeline.run_state import RunState
from pipeline.storage.local import LocalStore
from pipeline.submit.budget import Budget
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit
from pipeline.submit.submission_journal import SubmissionJournal
from tests.simulation import scheduler
from tests.simulation.book import ROOT
from tests.simulation.cdn import CdnSession
from tests.simulation.ledger import SimBackend, SimWriter
from tests.simulation.network import SimApi
from tests.simulation.posix import SimPath
from tests.simulation.vendor import PRICE_USD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pipeline.batch_plan import BatchPlan
    from pipeline.cluster.driver import ClusterDriver
    from pipeline.events import Event
    from pipeline.model import Job, Record
    from pipeline.run_state import RunOutcome
    from pipeline.settings import Settings
    from tests.simulation.machine import Process

DONE, FAILED, RESUMABLE, INTERRUPTED = 0, 1, 3, 130
REWRITING_SHARE: Final = 0.05
"""How many runs rewrite their table as they go: a step each simulated second is most of such a run's."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asks of one run."""

    jobs: tuple[Job, ...]
    settings: Settings
    key: str
    retry_failed: bool = False
    resubmit_in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """The part of `pipeline.manifest.Manifest` that planning reads."""

    jobs: tuple[Job, ...]
    path: Path = Path("/manifest.yaml")


@dataclass(frozen=True, slots=True)
class Opened:
    """What a run needs once it may begin."""

    engine: Engine | ClusterDriver
    journal: SubmissionJournal
    results: ResultsWriter


class Watcher:
    """An observer that keeps the story, and knows a bug when it hears of one."""

    def __init__(self, process: Process) -> None:
        self._world = process.world

    def on_transition(self, before: Record, after: Record) -> None:
        """Commits are watched where they are made."""

    def on_event(self, event: Event) -> None:
        self._world.tell("SAYS", event.topic.value, event.message)
        if event.topic is Topic.CRASH:
            self._world.violated("unexpected error", f"{event.message} {event.facts.get('traceback', '')}")


async def run_command(process: Process, request: Request) -> int:
    """Carry out a run on one machine; return its exit code."""
    return await run_guarded(process, request, _run)


async def run_guarded(
    process: Process, request: Request, run: Callable[[Process, Request, SignalGuard], Awaitable[int]]
) -> int:
    """Carry out a run, whose signals are heard and whose folder is locked. That lock is the kernel's."""
    machine = process.machine
    guard = process.guard = SignalGuard()
    guard.enter_loop()
    if machine.lock_holder is not None:
        return RESUMABLE
    machine.lock_holder = process
    try:
        return await run(process, request, guard)
    except VeobatchError as error:
        process.world.tell("STOPS", type(error).__name__, str(error))
        return RESUMABLE
    finally:
        if machine.lock_holder is process:
            machine.lock_holder = None


async def _run(process: Process, request: Request, guard: SignalGuard) -> int:
    backend = SimBackend(process.machine)
    writer = SimWriter(backend, asyncio.get_running_loop())
    async with Ledger(backend, writer) as ledger, SimApi(process, ApiKey(request.key, "the test")) as api:
        opened: Opened | None = None
        with anyio.CancelScope() as scope, guard.cancelling(scope):
            opened = await _open(process, api, ledger, request)
        if scope.cancelled_caught or opened is None:
            return guard.exit_code or INTERRUPTED
        return await run_to_end(process, opened, guard, ledger)


async def run_to_end(process: Process, opened: Opened, guard: SignalGuard, ledger: Ledger) -> int:
    """Run the engine, write the results and compare them; return the exit code."""
    outcome, is_written = await _run_engine(process, opened, guard)
    with contextlib.suppress(StopRun):
        await opened.journal.mark(ledger)
    await _check(process, ledger, outcome, is_written=is_written)
    code = guard.exit_code or exit_code(outcome)
    return code if is_written else guard.exit_code or max(code, RESUMABLE)


async def _open(process: Process, api: SimApi, ledger: Ledger, request: Request) -> Opened:
    journal, records = await open_plan(api, ledger, request)
    dependencies = await _dependencies(process, api, ledger, request.settings, journal)
    results, observer = make_observers(process, ledger, journal)
    return Opened(
        Engine(RunState.from_records(records), dependencies, request.settings, observer), journal, results
    )


async def open_plan(
    api: SimApi, ledger: Ledger, request: Request
) -> tuple[SubmissionJournal, Sequence[Record]]:
    """Compare the manifest with the ledger; return the journal of its submissions, and the rows."""
    journal = SubmissionJournal(ledger.identity, on_cluster=scheduler.running().world.options.workers > 0)
    runs = int(await ledger.meta_get("runs") or 0) + 1
    await ledger.meta_set("runs", str(runs))
    plan = await _plan(ledger, request)
    recalled, _ = await recall_forgotten(
        api,
        ledger,
        plan.records,
        journal,
        uncertain=None,
        key_id=key_id(request.key, ledger.identity),
        wait_s=request.settings.reconcile_after,
    )
    records = plan.with_current(recalled).records
    await journal.take_over(ledger, records)
    return journal, records


def make_observers(
    process: Process, ledger: Ledger, journal: SubmissionJournal
) -> tuple[ResultsWriter, ObserverGroup]:
    """Return who writes the table, and all who are told what happens."""
    root: Any = SimPath(ROOT)
    results = ResultsWriter(LocalStore(root), title="batch", manifest="batch.yaml", ledger=ledger)
    return results, ObserverGroup(Watcher(process), journal, results)


async def _run_engine(process: Process, opened: Opened, guard: SignalGuard) -> tuple[RunOutcome, bool]:
    """Run the engine as `pipeline.runner` does; return how it ended, and whether the table says so."""
    engine, results = opened.engine, opened.results
    try:
        await results.begin(engine.records())
    except StoreError as error:
        engine.stop_submitting(error)
    async with anyio.create_task_group() as tasks:
        if process.world.chance.stream(f"table {process.number}").random() < REWRITING_SHARE:
            process.world.rewrites_table = True
            tasks.start_soon(results.rewrite_on_change, engine.records)
        with guard.running(engine):
            outcome = await engine.run()
        tasks.cancel_scope.cancel()
    try:
        await results.write_csv(outcome.records)
    except StoreError:
        return outcome, False
    return outcome, True


async def _plan(ledger: Ledger, request: Request) -> BatchPlan:
    manifest: Any = Manifest(request.jobs)
    return await plan_batch(
        ledger,
        manifest,
        "{id}",
        RetrySelection(enabled=request.retry_failed),
        resubmit_in_doubt=request.resubmit_in_doubt,
    )


async def _dependencies(
    process: Process, api: SimApi, ledger: Ledger, settings: Settings, journal: SubmissionJournal
) -> Dependencies:
    rng = clocks.new_random()
    cdn: Any = CdnSession(process)
    root: Any = SimPath(ROOT)
    entries = [] if settings.max_cost is None else await ledger.submissions()
    return Dependencies(
        api=api,
        ledger=ledger,
        downloader=Downloader(
            session=cdn, store=LocalStore(root), limits=DownloadLimits.from_settings(settings), media=False
        ),
        schedule=PollSchedule(
            DurationLearner(settings.poll_interval), interval_s=settings.poll_interval, random=rng
        ),
        concurrency_limit=AdaptiveConcurrencyLimit(
            settings.concurrency, interval_s=settings.poll_interval, random=rng
        ),
        rate_limit=AdaptiveRateLimit(interval_s=settings.poll_interval),
        budget=Budget(settings.max_cost, entries, lambda _: PRICE_USD),
        price_of=lambda _: PRICE_USD,
        clock=clocks.monotonic,
        wall=clocks.wall,
        random=rng,
        journal_submission=journal.append,
    )


async def _check(process: Process, ledger: Ledger, outcome: RunOutcome, *, is_written: bool) -> None:
    """Compare the results with the ledger, and the table on the disk with both, byte for byte."""
    world = process.world
    try:
        loaded = await ledger.load()
    except StopRun:
        return
    world.tell("ENDS", outcome.stop_reason, outcome.message)
    world.book.check_end(loaded, outcome.records)
    stored = {record.key: record for record in loaded}
    inode = world.machine.disk.names.get(f"{ROOT}/results.csv")
    table = csv_bytes([stored[record.key] for record in outcome.records])
    # Another process that has the folder, too, writes its own.
    if is_written and not world.lock_was_lost and (inode is None or bytes(inode.data) != table):
        world.violated("results.csv is not the ledger's", outcome.message)


def exit_code(outcome: RunOutcome) -> int:
    """Choose among 0, 1 and 3 as the command does."""
    if outcome.stop_reason is not None or outcome.open_rows:
        return RESUMABLE
    return FAILED if any(r.state is State.FAILED and r.position >= 0 for r in outcome.records) else DONE
