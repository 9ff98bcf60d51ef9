"""A whole run from the command's point of view: prepare, ask, run, project, sum up.

The composition root: the one place that knows every room. What each does is theirs.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import click

from pipeline import system
from pipeline.batch.paths import batch_paths
from pipeline.cli import signals
from pipeline.cli.credentials import find_base_url, require_key
from pipeline.cli.ends.notifications import check_notify_urls, send_notifications
from pipeline.cli.ends.summary import ExitSummary
from pipeline.cli.ends.terminal import discard_stdout
from pipeline.cli.manifest_loading import parse_manifest
from pipeline.cli.observers import RunObservers
from pipeline.cli.options import RunOptions
from pipeline.cli.preflight import check_report_file
from pipeline.cli.setup import RunConfig, prepare, report_start, resolve_settings
from pipeline.client import ApiKey, normalize_base_url
from pipeline.download.downloader import Downloader
from pipeline.download.retry_state import DownloadLimits
from pipeline.download.session import open_session
from pipeline.download.verify import check_saved, describe_findings, transitions_for
from pipeline.engine import Engine
from pipeline.errors import Conflict, ExitCode, StopReason, StopRun, StoreError, UsageError, VeobatchError
from pipeline.events import Event, Level, Topic
from pipeline.ledger.totals import Book
from pipeline.model import State
from pipeline.net.json_cache import write_json
from pipeline.poll.duration_cache import duration_cache_path, read_duration_cache
from pipeline.poll.learner import DurationLearner
from pipeline.poll.rate_limit import AdaptiveRateLimit
from pipeline.poll.schedule import PollSchedule
from pipeline.results.live.access import parse_bind
from pipeline.results.writer import ResultsWriter
from pipeline.run_context import Dependencies
from pipeline.run_state import RunOutcome
from pipeline.storage import is_object_url, open_store
from pipeline.submit.budget import Budget
from pipeline.submit.concurrency import AdaptiveConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    import aiohttp

    from pipeline.cli.options import RunOptions
    from pipeline.cli.setup import PreparedRun
    from pipeline.client.preflight import Finding
    from pipeline.cluster.driver import ClusterDriver
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.settings import Settings
    from pipeline.storage import OutputStore

NO_KEY_HINT: Final = "To try without a key, free and offline: add --sandbox."
SANDBOX_KEY: Final = "any-key-will-do"
SWITCH_INTERVAL_S: Final = 0.0001
"""At the default of 5 ms a loop that is busy in short bursts starves the ledger's thread of the GIL."""


def run(options: RunOptions) -> int:
    """Carry out `veobatch run`; return the exit code. Raises `VeobatchError` before anything is touched."""
    if not isfinite(options.sandbox_speed):
        raise UsageError("--sandbox-speed takes a number, such as 20")
    parsed = parse_manifest(options.manifest, options.model, options.takes)
    manifest = parsed.manifest if parsed.other_models else parsed.to_loaded().manifest
    settings = resolve_settings(options, manifest.run if manifest else {})
    check_notify_urls(options.notify)
    if options.junit is not None:
        check_report_file("--junit", options.junit)
    if options.serve is not None:
        parse_bind(options.serve)
    if options.cluster is not None:
        check_cluster_options(options)
    paths = batch_paths(options.manifest, options.output, options.ledger_choice, sandbox=options.sandbox)
    store = open_store(paths.output)
    key = ApiKey(SANDBOX_KEY, "--sandbox") if options.sandbox else require_key(os.environ, hint=NO_KEY_HINT)
    base_url = "" if options.sandbox else normalize_base_url(find_base_url(options.base_url, os.environ))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return anyio.run(_run, RunConfig(options, parsed, settings, paths, store, key, base_url))


async def _run(config: RunConfig) -> int:
    options, guard = config.options, signals.current()
    guard.enter_loop()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(config.store.aclose)
        with anyio.CancelScope() as scope, guard.cancelling(scope):
            prepared = await prepare(stack, config)
        if scope.cancelled_caught:
            raise signals.Interrupted(guard.exit_code or ExitCode.INTERRUPTED)
        if prepared.obstacle is not None:
            summary = await _stop_before_start(prepared, prepared.obstacle)
        elif not prepared.confirm_cost():
            click.echo("nothing was submitted", err=True)
            return int(ExitCode.RESUMABLE)
        else:
            prepared.run_log.set_initial_records(prepared.plan.records)
            cdn = await stack.enter_async_context(open_session())
            summary = await _execute(prepared, cdn)
    try:
        summary.show(as_json=options.as_json, quiet=options.quiet)
    except OSError as error:
        if error.errno != errno.EIO:  # what a terminal that was closed answers
            raise
        discard_stdout()
    await send_notifications(options, summary)
    return int(summary.exit_code)


async def _stop_before_start(prepared: PreparedRun, obstacle: Finding) -> ExitSummary:
    """Leave a true CSV and page behind, and say why nothing was submitted."""
    config, records = prepared.config, prepared.plan.records
    outcome = RunOutcome(records, obstacle.reason, f"{obstacle.message}; {obstacle.next_step}", {})
    argv, code = config.options.argv, ExitCode.RESUMABLE
    sandbox, money = config.options.sandbox, Book(await prepared.ledger.submissions()).totals()
    summary = ExitSummary(
        argv, config.paths, outcome, 0.0, code, sandbox=sandbox, initial_records=records, money=money
    )
    title, manifest = config.options.manifest.stem, str(config.options.manifest)
    writer = ResultsWriter(config.store, title=title, manifest=manifest, sandbox=sandbox)
    prepared.run_log.on_event(Event(Topic.ENDED, str(obstacle), Level.ERROR))
    if not await writer.finish(records, next_command=str(summary.next_step()), money=money):
        summary = replace(summary, results_not_written=True)
    return summary


async def _execute(prepared: PreparedRun, cdn: aiohttp.ClientSession) -> ExitSummary:
    """Let an engine do what is planned, with everybody watching who wants to."""
    config, plan = prepared.config, prepared.plan
    learner = DurationLearner(config.settings.poll_interval)
    with _duration_cache(learner, config.base_url, enabled=not config.options.sandbox):
        observers = RunObservers(prepared, learner)
        observer = observers.observer
        prepared.reconnect_notifier.observer = observer
        report_start(plan, prepared.loaded, prepared.cost_estimate, observer, *prepared.notes)
        dependencies = await _dependencies(prepared, cdn, learner)
        if prepared.epoch is None:
            engine = Engine(plan.records, dependencies, config.settings, observer)
            if prepared.submit_error is not None:
                engine.stop_submitting(prepared.submit_error)
            return await _run_engine(engine, observers, config)
        records, error = await check_artifacts(
            plan.records, prepared.ledger, config.store, config.settings, observer
        )
        cluster = make_cluster(records, prepared, prepared.epoch, learner.dump(), observer)
        error = error or prepared.submit_error
        if error is not None:
            cluster.stop_submitting(error)
        summary = await _run_engine(cluster, observers, config)
        learner.restore(cluster.learned_durations)
        return summary


async def _run_engine(
    engine: Engine | ClusterDriver, observers: RunObservers, config: RunConfig
) -> ExitSummary:
    """Run the engine, project the results a last time, and say how it ended."""
    started, initial_records = system.monotonic(), tuple(engine.records())
    # What `report` offers if this run is killed.
    await observers.remember_run(StopReason.INTERRUPTED, ended=False)
    try:
        await observers.results_writer.write_csv(engine.records())
    except StoreError as error:
        engine.stop_submitting(error)
    try:
        outcome, signal_exit_code = await observers.run_engine(engine)
        code = signal_exit_code or exit_code(outcome)
    except VeobatchError:
        raise
    except Exception as error:
        outcome, signal_exit_code = await observers.crash_outcome(engine, error), None
        code = ExitCode.CRASH
    summary = ExitSummary(
        config.options.argv,
        config.paths,
        outcome,
        system.monotonic() - started,
        code,
        sandbox=config.options.sandbox,
        initial_records=initial_records,
        batch_usd=observers.batch_usd,
        money=await observers.money(),
    )
    await observers.remember_run(outcome.stop_reason)
    next_command, money = str(summary.next_step()), summary.money
    if not await observers.results_writer.finish(outcome.records, next_command=next_command, money=money):
        code = signal_exit_code or max(code, ExitCode.RESUMABLE)
        summary = replace(summary, exit_code=code, results_not_written=True)
    observers.observer.on_event(Event(Topic.ENDED, f"exit {int(summary.exit_code)}: {summary.headline()}"))
    return summary


@contextmanager
def _duration_cache(learner: DurationLearner, base_url: str, *, enabled: bool) -> Iterator[None]:
    """Begin with what earlier runs on this machine learned of this API, and leave what this one learns."""
    path = duration_cache_path(base_url)
    if enabled:
        learner.restore(read_duration_cache(path))
    try:
        yield
    finally:
        if enabled:
            write_json(path, learner.dump())


