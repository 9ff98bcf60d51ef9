"""Carrying out a prepared run: the one place that puts every room together. What each does is theirs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline import clocks
from pipeline.batch.pictures import open_pictures, picture_delivery
from pipeline.download.downloader import Downloader
from pipeline.download.guarded_session import open_session
from pipeline.download.retry_state import DownloadLimits
from pipeline.engine import Engine
from pipeline.errors import ExitCode, StopReason, StoreError, VeobatchError
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.net.json_cache import write_json
from pipeline.poll.duration_cache import duration_cache_path, read_duration_cache
from pipeline.poll.learner import DurationLearner
from pipeline.poll.poll_rate import AdaptiveRateLimit
from pipeline.poll.schedule import PollSchedule
from pipeline.results.run_delta import not_new
from pipeline.run_context import Dependencies
from pipeline.run_state import RunOutcome, RunState
from pipeline.runner.observers import RunObservers, make_hooks, make_results_writer
from pipeline.runner.prepare import report_start
from pipeline.runner.summary import RunSummary
from pipeline.selection import unselected_failures
from pipeline.submit.budget import Budget
from pipeline.submit.create_limits import AdaptiveConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

    from pipeline.client.reachability import Finding
    from pipeline.cluster.driver import ClusterDriver
    from pipeline.events import Observer
    from pipeline.images.delivery import Pictures
    from pipeline.results.csv_writer import ResultsWriter
    from pipeline.runner.observers import MakeWatcher, RunControl
    from pipeline.runner.prepare import PreparedRun


async def stop_before_start(prepared: PreparedRun, obstacle: Finding) -> RunSummary:
    """Leave a true CSV and page behind; return why nothing was submitted."""
    config, records = prepared.config, prepared.plan.records
    summary = RunSummary(
        config.request.argv,
        config.paths,
        RunOutcome(records, obstacle.reason, f"{obstacle.message}; {obstacle.next_step}", {}),
        0.0,
        ExitCode.RESUMABLE,
        sandbox=config.request.sandbox,
        initial_records=records,
        money=await prepared.batch.ledger.totals(),
        submits=False,
    )
    prepared.batch.run_log.on_event(Event(Topic.ENDED, str(obstacle), Level.ERROR))
    writer, next_command = make_results_writer(prepared), str(summary.next_step())
    if not await writer.finish(records, next_command=next_command, money=summary.money):
        summary = replace(summary, results_not_written=True)
    await make_hooks(prepared).finish(summary)
    return summary


async def execute(prepared: PreparedRun, control: RunControl, make_watcher: MakeWatcher) -> RunSummary:
    """Let an engine do what is planned, with everybody watching who wants to.

    `make_watcher` is given the run and the estimate of the time left. Raises `VeobatchError` only for a
    cluster that cannot be joined: what stops a run is in the summary.
    """
    config = prepared.config
    learner = DurationLearner(config.settings.poll_interval)
    manifest, folder, session = prepared.loaded.manifest, config.paths.folder, prepared.api.keyless_session
    delivery = picture_delivery(manifest, config.settings, sandbox=config.request.sandbox)
    async with open_session() as cdn, open_pictures(delivery, folder, session) as pictures:
        with _duration_cache(learner, config.base_url, enabled=not config.request.sandbox):
            writer = make_results_writer(prepared)
            await _check_submitting(prepared, writer, control)
            observers = RunObservers(prepared, learner, make_watcher, writer)
            prepared.batch.reconnect_notifier.observer = observers.observer
            report_start(prepared, observers.observer)
            if prepared.batch.epoch is None:
                engine = await _make_engine(prepared, cdn, pictures, learner, observers.observer)
                return await _run_engine(engine, observers, prepared, control)
            from pipeline.runner.on_cluster import start_cluster

            cluster = await start_cluster(prepared, prepared.batch.epoch, learner.dump(), observers.observer)
            prepared.batch.run_log.follow(cluster.view.records)
            summary = await _run_engine(cluster, observers, prepared, control)
            learner.restore(cluster.learned_durations)
            return summary


async def _check_submitting(prepared: PreparedRun, writer: ResultsWriter, control: RunControl) -> None:
    """Begin the results, and take back what was asked for this once where nothing can be submitted."""
    error = prepared.submit_error
    try:
        await writer.begin(prepared.plan.records)
    except StoreError as store_error:
        error = error or store_error
    if error is not None or control.is_stopping:
        prepared.submit_nothing(error)


async def _make_engine(
    prepared: PreparedRun,
    cdn: aiohttp.ClientSession,
    pictures: Pictures | None,
    learner: DurationLearner,
    observer: Observer,
) -> Engine:
    """Return an engine that begins with what was asked for this once, which is not yet committed."""
    dependencies = replace(await _dependencies(prepared, cdn, learner), pictures=pictures)
    state = RunState.from_records(prepared.plan.begun().records, prepared.submittable)
    prepared.batch.run_log.follow(state.records)
    engine = Engine(state, dependencies, prepared.config.settings, observer)
    if prepared.submit_error is not None:
        engine.stop_submitting(prepared.submit_error)
    return engine


async def _run_engine(
    engine: Engine | ClusterDriver, observers: RunObservers, prepared: PreparedRun, control: RunControl
) -> RunSummary:
    """Run the engine, project the results a last time, and say how it ended."""
    started, initial_records = clocks.monotonic(), not_new(engine.records())
    left_out = unselected_failures(initial_records, prepared.config.request.selection) | prepared.left_out
    requests = prepared.requests() if isinstance(engine, Engine) else None  # a cluster has its own
    prepared.hand_over(engine.records)
    # What `report` offers if this run is killed.
    await observers.remember_run(StopReason.INTERRUPTED)
    try:
        outcome = await observers.run_engine(engine, control, requests)
        outcome = replace(outcome, unselected=outcome.unselected | left_out)
        signal_exit_code = control.exit_code
        code = signal_exit_code or exit_code(outcome)
    except VeobatchError:
        raise
    except Exception as error:
        outcome, signal_exit_code = await observers.crash_outcome(engine, error), None
        code = ExitCode.CRASH
    summary = RunSummary(
        prepared.config.request.argv,
        prepared.config.paths,
        outcome,
        clocks.monotonic() - started,
        code,
        sandbox=prepared.config.request.sandbox,
        initial_records=initial_records,
        batch_usd=observers.batch_usd,
        money=await observers.money(),
        submits=prepared.submits,
    )
    await observers.remember_run(outcome.stop_reason, control.signal_name, outcome=outcome)
    if not await observers.write_results(summary):
        code = signal_exit_code or max(code, ExitCode.RESUMABLE)
        summary = replace(summary, exit_code=code, results_not_written=True)
    await observers.report_end(summary)
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
    config, ledger = prepared.config, prepared.batch.ledger
    settings, rng = config.settings, clocks.new_random()
    limits = DownloadLimits.from_settings(settings)
    entries = [] if settings.max_cost is None else await ledger.submissions()
    return Dependencies(
        api=prepared.api,
        ledger=ledger,
        downloader=Downloader(session=cdn, store=config.store, limits=limits, media=settings.media),
        schedule=PollSchedule(learner, interval_s=settings.poll_interval, random=rng),
        concurrency_limit=AdaptiveConcurrencyLimit(
            settings.concurrency, interval_s=settings.poll_interval, random=rng
        ),
        rate_limit=AdaptiveRateLimit(interval_s=settings.poll_interval),
        budget=Budget(settings.max_cost, entries, prepared.prices.price_of_key),
        price_of=prepared.prices.price_usd,
        clock=clocks.monotonic,
        wall=clocks.wall,
        random=rng,
        journal_submission=prepared.batch.journal.append,
    )


def exit_code(outcome: RunOutcome) -> ExitCode:
    """Choose among 0, 1 and 3: what can go on wins over what failed."""
    if outcome.stop_reason is not None or outcome.open_rows:
        return ExitCode.RESUMABLE
    failed = any(
        record.state is State.FAILED and record.position >= 0 and record.key not in outcome.unselected
        for record in outcome.records
    )
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE
