"""How a run starts: the stand-in if wanted, the checked manifest, the plan made durable, and what is said.

Everything here happens before the first create may leave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from pipeline.batch.ledger_access import SANDBOX_VENDOR, ReconnectNotifier, ledger_passwords
from pipeline.batch.ledger_memory import recall_forgotten
from pipeline.batch.opening import open_batch, plan_batch
from pipeline.batch.ownership import check_folder
from pipeline.batch.takes import with_retakes
from pipeline.cli.cost_prompt import confirm_cost, confirm_rewritten, estimate_cost, load_prices
from pipeline.cli.ends.last_end import last_end_note
from pipeline.cli.manifest_loading import cache_dir, check_manifest_images, check_with_catalogue
from pipeline.cli.preflight import (
    as_error,
    fit_to_open_files,
    raise_open_file_limit,
    space_warning,
    warnings_of,
)
from pipeline.cli.retired_models import check_retired
from pipeline.client import Api, key_id
from pipeline.client.catalog import Catalog
from pipeline.client.preflight import Preflight, check_api
from pipeline.errors import StopReason, StopRun, UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.plan import BatchPlan
from pipeline.reconcile.origin import origin_notes
from pipeline.results import LOG_NAME
from pipeline.results.run_log import RunLog
from pipeline.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from pipeline.batch.paths import BatchPaths
    from pipeline.cli.cost_prompt import CostEstimate, PriceTable
    from pipeline.cli.manifest_loading import LoadedManifest, ParsedManifest
    from pipeline.cli.options import RunOptions
    from pipeline.client import ApiKey
    from pipeline.client.preflight import Finding
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.plan import BatchPlan
    from pipeline.settings import Settings
    from pipeline.storage import OutputStore


async def start_sandbox(stack: AsyncExitStack, folder: Path, speed: float) -> str:
    """Start the stand-in inside this process, where an earlier run's left off; return its URL."""
    from pipeline.sandbox import Sandbox, SandboxOptions

    options = SandboxOptions(
        speed=speed,
        balance_usd=1_000_000.0,  # for all runs of the batch: the journal remembers what they were charged
        journal=folder / "sandbox.jsonl",
    )
    sandbox = await stack.enter_async_context(Sandbox(options))
    for note in sandbox.journal_warnings:
        click.echo(note, err=True)
    return str(sandbox.url)


async def load_checked_manifest(config: RunConfig, catalogue: Catalog) -> LoadedManifest:
    """Check the manifest's other models by the catalogue, and its images when asked to."""
    loaded = await check_with_catalogue(config.parsed, catalogue)
    if config.settings.check_images:
        loaded = await check_manifest_images(loaded, config.settings.allow_private_images)
    return loaded


def report_start(
    plan: BatchPlan, loaded: LoadedManifest, cost_estimate: CostEstimate, observer: Observer, *notes: str
) -> None:
    """Say what this start is about to do, and what is unusual about it: warnings, edits, doubts."""
    for message in filter(None, (*notes, *map(str, loaded.manifest.warnings), *loaded.notes)):
        observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
    if cost_estimate.rows:
        observer.on_event(Event(Topic.PLANNED, cost_estimate.to_text(), Level.WARNING))
    for old, new in plan.edited:
        kept = " (its video is kept)" if old.artifact else ""
        message = f"line {new.line}: {new.id} was edited: it is a new job; the old one stays as it is{kept}"
        observer.on_event(Event(Topic.NOTE, message, Level.WARNING, new.key))
    edited = {old.key for old, _ in plan.edited}
    removed = [record for record in plan.removed if record.key not in edited]
    if removed:
        message = (
            f"{len(removed)} row(s) are no longer in the manifest but were paid for: they are kept and listed"
        )
        observer.on_event(Event(Topic.NOTE, message, Level.WARNING))
    in_doubt = sum(record.state is State.IN_DOUBT for record in plan.records)
    if in_doubt:
        message = f"{in_doubt} row(s) are in doubt: the vendor's log is asked about them"
        observer.on_event(Event(Topic.IN_DOUBT, message, Level.WARNING))


