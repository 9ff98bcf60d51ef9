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

from pipeline.api import Api, ApiKey
from pipeline.budget import Budget
from pipeline.cli.access import find_base_url, need_key
from pipeline.cli.ending import Ending
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
from pipeline.manifest import load
from pipeline.memory import memory_path, read_memory, write_memory
from pipeline.model import State, Transition
from pipeline.pacing import CreateGate, LookPace
from pipeline.plan import Plan, Retry, make_plan
from pipeline.polling import DurationLearner, PollQueue
from pipeline.results import iso
from pipeline.settings import Settings, resolve
from pipeline.stages.download import Downloader, DownloadLimits
from pipeline.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.engine import Outcome
    from pipeline.events import Observer
    from pipeline.manifest import Manifest
    from pipeline.model import Record
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
    manifest = load(request.manifest)
    settings = settings_of(request, manifest)
    place = place_of(request.manifest, request.output)
    store = open_store(place.output)
    key = ApiKey(SANDBOX_KEY, "--sandbox") if request.sandbox else need_key(os.environ, hint=SANDBOX_HINT)
    base_url = "" if request.sandbox else find_base_url(request.base_url, os.environ)
    return anyio.run(_run, Batch(request, manifest, settings, place, store, key, base_url))


def settings_of(request: Request, manifest: Manifest) -> Settings:
    """Flags > environment > the manifest's `run:` > defaults; a faster sandbox is looked at sooner."""
    speed = max(1.0, request.sandbox_speed) if request.sandbox else 1.0
    return resolve(
        [
            ("the command line", request.flags),
            ("the environment", request.environment),
            (f"{request.manifest}: run", manifest.run),
            ("defaults", {"poll_interval": USUAL_INTERVAL_S / speed}),
        ]
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that is decided before the loop starts."""

    request: Request
    manifest: Manifest
    settings: Settings
    place: Place
    store: Store
    key: ApiKey
    base_url: str


async def _run(batch: Batch) -> int:
    async with AsyncExitStack() as stack:
        request, place = batch.request, batch.place
        stack.enter_context(hold(place.home, what=f"veobatch run {request.manifest}", since=iso(time.time())))
        base_url = batch.base_url or await _sandbox(stack, batch)
        ledger = await stack.enter_async_context(await Ledger.open(place.ledger))
        stack.push_async_callback(batch.store.aclose)
        await _same_vendor(ledger, sandbox=request.sandbox, home=place.home)
        log = stack.enter_context(Logbook(place.home / LOG_NAME, [batch.key.secret]))
        plan = await _planned(ledger, batch)
        api = await stack.enter_async_context(_api(base_url, batch))
        learner = DurationLearner(batch.settings.poll_interval)
        remembered = memory_path(base_url)
        if not request.sandbox:
            learner.restore(read_memory(remembered))
        progress = Progress(
            len(batch.manifest.jobs), known=plan.records, quiet=request.quiet, verbose=request.verbose
        )
        projector = Projector(batch.store, title=request.manifest.stem, manifest=str(request.manifest))
        observer = Observers(log, progress, projector)
        _tell_plan(plan, observer)
        engine = Engine(plan.records, _tools(api, ledger, learner, plan, batch), batch.settings, observer)
        began = time.monotonic()
        outcome, exit_code = await _drive(engine, progress, projector)
        if not request.sandbox:
            write_memory(remembered, learner.dump())
        code = exit_code or _exit_code(outcome)
        ending = Ending(request.argv, place, outcome, time.monotonic() - began, code)
        if not await projector.finish(outcome.records, next_command=ending.next_command()):
            ending = replace(ending, code=exit_code or ExitCode.RESUMABLE)
        observer.said(Event(Topic.ENDED, f"exit {int(ending.code)}: {outcome.message or 'all done'}"))
    ending.show(as_json=request.as_json, quiet=request.quiet)
    return int(ending.code)


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


def _api(base_url: str, batch: Batch) -> Api:
    return Api(base_url, batch.key, timeout_s=batch.settings.request_timeout)


async def _same_vendor(ledger: Ledger, *, sandbox: bool, home: Path) -> None:
    """Keep free clips and paid ones apart: a ledger belongs to the sandbox or to the API for good."""
    was = await ledger.meta_get("vendor")
    now = SANDBOX if sandbox else "api"
    if was is None:
        await ledger.meta_set("vendor", now)
    elif was != now:
        made = "by the sandbox" if was == SANDBOX else "by the real API"
        raise UsageError(f"{home} holds clips made {made}: give another --output, or move that folder away")


async def _planned(ledger: Ledger, batch: Batch) -> Plan:
    """Compare manifest and ledger, and make what follows from it durable."""
    request = batch.request
    plan = make_plan(
        batch.manifest.jobs,
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


def _tell_plan(plan: Plan, observer: Observer) -> None:
    """Say what is unusual about this start: edits, removed rows, doubts."""
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


def _tools(api: Api, ledger: Ledger, learner: DurationLearner, plan: Plan, batch: Batch) -> Tools:
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
        price_of=_price_of(settings),
        clock=time.monotonic,
        wall=time.time,
        random=chance,
    )


def _price_of(settings: Settings) -> Callable[[Record], float | None]:
    return lambda record: settings.assume_price


def _exit_code(outcome: Outcome) -> ExitCode:
    """Choose among 0, 1 and 3: what can go on wins over what failed."""
    if outcome.stop is not None or outcome.open_rows:
        return ExitCode.RESUMABLE
    failed = any(record.state is State.FAILED and record.position >= 0 for record in outcome.records)
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE
