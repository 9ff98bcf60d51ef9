"""A whole run from the command's point of view: open what it needs, plan, ask, run, project, sum up.

The composition root: the one place that knows every room. What each does is theirs.
"""

from __future__ import annotations

import json
import os
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from pipeline.api import Api, ApiKey, normalise_base_url
from pipeline.api.catalogue import Catalogue
from pipeline.budget import Budget
from pipeline.cli.access import find_base_url, need_key
from pipeline.cli.ending import Ending
from pipeline.cli.loading import cache_dir, first_look, second_look, with_images
from pipeline.cli.money import agreed, estimate, price_list
from pipeline.cli.places import LOG_NAME, Place, place_of
from pipeline.cli.progress import Progress
from pipeline.cli.projector import Projector
from pipeline.cli.signals import Signals
from pipeline.engine import Engine, Tools
from pipeline.errors import ExitCode, UsageError
from pipeline.events import Event, Level, Observers, Topic
from pipeline.ledger import Ledger
from pipeline.lock import hold
from pipeline.logbook import Logbook
from pipeline.memory import memory_path, read_memory, write_memory
from pipeline.model import State, Transition
from pipeline.names import check_template
from pipeline.pacing import CreateGate, LookPace
from pipeline.plan import Plan, Retry, make_plan
from pipeline.polling import DurationLearner, PollQueue
from pipeline.results import iso
from pipeline.settings import Settings, resolve
from pipeline.stages.download import Downloader, DownloadLimits
from pipeline.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.cli.loading import FirstLook, Loaded
    from pipeline.cli.money import Estimate, Prices
    from pipeline.engine import Outcome
    from pipeline.events import Observer
    from pipeline.storage import Store