SANDBOX_POLL_INTERVAL_S: Final = 10.0
CATALOGUE_TIMEOUT_S: Final = 6.0
SANDBOX_RECONCILE_AFTER_S: Final = 600.0
FINISHED_STATES: Final = frozenset({State.DONE, State.FAILED})
MIN_RECONCILE_AFTER_S: Final = 10.0
"""How long a row's absence from the sandbox's log proves nothing: its renderings and its log's lag, at
speed 1, and a margin at any speed."""


async def _price_and_check(
    pricing: Awaitable[PriceTable], records: Sequence[Record], config: RunConfig
) -> tuple[PriceTable, Preflight]:
    """Load prices and check the API at the same time, so that a good start is no slower.

    A batch with nothing left to do makes no request. Raises `UsageError` for an address that is not the API.
    """
    if config.options.sandbox or not any(record.state not in FINISHED_STATES for record in records):
        return await pricing, Preflight()
    results: list[Preflight] = []

    async def check() -> None:
        results.append(await check_api(config.base_url, config.key))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(check)
        prices = await pricing
    obstacle = results[0].obstacle
    if obstacle is not None and isinstance(error := as_error(obstacle), UsageError):
        raise error
    return prices, results[0]


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that is decided before the loop starts."""

    options: RunOptions
    parsed: ParsedManifest
    settings: Settings
    paths: BatchPaths
    store: OutputStore
    key: ApiKey
    base_url: str


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run as it stands before anything is submitted; what is open in it belongs to the caller's stack.

    `batch` has its final settings and base URL. `epoch` is what the ledger answered when a cluster's
    epoch began, None for a run in this process. `notes` are warnings; `runs` counts the batch's runs;
    `obstacle` is why the API cannot be used; `submit_error` why nothing can be submitted while
    rows that are paid for can still be fetched.
    """

    config: RunConfig
    api: Api
    ledger: Ledger
    reconnect_notifier: ReconnectNotifier
    run_log: RunLog
    loaded: LoadedManifest
    notes: tuple[str, ...]
    epoch: tuple[int, frozenset[str]] | None
    plan: BatchPlan
    prices: PriceTable
    cost_estimate: CostEstimate
    runs: int
    obstacle: Finding | None = None
    submit_error: StopRun | None = None

    def confirm_cost(self) -> bool:
        """Say whether the money may be spent: play money may, else it is asked where somebody can answer."""
        options = self.config.options
        return options.sandbox or confirm_cost(self.cost_estimate, assume_yes=options.yes)


def sandbox_reconcile_after_s(speed: float) -> float:
    """Return how long a row has to be absent from the log of a sandbox of this speed."""
    return max(SANDBOX_RECONCILE_AFTER_S / speed, MIN_RECONCILE_AFTER_S)


async def check_models(
    records: Sequence[Record], catalogue: Catalog
) -> tuple[tuple[str, ...], StopRun | None]:
    """Return notes on models that retire, and the stop when one that rows still need is withdrawn.

    Raises `UsageError` in place of the stop when nothing is in flight that a run could still fetch.
    """
    pending = {record.model for record in records if record.state is State.PENDING and record.position >= 0}
    retired = await check_retired(pending, catalogue)
    if not retired.withdrawn:
        return retired.notes, None
    if not any(record.state not in {*FINISHED_STATES, State.PENDING} for record in records):
        raise UsageError(f"{retired.obstacle}. Nothing was submitted")
    return retired.notes, StopRun(StopReason.MODEL, retired.obstacle)


