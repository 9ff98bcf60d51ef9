"""How a run starts: the checked manifest, the plan made durable, and what it will cost.

Everything here happens before the first create may leave.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from pipeline.batch.ownership import check_folder
from pipeline.batch.pictures import check_pictures
from pipeline.batch.record_plan import record_plan
from pipeline.batch.retakes import extra_takes
from pipeline.client import key_id
from pipeline.client.reachability import Preflight, check_api
from pipeline.errors import StopReason, StopRun, UsageError
from pipeline.events import Event, Level, Topic
from pipeline.model import State
from pipeline.plan import BatchPlan, make_plan
from pipeline.reconcile.origin import origin_notes
from pipeline.reconcile.restored_ledger import HistoryUnknown, recall_forgotten
from pipeline.results.receipts import META_NAME as RECEIPTS_META
from pipeline.runner.config import resolve_settings
from pipeline.runner.manifest_loading import (
    LoadedManifest,
    fetch_other_models,
    image_warnings,
    known_rules,
)
from pipeline.runner.open_batch import open_api, open_batch
from pipeline.runner.preflight import (
    as_error,
    fit_to_open_files,
    raise_open_file_limit,
    space_warning,
    warnings_of,
)
from pipeline.runner.previous_run_end import last_end_note
from pipeline.runner.retired_models import check_retired
from pipeline.runner.run_cost_estimate import estimate_cost, load_prices
from pipeline.selection import submittable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AsyncExitStack

    from pipeline.batch.request import RunRequest
    from pipeline.client import Api
    from pipeline.client.catalog import Catalog
    from pipeline.client.reachability import Finding
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.manifest import ParsedManifest
    from pipeline.model import Record
    from pipeline.runner.config import RunConfig
    from pipeline.runner.open_batch import OpenedBatch
    from pipeline.runner.run_cost_estimate import CostEstimate, PriceTable

FINISHED_STATES: Final = frozenset({State.DONE, State.FAILED})


@dataclass(slots=True)
class PreparedRun:
    """A run as it stands before anything is submitted; what is open in it belongs to the caller's stack.

    `config` has its final settings and base URL. `notes` are warnings; `runs` counts the batch's runs;
    `submittable` are the keys of the rows that this run may submit, None for all; `obstacle` is why the API
    cannot be used; `submit_error` why nothing can be submitted while rows that are paid for can be fetched.
    """

    config: RunConfig
    api: Api
    batch: OpenedBatch
    loaded: LoadedManifest
    notes: tuple[str, ...]
    plan: BatchPlan
    prices: PriceTable
    cost_estimate: CostEstimate
    runs: int
    submittable: frozenset[str] | None
    obstacle: Finding | None = None
    submit_error: StopRun | None = None
    _current: Callable[[], Sequence[Record]] | None = None

    def hand_over(self, current: Callable[[], Sequence[Record]]) -> None:
        """Forget the plan, whose rows an engine has now: `current` returns them.

        A batch of new rows would be held twice otherwise, as it was and as it is.
        """
        self.plan, self._current = BatchPlan.empty(), current

    def records(self) -> Sequence[Record]:
        """Return the rows as they stand now."""
        return self.plan.records if self._current is None else self._current()


def rewritten_message(plan: BatchPlan) -> str:
    """Return why a manifest seems to have been rewritten throughout."""
    return (
        f"{len(plan.added)} rows of the manifest are new, and {plan.vanished} that are paid for have "
        f"vanished from it: an editor or an export may have changed every text"
    )


def refuse_rewritten(plan: BatchPlan) -> None:
    """Raise `UsageError`: a manifest that seems rewritten is not paid for again unasked."""
    message = rewritten_message(plan)
    raise UsageError(f"{message}. To pay for them as new rows, add --as-new; else restore the old texts")


async def prepare(
    stack: AsyncExitStack,
    config: RunConfig,
    parsed: ParsedManifest,
    on_rewritten: Callable[[BatchPlan], None] = refuse_rewritten,
) -> PreparedRun:
    """Open the API and the ledger on `stack`, make the plan durable, and learn what it will cost.

    Raises `VeobatchError`, also by `on_rewritten`, which may refuse a plan that pays for most rows again.
    """
    request, paths = config.request, config.paths
    # First, and only reading: a folder that cannot be used is said before the vendor is asked.
    lost = check_folder(paths, request.manifest, sandbox=request.sandbox, begin_anew=request.begin_anew)
    file_limit = raise_open_file_limit()
    config, api, catalogue, sandbox_warnings = await open_api(stack, config, file_limit)
    loaded = await _load_checked_manifest(config, parsed, catalogue)
    settings, _, limit_note = fit_to_open_files(resolve_settings(request, loaded.manifest.run), file_limit)
    config = replace(config, settings=settings)
    batch = await open_batch(stack, config, loaded.manifest, lost=lost)
    loaded = await _with_wishes(batch.ledger, loaded, request)
    plan, history_notes, history_error = await _plan(api, batch, loaded, config, on_rewritten)
    chosen, loaded = await _choose(plan, loaded, config)
    if history_error is not None:
        chosen = frozenset()
    pricing = load_prices(plan.records, loaded, catalogue, settings.assume_price)
    prices, preflight = await _price_and_check(api, pricing, plan.records, config)
    model_notes, model_error = await _check_models(plan.records, catalogue)
    notes = (
        *sandbox_warnings,
        *model_notes,
        await last_end_note(batch.ledger),
        *batch.claim.notes,
        *history_notes,
        *origin_notes(plan.records, key_id(config.key.secret, batch.ledger.identity), api.name),
        *warnings_of(preflight),
        limit_note,
        space_warning(paths.folder),
    )
    cost = estimate_cost(plan.records, prices, preflight.balance_usd, chosen, sandbox=request.sandbox)
    runs, noted = int(await batch.ledger.meta_get("runs") or 0), tuple(filter(None, notes))
    outlook = (prices, cost, runs, chosen, preflight.obstacle, history_error or model_error)
    return PreparedRun(config, api, batch, loaded, noted, plan, *outlook)


async def _with_wishes(ledger: Ledger, loaded: LoadedManifest, request: RunRequest) -> LoadedManifest:
    """Return the manifest with the retakes that are asked for; note in the ledger that receipts are."""
    if request.receipts:
        await ledger.meta_set(RECEIPTS_META, "1")
    extra = await extra_takes(ledger, loaded.manifest.jobs, request.retake)
    return replace(loaded, manifest=loaded.manifest.with_takes(extra))


async def _load_checked_manifest(
    config: RunConfig, parsed: ParsedManifest, catalogue: Catalog
) -> LoadedManifest:
    """Check the manifest's other models by the catalogue, and its files."""
    model_infos = await fetch_other_models(parsed, catalogue)
    manifest = await to_thread.run_sync(parsed.checked, known_rules(model_infos))
    settings = resolve_settings(config.request, manifest.run)
    check = partial(check_pictures, manifest, settings, sandbox=config.request.sandbox)
    return LoadedManifest(manifest, model_infos).with_doubts(*await to_thread.run_sync(check))


async def _choose(
    plan: BatchPlan, loaded: LoadedManifest, config: RunConfig
) -> tuple[frozenset[str] | None, LoadedManifest]:
    """Return the keys of the rows that may be submitted, None for all, and the doubts about their images.

    No other image is looked at: what is paid for is fetched, whatever has become of its image since.
    """
    chosen = submittable(plan, config.request.selection)
    if not config.settings.check_images:
        return chosen, loaded
    pending = (record for record in plan.records if record.state is State.PENDING)
    positions = {record.position for record in pending if chosen is None or record.key in chosen}
    jobs = [job for job in loaded.manifest.jobs if job.index in positions]
    warnings = await image_warnings(loaded.manifest, config.settings.allow_private_images, jobs)
    return chosen, loaded.with_doubts(warnings)


async def _plan(
    api: Api,
    batch: OpenedBatch,
    loaded: LoadedManifest,
    config: RunConfig,
    on_rewritten: Callable[[BatchPlan], None],
) -> tuple[BatchPlan, tuple[str, ...], StopRun | None]:
    """Make the plan durable, with what the ledger may have forgotten.

    Return it, what to say of that, and the stop when nothing may be submitted.
    """
    request, ledger = config.request, batch.ledger
    plan = make_plan(
        loaded.manifest.jobs,
        await ledger.load(),
        name_template=config.settings.name,
        retry=request.retry,
        resubmit_in_doubt=request.resubmit_in_doubt,
    )
    # Before anything is written: a plan that is refused leaves the ledger as it was.
    if plan.seems_rewritten and not request.as_new:
        on_rewritten(plan)
    await record_plan(ledger, plan, loaded.manifest.path)
    return await _recall(api, batch, plan, key_id(config.key.secret, ledger.identity))


async def _recall(
    api: Api, batch: OpenedBatch, plan: BatchPlan, asking_key: str
) -> tuple[BatchPlan, tuple[str, ...], StopRun | None]:
    """Give rows that the ledger has forgotten their generations back, before a create may leave."""
    uncertain, journal = batch.claim.history_uncertain, batch.journal
    try:
        recalled, message = await recall_forgotten(
            api, batch.ledger, plan.records, journal, uncertain=uncertain, key_id=asking_key
        )
    except HistoryUnknown as error:
        # The journal is not taken over: this ledger may lack some of what was submitted.
        plan = plan.with_current(error.recalled)
        may_submit = any(r.position >= 0 and r.state in (State.PENDING, State.IN_DOUBT) for r in plan.records)
        return (plan, (), error) if may_submit else (plan, (str(error),), None)
    plan = plan.with_current(recalled)
    return plan, (message, await journal.take_over(batch.ledger, plan.records)), None


async def _load_engine() -> None:
    await to_thread.run_sync(partial(import_module, "pipeline.runner.execute"))


async def _price_and_check(
    api: Api, pricing: Awaitable[PriceTable], records: Sequence[Record], config: RunConfig
) -> tuple[PriceTable, Preflight]:
    """Load prices and check the API at the same time, so that a good start is no slower.

    A batch with nothing left to do makes no request. Raises `UsageError` for an address that is not the API.
    """
    if config.request.sandbox or not any(record.state not in FINISHED_STATES for record in records):
        return await pricing, Preflight()
    results: list[Preflight] = []

    async def check() -> None:
        results.append(await check_api(config.base_url, config.key))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(check)
        tasks.start_soon(_load_engine)  # needed right after, while the network is waited for
        prices = await pricing
    # A create that the vendor's clock does not date cannot be proven absent from its log.
    for seen in results[0].dates:
        api.vendor_clock.observe(*seen)
    obstacle = results[0].obstacle
    if obstacle is not None and isinstance(error := as_error(obstacle), UsageError):
        raise error
    return prices, results[0]


async def _check_models(
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


def report_start(prepared: PreparedRun, observer: Observer) -> None:
    """Report what this start is about to do, and what is unusual about it: warnings, edits, doubts."""
    plan, loaded, cost = prepared.plan, prepared.loaded, prepared.cost_estimate

    def warn(message: str, topic: Topic = Topic.NOTE, key: str = "") -> None:
        observer.on_event(Event(topic, message, Level.WARNING, key))

    for message in (*prepared.notes, *map(str, loaded.manifest.warnings), *loaded.notes):
        warn(message)
    if cost.rows:
        warn(cost.to_text(), Topic.PLANNED)
    for old, new in plan.edited:
        kept = " (its video is kept)" if old.artifact else ""
        edited = f"line {new.line}: {new.id} was edited: it is a new job; the old one stays as it is{kept}"
        warn(edited, key=new.key)
    old_keys = {old.key for old, _ in plan.edited}
    removed = sum(record.key not in old_keys for record in plan.removed)
    if removed:
        warn(f"{removed} row(s) are no longer in the manifest but were paid for: they are kept and listed")
    in_doubt = sum(record.state is State.IN_DOUBT for record in plan.records)
    if in_doubt:
        warn(f"{in_doubt} row(s) are in doubt: the vendor's log is asked about them", Topic.IN_DOUBT)