async def _dependencies(
    prepared: PreparedRun, cdn: aiohttp.ClientSession, learner: DurationLearner
) -> Dependencies:
    config = prepared.config
    settings, rng = config.settings, system.new_random()
    limits = DownloadLimits.from_settings(settings)
    return Dependencies(
        api=prepared.api,
        ledger=prepared.ledger,
        downloader=Downloader(session=cdn, store=config.store, limits=limits, media=settings.media),
        schedule=PollSchedule(learner, interval_s=settings.poll_interval, random=rng),
        concurrency_limit=AdaptiveConcurrencyLimit(
            settings.concurrency, interval_s=settings.poll_interval, random=rng
        ),
        rate_limit=AdaptiveRateLimit(interval_s=settings.poll_interval),
        budget=await _budget(prepared),
        price_of=prepared.prices.price_usd,
        clock=system.monotonic,
        wall=system.wall,
        random=rng,
    )


async def _budget(prepared: PreparedRun) -> Budget:
    max_cost = prepared.config.settings.max_cost
    entries = [] if max_cost is None else await prepared.ledger.submissions()
    return Budget(max_cost, entries, prepared.prices.price_of_key)


def exit_code(outcome: RunOutcome) -> ExitCode:
    """Choose among 0, 1 and 3: what can go on wins over what failed."""
    if outcome.stop_reason is not None or outcome.open_rows:
        return ExitCode.RESUMABLE
    failed = any(record.state is State.FAILED and record.position >= 0 for record in outcome.records)
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE


def check_cluster_options(options: RunOptions) -> None:
    """Raise `UsageError` for what cannot work with workers on other machines."""
    cluster_options = options.cluster
    if cluster_options is None:
        return
    from pipeline.cluster import ray_backend  # noqa: F401 - says so when Ray is not installed

    if cluster_options.address is None:
        return
    if options.sandbox:
        raise UsageError("--sandbox listens on this machine only: leave --ray-address out")
    if not (options.ledger_choice.ledger or "").startswith("postgres"):
        raise UsageError(
            "workers on other machines need a ledger that they can reach: --ledger postgresql://..."
        )


def make_cluster(
    records: Sequence[Record],
    prepared: PreparedRun,
    epoch: tuple[int, frozenset[str]],
    shared_durations: Mapping[str, Any],
    observer: Observer,
) -> ClusterDriver:
    """Return the cluster that will carry the batch out; nothing of it is started yet.

    `epoch` is what the ledger answered when it began, `memory` what a learner of durations dumped.
    """
    from pipeline.cluster import ClusterConfig
    from pipeline.cluster.driver import ClusterDriver

    config, prices = prepared.config, prepared.prices
    cluster_options, paths = config.options.cluster, config.paths
    if cluster_options is None:
        raise ValueError("no cluster was asked for")
    ledger_url = str(paths.ledger)
    if "://" not in ledger_url.removeprefix("sqlite:///"):
        ledger_url = str(Path(ledger_url.removeprefix("sqlite:///")).absolute())
    output = paths.output if is_object_url(paths.output) else str(Path(paths.output).absolute())
    job = ClusterConfig(
        ledger=ledger_url,
        batch=paths.batch,
        output=output,
        base_url=config.base_url,
        api_name=prepared.api.name,
        api_key=config.key,
        settings=config.settings,
        workers=cluster_options.workers,
        lease_s=cluster_options.lease_s,
        prices=prices.by_key,
        assumed_price=prices.assumed,
        cached_durations=shared_durations,
    )
    return ClusterDriver(records, job, prepared.ledger, epoch, observer, address=cluster_options.address)


async def check_artifacts(
    records: Sequence[Record], ledger: Ledger, store: OutputStore, settings: Settings, observer: Observer
) -> tuple[list[Record], StopRun | None]:
    """Check what was saved, before workers start; return the records, with what must be fetched again.

    With them comes the error that kept them from being checked, if any: an output or a ledger that is away.
    """
    checked = {record.key: record for record in records}
    done = [record for record in records if record.state is State.DONE]
    try:
        found = await check_saved(store, done, read_all=settings.verify)
        for message in describe_findings(found, fetch_missing=settings.fetch_missing):
            observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
        for outcome in await ledger.commit_many(transitions_for(found, fetch_missing=settings.fetch_missing)):
            if isinstance(outcome, Conflict):
                raise outcome
            checked[outcome.key] = outcome
    except StopRun as error:
        return list(checked.values()), error
    return list(checked.values()), None