def resolve_settings(options: RunOptions, manifest_run: Mapping[str, Any]) -> Settings:
    """Flags > environment > the manifest's `run:` > defaults; the sandbox, being fast, has its own."""
    defaults: dict[str, Any] = {}
    if options.sandbox:
        speed = max(1.0, options.sandbox_speed)
        defaults = {
            "poll_interval": SANDBOX_POLL_INTERVAL_S / speed,
            "reconcile_after": sandbox_reconcile_after_s(speed),
        }
    return resolve(
        [
            ("the command line", options.flags),
            ("the environment", options.environment),
            (f"{options.manifest}: run", manifest_run),
            ("defaults", defaults),
        ]
    )


async def prepare(stack: AsyncExitStack, config: RunConfig) -> PreparedRun:
    """Open the API and the ledger on `stack`, make the plan durable, and learn what it will cost.

    Raises `VeobatchError` for whatever stands in the way; nothing is submitted here.
    """
    options, paths = config.options, config.paths
    lost = check_folder(paths, options.manifest, sandbox=options.sandbox, begin_anew=options.begin_anew)
    base_url = config.base_url or await start_sandbox(stack, paths.folder, options.sandbox_speed)
    file_limit = raise_open_file_limit()
    _, connections, _ = fit_to_open_files(config.settings, file_limit)
    timeout_s, name = config.settings.request_timeout, SANDBOX_VENDOR if options.sandbox else ""
    opening_api = Api(base_url, config.key, timeout_s=timeout_s, connections=connections, name=name)
    api = await stack.enter_async_context(opening_api)
    cache = None if options.sandbox else cache_dir()
    catalogue = Catalog(api.keyless_session, base_url, cache, timeout_s=CATALOGUE_TIMEOUT_S)
    loaded = await load_checked_manifest(config, catalogue)
    settings, _, limit_note = fit_to_open_files(resolve_settings(options, loaded.manifest.run), file_limit)
    notifier = ReconnectNotifier()
    ledger, claim = await open_batch(stack, config, loaded.manifest, notifier, lost=lost)
    manifest = await with_retakes(ledger, loaded.manifest, options.retake)
    loaded = replace(loaded, manifest=manifest)
    secrets = [config.key.secret, *ledger_passwords(paths.external_ledger)]
    run_log = stack.enter_context(RunLog(paths.folder / LOG_NAME, secrets))
    # Before anything is planned: workers that a killed driver left behind write nothing from here on.
    epoch = await ledger.begin_epoch() if options.cluster is not None else None
    resubmit = options.resubmit_in_doubt
    plan = await plan_batch(
        ledger,
        loaded.manifest,
        settings.name,
        options.retry,
        resubmit_in_doubt=resubmit,
        check=partial(confirm_rewritten, as_new=options.as_new),
    )
    own_key_id = key_id(config.key.secret, ledger.identity)
    records, recalled = await recall_forgotten(
        api,
        ledger,
        plan.records,
        uncertain=claim.history_uncertain,
        key_id=own_key_id,
        wait_s=settings.reconcile_after,
    )
    plan = replace(plan, records=tuple(records))
    pricing = load_prices(plan.records, loaded, catalogue, settings.assume_price)
    prices, preflight = await _price_and_check(pricing, plan.records, config)
    model_notes, submit_error = await check_models(plan.records, catalogue)
    notes = (
        *model_notes,
        await last_end_note(ledger),
        *claim.notes,
        recalled,
        *origin_notes(plan.records, own_key_id, api.name),
    )
    notes = tuple(filter(None, (*notes, *warnings_of(preflight), limit_note, space_warning(paths.folder))))
    cost_estimate = await estimate_cost(plan.records, prices, None if options.sandbox else api)
    final_config = replace(config, settings=settings, base_url=base_url)
    return PreparedRun(
        final_config,
        api,
        ledger,
        notifier,
        run_log,
        loaded,
        notes,
        epoch,
        plan,
        prices,
        cost_estimate,
        int(await ledger.meta_get("runs") or 0),
        preflight.obstacle,
        submit_error,
    )