SANDBOX_HINT: Final = "To try without a key, free and offline: add --sandbox."
SANDBOX: Final = "sandbox"
SANDBOX_KEY: Final = "any-key-will-do"
USUAL_INTERVAL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for, as the options say it."""

    manifest: Path
    argv: tuple[str, ...] = ()
    output: str | None = None
    sandbox: bool = False
    sandbox_speed: float = 20.0
    base_url: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    only: frozenset[str] = frozenset()
    resubmit_in_doubt: bool = False
    yes: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0

    @property
    def retry(self) -> Retry:
        return Retry(self.retry_failed, self.only)


def run(request: Request) -> int:
    """Carry out `veobatch run`; return the exit code. Raises `VeobatchError` before anything is touched."""
    first = first_look(request.manifest)
    manifest = first.manifest if first.others else first.loaded().manifest
    settings = settings_of(request, manifest.run if manifest else {})
    check_template(settings.name)
    place = place_of(request.manifest, request.output)
    store = open_store(place.output)
    key = ApiKey(SANDBOX_KEY, "--sandbox") if request.sandbox else need_key(os.environ, hint=SANDBOX_HINT)
    base_url = "" if request.sandbox else normalise_base_url(find_base_url(request.base_url, os.environ))
    return anyio.run(_run, Batch(request, first, settings, place, store, key, base_url))


def settings_of(request: Request, manifest_run: Mapping[str, Any]) -> Settings:
    """Flags > environment > the manifest's `run:` > defaults; a faster sandbox is looked at sooner."""
    speed = max(1.0, request.sandbox_speed) if request.sandbox else 1.0
    return resolve(
        [
            ("the command line", request.flags),
            ("the environment", request.environment),
            (f"{request.manifest}: run", manifest_run),
            ("defaults", {"poll_interval": USUAL_INTERVAL_S / speed}),
        ]
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that is decided before the loop starts."""

    request: Request
    first: FirstLook
    settings: Settings
    place: Place
    store: Store
    key: ApiKey
    base_url: str


async def _run(batch: Batch) -> int:
    async with AsyncExitStack() as stack:
        request, place, settings = batch.request, batch.place, batch.settings
        stack.push_async_callback(batch.store.aclose)
        base_url = batch.base_url or await _sandbox(stack, batch)
        api = await stack.enter_async_context(Api(base_url, batch.key, timeout_s=settings.request_timeout))
        catalogue = Catalogue(api.plain, base_url, None if request.sandbox else cache_dir())
        loaded = await _loaded(batch, catalogue)
        stack.enter_context(hold(place.home, what=f"veobatch run {request.manifest}", since=iso(time.time())))
        ledger = await stack.enter_async_context(await Ledger.open(place.ledger))
        await _same_vendor(ledger, sandbox=request.sandbox, home=place.home)
        log = stack.enter_context(Logbook(place.home / LOG_NAME, [batch.key.secret]))
        plan = await _planned(ledger, batch, loaded)
        prices = await price_list(plan.records, loaded, catalogue, settings.assume_price)
        cost = await estimate(plan.records, prices, api)
        if not request.sandbox and not agreed(cost, assume_yes=request.yes):
            click.echo("nothing was submitted", err=True)
            return int(ExitCode.RESUMABLE)
        learner = DurationLearner(settings.poll_interval)
        remembered = None if request.sandbox else memory_path(base_url)
        if remembered is not None:
            learner.restore(read_memory(remembered))
        progress = Progress(
            len(loaded.manifest.jobs), known=plan.records, quiet=request.quiet, verbose=request.verbose
        )
        projector = Projector(batch.store, title=request.manifest.stem, manifest=str(request.manifest))
        observer = Observers(log, progress, projector)
        _tell_start(plan, loaded, cost, observer)
        tools = _tools(api, ledger, learner, prices, plan, batch)
        engine = Engine(plan.records, tools, settings, observer)
        began = time.monotonic()
        outcome, exit_code = await _drive(engine, progress, projector)
        if remembered is not None:
            write_memory(remembered, learner.dump())
        code = exit_code or _exit_code(outcome)
        ending = Ending(request.argv, place, outcome, time.monotonic() - began, code)
        if not await projector.finish(outcome.records, next_command=ending.next_command()):
            ending = replace(ending, code=exit_code or ExitCode.RESUMABLE)
        observer.said(Event(Topic.ENDED, f"exit {int(ending.code)}: {outcome.message or 'all done'}"))
    ending.show(as_json=request.as_json, quiet=request.quiet)
    return int(ending.code)


async def _loaded(batch: Batch, catalogue: Catalogue) -> Loaded:
    """Check the manifest's other models by the catalogue, and its images when asked to."""
    loaded = await second_look(batch.first, catalogue)
    if batch.settings.check_images:
        loaded = await with_images(loaded, batch.settings.allow_private_images)
    return loaded


async def _drive(engine: Engine, progress: Progress, projector: Projector) -> tuple[Outcome, ExitCode | None]:
    """Run the engine with its bystanders: signals, the CSV that keeps up, the clock of the progress."""
    signals = Signals()
    async with anyio.create_task_group() as bystanders:
        await bystanders.start(signals.listen, engine)
        bystanders.start_soon(projector.keep_up, engine.records)
        bystanders.start_soon(_tick, progress)
        with progress:
            outcome = await engine.run()
        bystanders.cancel_scope.cancel()
    return outcome, signals.exit_code


async def _tick(progress: Progress) -> None:
    while True:
        await anyio.sleep(0.5)
        progress.tick()


async def _sandbox(stack: AsyncExitStack, batch: Batch) -> str:
    """Start the stand-in inside this process; return its URL."""
    from pipeline.sandbox import Sandbox, SandboxOptions

    options = SandboxOptions(speed=batch.request.sandbox_speed)
    box = await stack.enter_async_context(Sandbox(options))
    return str(box.url)


async def _same_vendor(ledger: Ledger, *, sandbox: bool, home: Path) -> None:
    """Keep free clips and paid ones apart: a ledger belongs to the sandbox or to the API for good."""
    was = await ledger.meta_get("vendor")
    now = SANDBOX if sandbox else "api"
    if was is None:
        await ledger.meta_set("vendor", now)
    elif was != now:
        made = "by the sandbox" if was == SANDBOX else "by the real API"
        raise UsageError(f"{home} holds clips made {made}: give another --output, or move that folder away")


async def _planned(ledger: Ledger, batch: Batch, loaded: Loaded) -> Plan:
    """Compare manifest and ledger, and make what follows from it durable."""
    request = batch.request
    plan = make_plan(
        loaded.manifest.jobs,
        await ledger.load(),
        name_template=batch.settings.name,
        retry=request.retry,
        resubmit_in_doubt=request.resubmit_in_doubt,
    )
    if plan.added:
        await ledger.add(plan.added)
    if plan.places:
        positions = {key: position for key, (position, _) in plan.places.items()}
        await ledger.place(positions, {key: line for key, (_, line) in plan.places.items()})
    await ledger.commit_many([Transition(before, after) for before, after in plan.steps])
    await ledger.meta_set("manifest", json.dumps(str(request.manifest)))
    return plan


def _tell_start(plan: Plan, loaded: Loaded, cost: Estimate, observer: Observer) -> None:
    """Say what this start is about to do, and what is unusual about it: warnings, edits, doubts."""
    for words in (*map(str, loaded.manifest.warnings), *loaded.notes):
        observer.said(Event(Topic.NOTE, words, Level.WARNING))
    if cost.rows:
        observer.said(Event(Topic.PLANNED, cost.words(), Level.WARNING))
    for old, new in plan.edited:
        kept = " (its video is kept)" if old.artifact else ""
        words = f"line {new.line}: {new.id} was edited: it is a new job; the old one stays as it is{kept}"
        observer.said(Event(Topic.NOTE, words, Level.WARNING, new.key))
    edited = {old.key for old, _ in plan.edited}
    gone = [record for record in plan.removed if record.key not in edited]
    if gone:
        words = (
            f"{len(gone)} row(s) are no longer in the manifest but were paid for: they are kept and listed"
        )
        observer.said(Event(Topic.NOTE, words, Level.WARNING))
    doubts = sum(record.state is State.IN_DOUBT for record in plan.records)
    if doubts:
        words = f"{doubts} row(s) are in doubt: the vendor's log is asked about them"
        observer.said(Event(Topic.IN_DOUBT, words, Level.WARNING))


def _tools(
    api: Api, ledger: Ledger, learner: DurationLearner, prices: Prices, plan: Plan, batch: Batch
) -> Tools:
    settings, chance = batch.settings, random.Random()
    limits = DownloadLimits(max_bytes=settings.max_video_bytes)
    return Tools(
        api=api,
        ledger=ledger,
        downloader=Downloader(session=api.plain, store=batch.store, limits=limits, media=settings.media),
        polling=PollQueue(learner, interval_s=settings.poll_interval, random=chance),
        gate=CreateGate(settings.concurrency, interval_s=settings.poll_interval, random=chance),
        pace=LookPace(),
        budget=Budget.of(settings.max_cost, plan.records),
        price_of=prices.of,
        clock=time.monotonic,
        wall=time.time,
        random=chance,
    )


def _exit_code(outcome: Outcome) -> ExitCode:
    """Choose among 0, 1 and 3: what can go on wins over what failed."""
    if outcome.stop is not None or outcome.open_rows:
        return ExitCode.RESUMABLE
    failed = any(record.state is State.FAILED and record.position >= 0 for record in outcome.records)
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE
