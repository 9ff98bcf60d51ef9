"""How a run starts: the stand-in if wanted, the checked manifest, the plan made durable, and what is said.

Everything here happens before the first create may leave.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.cli.cost_prompt import confirm_cost, estimate_cost, load_prices
from pipeline.cli.folder import check_folder, check_remote_output, claim_folder, set_aside_lost_batch
from pipeline.cli.ledger_access import ReconnectNotifier, ledger_passwords, open_exclusive_ledger
from pipeline.cli.manifest_loading import cache_dir, check_manifest_images, check_with_catalogue
from pipeline.cli.other_batches import reject_rows_paid_elsewhere, remember_folder
from pipeline.cli.paths import LEDGER_NAME
from pipeline.client import Api
from pipeline.client.catalog import Catalog
from pipeline.errors import UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State, Transition
from pipeline.plan import BatchPlan, RetrySelection, make_plan
from pipeline.results import LOG_NAME
from pipeline.results.run_log import RunLog
from pipeline.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AsyncExitStack
    from pathlib import Path

    from pipeline.cli.cost_prompt import CostEstimate, PriceTable
    from pipeline.cli.manifest_loading import LoadedManifest, ParsedManifest
    from pipeline.cli.options import RunOptions
    from pipeline.cli.paths import BatchPaths
    from pipeline.client import ApiKey
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.manifest import Manifest
    from pipeline.plan import BatchPlan
    from pipeline.settings import Settings
    from pipeline.storage import OutputStore

SANDBOX_VENDOR: Final = "sandbox"


async def start_sandbox(stack: AsyncExitStack, config: RunConfig) -> str:
    """Start the stand-in inside this process, where an earlier run's left off; return its URL."""
    from pipeline.sandbox import Sandbox, SandboxOptions

    options = SandboxOptions(
        speed=config.options.sandbox_speed,
        balance_usd=1_000_000.0,  # for all runs of the batch: the journal remembers what they were charged
        journal=config.paths.folder / "sandbox.jsonl",
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


async def check_vendor(ledger: Ledger, *, sandbox: bool, folder: Path) -> None:
    """Keep free clips and paid ones apart: a ledger belongs to the sandbox or to the API for good."""
    stored = await ledger.meta_get("vendor")
    current = SANDBOX_VENDOR if sandbox else "api"
    if stored is None:
        await ledger.meta_set("vendor", current)
    elif stored != current:
        made_by = "by the sandbox" if stored == SANDBOX_VENDOR else "by the real API"
        raise UsageError(
            f"{folder} holds clips made {made_by}: give another --output, or move that folder away"
        )


async def open_batch(
    stack: AsyncExitStack, config: RunConfig, manifest: Manifest, notifier: ReconnectNotifier, *, lost: bool
) -> tuple[Ledger, tuple[str, ...]]:
    """Lock the folder, open its ledger on `stack` and make the folder its own; return it, with warnings.

    `lost` moves the files of a batch without its ledger out of the way first. Raises `UsageError` when the
    folder, or rows that are paid for, belong to another batch.
    """
    options, paths = config.options, config.paths
    sandbox, begin_anew = options.sandbox, options.begin_anew
    if not (sandbox or begin_anew or options.output or paths.external_ledger or _has_ledger(paths)):
        await reject_rows_paid_elsewhere(manifest, paths)
    open_ledger = open_exclusive_ledger(
        paths,
        what=f"veobatch run {options.manifest}",
        notifier=notifier,
        before_open=partial(set_aside_lost_batch, paths, sandbox=sandbox) if lost else None,
    )
    ledger = await stack.enter_async_context(open_ledger)
    await check_vendor(ledger, sandbox=sandbox, folder=paths.folder)
    await check_remote_output(config.store, ledger, paths, options.manifest, begin_anew=begin_anew)
    claim = await claim_folder(ledger, paths, options.manifest, sandbox=sandbox, begin_anew=begin_anew)
    if not sandbox:
        remember_folder(paths.folder)
    return ledger, (*claim.notes, *await other_manifest_warnings(ledger, options.manifest))


def _has_ledger(paths: BatchPaths) -> bool:
    return (paths.folder / LEDGER_NAME).exists()


def absolute_path(manifest: Path) -> str:
    return str(manifest.absolute())


async def other_manifest_warnings(ledger: Ledger, manifest: Path) -> tuple[str, ...]:
    """Return a warning when the batch was begun from another file, else nothing.

    Two manifests of one name share a folder unless `--output` says otherwise; a moved one keeps it.
    """
    stored = json.loads(await ledger.meta_get("manifest") or '""')
    current = absolute_path(manifest)
    if stored in ("", current):
        return ()
    return (f"this batch was begun from {stored}: its rows that are not in {current} count as removed",)


async def plan_batch(
    ledger: Ledger, manifest: Manifest, name: str, retry: RetrySelection, *, resubmit_in_doubt: bool = False
) -> BatchPlan:
    """Compare manifest and ledger, and make what follows from it durable. `name` is the files' template."""
    plan = make_plan(
        manifest.jobs,
        await ledger.load(),
        name_template=name,
        retry=retry,
        resubmit_in_doubt=resubmit_in_doubt,
    )
    if plan.added:
        await ledger.add(plan.added)
    if plan.positions:
        positions = {key: position for key, (position, _) in plan.positions.items()}
        await ledger.set_positions(positions, {key: line for key, (_, line) in plan.positions.items()})
    await ledger.commit_many([Transition(before, after) for before, after in plan.steps])
    await ledger.meta_set("manifest", json.dumps(absolute_path(manifest.path)))
    return plan


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
MIN_RECONCILE_AFTER_S: Final = 10.0
"""How long a row's absence from the sandbox's log proves nothing: its renderings and its log's lag, at
speed 1, and a margin at any speed."""


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
    epoch began, None for a run in this process. `notes` are warnings about the folder and its earlier runs.
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

    def confirm_cost(self) -> bool:
        """Say whether the money may be spent: play money may, else it is asked where somebody can answer."""
        options = self.config.options
        return options.sandbox or confirm_cost(self.cost_estimate, assume_yes=options.yes)


def resolve_settings(options: RunOptions, manifest_run: Mapping[str, Any]) -> Settings:
    """Flags > environment > the manifest's `run:` > defaults; the sandbox, being fast, has its own."""
    defaults: dict[str, Any] = {}
    if options.sandbox:
        speed = max(1.0, options.sandbox_speed)
        reconcile_after_s = max(SANDBOX_RECONCILE_AFTER_S / speed, MIN_RECONCILE_AFTER_S)
        defaults = {"poll_interval": SANDBOX_POLL_INTERVAL_S / speed, "reconcile_after": reconcile_after_s}
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
    base_url = config.base_url or await start_sandbox(stack, config)
    timeout_s = config.settings.request_timeout
    api = await stack.enter_async_context(Api(base_url, config.key, timeout_s=timeout_s))
    cache = None if options.sandbox else cache_dir()
    catalogue = Catalog(api.keyless_session, base_url, cache, timeout_s=CATALOGUE_TIMEOUT_S)
    loaded = await load_checked_manifest(config, catalogue)
    settings = resolve_settings(options, loaded.manifest.run)
    notifier = ReconnectNotifier()
    ledger, notes = await open_batch(stack, config, loaded.manifest, notifier, lost=lost)
    secrets = [config.key.secret, *ledger_passwords(paths.external_ledger)]
    run_log = stack.enter_context(RunLog(paths.folder / LOG_NAME, secrets))
    # Before anything is planned: workers that a killed driver left behind write nothing from here on.
    epoch = await ledger.begin_epoch() if options.cluster is not None else None
    resubmit = options.resubmit_in_doubt
    plan = await plan_batch(ledger, loaded.manifest, settings.name, options.retry, resubmit_in_doubt=resubmit)
    prices = await load_prices(plan.records, loaded, catalogue, settings.assume_price)
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
    )
