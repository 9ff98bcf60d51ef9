"""A whole run from the command's point of view: open what it needs, plan, ask, run, project, sum up.

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
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from pipeline.api import Api, ApiKey, normalise_base_url
from pipeline.api.catalogue import Catalogue
from pipeline.budget import Budget
from pipeline.cdn import open_session
from pipeline.cli.access import find_base_url, need_key
from pipeline.cli.aftermath import tell
from pipeline.cli.bystanders import Bystanders
from pipeline.cli.ending import Ending
from pipeline.cli.ledgers import Pauses, held_ledger, secrets_of
from pipeline.cli.loading import cache_dir, first_look
from pipeline.cli.money import agreed, estimate, price_list
from pipeline.cli.notify import check
from pipeline.cli.places import LOG_NAME, place_of
from pipeline.cli.request import Batch, Request
from pipeline.cli.start import load_batch, other_manifest, plan_batch, same_vendor, start_sandbox, tell_start
from pipeline.engine import Engine, Tools
from pipeline.errors import ExitCode, StoreTrouble, UsageError
from pipeline.events import Event, Topic
from pipeline.live.guard import parse_bind
from pipeline.logbook import Logbook
from pipeline.memory import memory_path, read_memory, write_memory
from pipeline.model import State
from pipeline.pacing import CreateGate, LookPace
from pipeline.polling import DurationLearner, PollQueue
from pipeline.settings import Settings, resolve
from pipeline.stages.download import Downloader, DownloadLimits
from pipeline.storage import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import aiohttp

    from pipeline.cli.money import Prices
    from pipeline.cluster.driver import Cluster
    from pipeline.engine import Outcome
    from pipeline.ledger import Ledger
    from pipeline.plan import Plan

SANDBOX_HINT: Final = "To try without a key, free and offline: add --sandbox."
SANDBOX_KEY: Final = "any-key-will-do"
USUAL_INTERVAL_S: Final = 10.0
CATALOGUE_S: Final = 6.0
SANDBOX_DOUBT_S: Final = 600.0
SHORTEST_DOUBT_S: Final = 10.0
"""How long a row's absence from the sandbox's log proves nothing: its renderings and its log's lag, at
speed 1, and a margin at any speed."""
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


def settings_of(request: Request, manifest_run: Mapping[str, Any]) -> Settings:
    """Flags > environment > the manifest's `run:` > defaults; the sandbox, being fast, has its own."""
    defaults: dict[str, Any] = {}
    if request.sandbox:
        speed = max(1.0, request.sandbox_speed)
        settled_s = max(SANDBOX_DOUBT_S / speed, SHORTEST_DOUBT_S)
        defaults = {"poll_interval": USUAL_INTERVAL_S / speed, "reconcile_after": settled_s}
    return resolve(
        [
            ("the command line", request.flags),
            ("the environment", request.environment),
            (f"{request.manifest}: run", manifest_run),
            ("defaults", defaults),
        ]
    )


async def _run(batch: Batch) -> int:
    async with AsyncExitStack() as stack:
        request, place = batch.request, batch.place
        stack.push_async_callback(batch.store.aclose)
        base_url = batch.base_url or await start_sandbox(stack, batch)
        timeout_s = batch.settings.request_timeout
        api = await stack.enter_async_context(Api(base_url, batch.key, timeout_s=timeout_s))
        catalogue = Catalogue(
            api.plain, base_url, None if request.sandbox else cache_dir(), timeout_s=CATALOGUE_S
        )
        loaded = await load_batch(batch, catalogue)
        settings = settings_of(request, loaded.manifest.run)
        batch = replace(batch, settings=settings)
        pauses = Pauses()
        held = held_ledger(place, what=f"veobatch run {request.manifest}", pauses=pauses)
        ledger = await stack.enter_async_context(held)
        await same_vendor(ledger, sandbox=request.sandbox, home=place.home)
        other = await other_manifest(ledger, request.manifest)
        log = stack.enter_context(
            Logbook(place.home / LOG_NAME, [batch.key.secret, *secrets_of(place.elsewhere)])
        )
        resubmit = request.resubmit_in_doubt
        # Before anything is planned: workers that a killed driver left behind write nothing from here on.
        epoch = await ledger.begin_epoch() if request.cluster is not None else None
        plan = await plan_batch(
            ledger, loaded.manifest, settings.name, request.retry, resubmit_in_doubt=resubmit
        )
        prices = await price_list(plan.records, loaded, catalogue, settings.assume_price)
        cost = await estimate(plan.records, prices, None if request.sandbox else api)
        if not request.sandbox and not agreed(cost, assume_yes=request.yes):
            click.echo("nothing was submitted", err=True)
            return int(ExitCode.RESUMABLE)
        log.know(plan.records)
        cdn = await stack.enter_async_context(open_session())
        bystanders = Bystanders(batch, plan, cost, log)
        pauses.observer = bystanders.observer
        tell_start(plan, loaded, cost, bystanders.observer, other)
        learner = DurationLearner(settings.poll_interval)
        with _remembering(learner, base_url, wanted=not request.sandbox):
            tools = _tools(api, cdn, ledger, learner, prices, plan, batch)
            engine: Engine | Cluster
            if epoch is None:
                engine = Engine(plan.records, tools, settings, bystanders.observer)
            else:
                engine = await _cluster(plan, batch, base_url, epoch, prices, learner, tools, bystanders)
            ending = await _driven(engine, bystanders, batch)
            if not isinstance(engine, Engine):
                learner.restore(engine.learned)
    ending.show(as_json=request.as_json, quiet=request.quiet)
    await tell(request, ending)
    return int(ending.code)


async def _cluster(
    plan: Plan,
    batch: Batch,
    base_url: str,
    epoch: tuple[int, frozenset[str]],
    prices: Prices,
    learner: DurationLearner,
    tools: Tools,
    bystanders: Bystanders,
) -> Cluster:
    from pipeline.cli.clustering import check_saved, make_cluster

    observer = bystanders.observer
    records = await check_saved(plan.records, tools.ledger, tools.downloader, observer)
    return make_cluster(records, batch, base_url, tools.ledger, epoch, prices, learner, observer)


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
        ending = replace(ending, code=interrupted or ExitCode.RESUMABLE)
    bystanders.observer.said(Event(Topic.ENDED, f"exit {int(ending.code)}: {outcome.message or 'all done'}"))
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


def _tools(
    api: Api,
    cdn: aiohttp.ClientSession,
    ledger: Ledger,
    learner: DurationLearner,
    prices: Prices,
    plan: Plan,
    batch: Batch,
) -> Tools:
    settings, chance = batch.settings, random.Random()
    pace = settings.poll_interval
    limits = DownloadLimits(max_bytes=settings.max_video_bytes, first_wait_s=pace / 40, longest_wait_s=pace)
    return Tools(
        api=api,
        ledger=ledger,
        downloader=Downloader(session=cdn, store=batch.store, limits=limits, media=settings.media),
        polling=PollQueue(learner, interval_s=settings.poll_interval, random=chance),
        gate=CreateGate(settings.concurrency, interval_s=settings.poll_interval, random=chance),
        pace=LookPace(interval_s=settings.poll_interval),
        budget=Budget.of(settings.max_cost, plan.records),
        price_of=prices.of,
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
