"""A whole run from the command's point of view: prepare, ask, run, project, sum up.

The composition root: the one place that knows every room. What each does is theirs.
"""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Final

import anyio
import click

from pipeline.cli.credentials import find_base_url, need_key
from pipeline.cli.manifest_loading import first_look
from pipeline.cli.notifications import tell
from pipeline.cli.notify import check
from pipeline.cli.observers import Bystanders
from pipeline.cli.paths import place_of
from pipeline.cli.request import Batch, Request
from pipeline.cli.setup import prepare, settings_of
from pipeline.cli.start import tell_start
from pipeline.cli.summary import Ending
from pipeline.client import ApiKey, normalise_base_url
from pipeline.download.downloader import Downloader, DownloadLimits
from pipeline.download.http import open_session
from pipeline.engine import Engine
from pipeline.errors import ExitCode, StoreTrouble, UsageError
from pipeline.events import Event, Topic
from pipeline.model import State
from pipeline.poll.duration_cache import memory_path, read_memory, write_memory
from pipeline.poll.learner import DurationLearner
from pipeline.poll.rate_limit import LookPace
from pipeline.poll.schedule import PollQueue
from pipeline.results.live.guard import parse_bind
from pipeline.run_context import Tools
from pipeline.storage import open_store
from pipeline.submit.budget import Budget
from pipeline.submit.concurrency import CreateGate

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

    from pipeline.cli.setup import Prepared
    from pipeline.cluster.driver import Cluster
    from pipeline.run_state import Outcome

SANDBOX_HINT: Final = "To try without a key, free and offline: add --sandbox."
SANDBOX_KEY: Final = "any-key-will-do"
SWITCH_INTERVAL_S: Final = 0.0001
"""At the default of 5 ms a loop that is busy in short bursts starves the ledger's thread of the GIL."""


def run(request: Request) -> int:
    """Carry out `veobatch run`; return the exit code. Raises `VeobatchError` before anything is touched."""
    if not isfinite(request.sandbox_speed):
        raise UsageError("--sandbox-speed takes a number, such as 20")
    first = first_look(request.manifest)
    manifest = first.manifest if first.others else first.loaded().manifest
    settings = settings_of(request, manifest.run if manifest else {})
    check(request.notify)
    if request.serve is not None:
        parse_bind(request.serve)
    if request.cluster is not None:
        from pipeline.cli.clustering import check_cluster

        check_cluster(request)
    place = place_of(request.manifest, request.output, request.where)
    store = open_store(place.output)
    key = ApiKey(SANDBOX_KEY, "--sandbox") if request.sandbox else need_key(os.environ, hint=SANDBOX_HINT)
    base_url = "" if request.sandbox else normalise_base_url(find_base_url(request.base_url, os.environ))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return anyio.run(_run, Batch(request, first, settings, place, store, key, base_url))


async def _run(batch: Batch) -> int:
    request = batch.request
    async with AsyncExitStack() as stack:
        stack.push_async_callback(batch.store.aclose)
        prepared = await prepare(stack, batch)
        if not prepared.agreed():
            click.echo("nothing was submitted", err=True)
            return int(ExitCode.RESUMABLE)
        prepared.log.know(prepared.plan.records)
        cdn = await stack.enter_async_context(open_session())
        ending = await _carried_out(prepared, cdn)
    ending.show(as_json=request.as_json, quiet=request.quiet)
    await tell(request, ending)
    return int(ending.code)


async def _carried_out(prepared: Prepared, cdn: aiohttp.ClientSession) -> Ending:
    """Let an engine do what is planned, with everybody watching who wants to."""
    batch, plan = prepared.batch, prepared.plan
    learner = DurationLearner(batch.settings.poll_interval)
    with _remembering(learner, batch.base_url, wanted=not batch.request.sandbox):
        bystanders = Bystanders(prepared, learner)
        observer = bystanders.observer
        prepared.pauses.observer = observer
        tell_start(plan, prepared.loaded, prepared.cost, observer, prepared.other)
        tools = _tools(prepared, cdn, learner)
        if prepared.epoch is None:
            return await _driven(Engine(plan.records, tools, batch.settings, observer), bystanders, batch)
        from pipeline.cli.clustering import check_saved, make_cluster

        records, trouble = await check_saved(plan.records, prepared.ledger, tools.downloader, observer)
        cluster = make_cluster(records, prepared, prepared.epoch, learner.dump(), observer)
        if trouble is not None:
            cluster.hold_back(trouble)
        ending = await _driven(cluster, bystanders, batch)
        learner.restore(cluster.learned)
        return ending


async def _driven(engine: Engine | Cluster, bystanders: Bystanders, batch: Batch) -> Ending:
    """Run the engine, project the results a last time, and say how it ended."""
    began = time.monotonic()
    try:
        await bystanders.projector.begin(engine.records())
    except StoreTrouble as trouble:
        engine.hold_back(trouble)
    outcome, interrupted = await bystanders.watch(engine)
    code = interrupted or exit_code(outcome)
    ending = Ending(batch.request.argv, batch.place, outcome, time.monotonic() - began, code)
    if not await bystanders.projector.finish(outcome.records, next_command=ending.next_command()):
        ending = replace(ending, code=interrupted or ExitCode.RESUMABLE, unwritten=True)
    bystanders.observer.said(Event(Topic.ENDED, f"exit {int(ending.code)}: {ending.headline()}"))
    return ending


@contextmanager
def _remembering(learner: DurationLearner, base_url: str, *, wanted: bool) -> Iterator[None]:
    """Begin with what earlier runs on this machine learned of this API, and leave what this one learns."""
    path = memory_path(base_url)
    if wanted:
        learner.restore(read_memory(path))
    try:
        yield
    finally:
        if wanted:
            write_memory(path, learner.dump())


def _tools(prepared: Prepared, cdn: aiohttp.ClientSession, learner: DurationLearner) -> Tools:
    batch = prepared.batch
    settings, chance = batch.settings, random.Random()
    limits = DownloadLimits.of(settings)
    return Tools(
        api=prepared.api,
        ledger=prepared.ledger,
        downloader=Downloader(session=cdn, store=batch.store, limits=limits, media=settings.media),
        polling=PollQueue(learner, interval_s=settings.poll_interval, random=chance),
        gate=CreateGate(settings.concurrency, interval_s=settings.poll_interval, random=chance),
        pace=LookPace(interval_s=settings.poll_interval),
        budget=Budget.of(settings.max_cost, prepared.plan.records),
        price_of=prepared.prices.of,
        clock=time.monotonic,
        wall=time.time,
        random=chance,
    )


def exit_code(outcome: Outcome) -> ExitCode:
    """Choose among 0, 1 and 3: what can go on wins over what failed."""
    if outcome.stop is not None or outcome.open_rows:
        return ExitCode.RESUMABLE
    failed = any(record.state is State.FAILED and record.position >= 0 for record in outcome.records)
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE
